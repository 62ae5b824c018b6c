"""ctransformers keeps what a backend promises."""

from __future__ import annotations

import pytest

from corectl.runner.engine import Backend, ModelSpec
from corectl.testing import BackendSuite
from corectl_ctransformers.backend import CTransformersBackend
from tests.legacy_ggml import write_ggml


class TestCTransformers(BackendSuite):
    engine_modules = ("ctransformers",)
    margin = 0.05
    cannot = {
        "batching": "the library has one memory for keys and values, so requests take turns",
        "context shift": "the library cannot move what is in its memory",
        "saved states": "the library gives nobody its memory",
        "cutting": "what was computed is handed on to one request, not shared",
        "embeddings": "the library gives the last token's state only, and for Llama and Falcon only",
        "reranking": "no model of this format gives scores",
        "images": "no model of this format sees",
        "adapters": "the library applies none",
        "quantizing": "the library only loads what is quantised already",
    }

    def backend(self) -> Backend:
        return CTransformersBackend()

    def model(self, tmp_path_factory: pytest.TempPathFactory) -> ModelSpec:
        file = write_ggml(tmp_path_factory.mktemp("ggml") / "ggml-model-f32.bin", "gpt2")
        return ModelSpec(format="ggml", weights=file)
