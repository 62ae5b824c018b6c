"""ONNX Runtime GenAI keeps what a backend promises, as far as it can. On the first two layers of SmolLM2."""

from __future__ import annotations

import importlib.util

import pytest

from corectl.runner.engine import Backend, ModelSpec
from corectl.testing import BackendSuite
from corectl_onnx.backend import OnnxBackend
from tests.conftest import smollm2
from tests.forms import Forms

BUILDER = ("onnxruntime_genai", "onnx", "onnx_ir", "torch", "transformers")
"""Modules that it takes to make a model."""


class TestOnnx(BackendSuite):
    engine_modules = ("onnxruntime_genai",)
    cannot = {
        "context shift": "a generator forgets only the end of a sequence",
        "thread control": "ONNX Runtime starts its threads when it loads a model",
        "saved states": "a generator does not give its keys and values away",
        "cutting": "what was computed moves from one sequence to another, and is not copied",
        "embeddings": "its models that embed are for another library",
        "reranking": "its models that score pairs are for another library",
        "images": "only models for text are loaded",
        "adapters": "the library takes adapters of a format of its own, which are not offered",
        "quantizing": "models are made as small as they are to be by their builder",
    }

    def backend(self) -> Backend:
        return OnnxBackend()

    def model(self, tmp_path_factory: pytest.TempPathFactory) -> ModelSpec:
        missing = [name for name in BUILDER if importlib.util.find_spec(name) is None]
        if missing:
            pytest.skip(f"the builder of such models is not here: {', '.join(missing)}")
        folder = Forms(smollm2(), tmp_path_factory.mktemp("onnx")).onnx(2)
        named = {path.name: path for path in sorted(folder.iterdir())}
        return ModelSpec(format="onnx-genai", weights=named["model.onnx"], named=named)
