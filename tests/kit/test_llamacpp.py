"""llama.cpp keeps what a backend promises."""

from __future__ import annotations

import pytest

from corectl.runner.engine import Backend, ModelSpec
from corectl.testing import BackendSuite
from corectl_llamacpp.backend import LlamaCppBackend
from tests.backends.conftest import EMBEDDER
from tests.bert import write_ranker
from tests.conftest import smollm2
from tests.forms import Forms
from tests.lora import write_lora
from tests.projector import QwenVision, write_projector
from tests.tiny_qwen import WIDTH, write_tiny_qwen


class TestLlamaCpp(BackendSuite):
    engine_modules = ("llama_cpp",)
    quantization = "Q4_K_M"

    def backend(self) -> Backend:
        return LlamaCppBackend()

    def model(self, tmp_path_factory: pytest.TempPathFactory) -> ModelSpec:
        return ModelSpec(format="gguf", weights=smollm2())

    def embedder(self, tmp_path_factory: pytest.TempPathFactory) -> ModelSpec:
        return ModelSpec(format="gguf", weights=EMBEDDER, embedding=True)

    def ranker(self, tmp_path_factory: pytest.TempPathFactory) -> ModelSpec:
        file = write_ranker(tmp_path_factory.mktemp("ranker") / "ranker.gguf")
        return ModelSpec(format="gguf", weights=file, embedding=True)

    def seer(self, tmp_path_factory: pytest.TempPathFactory) -> ModelSpec:
        folder = tmp_path_factory.mktemp("seer")
        projector = write_projector(QwenVision(WIDTH), folder / "projector.gguf")
        return ModelSpec(
            format="gguf", weights=write_tiny_qwen(folder / "model.gguf"), projectors=(projector,)
        )

    def adapted(self, tmp_path_factory: pytest.TempPathFactory) -> ModelSpec:
        adapter = write_lora(tmp_path_factory.mktemp("adapter") / "lora.gguf", smollm2())
        return ModelSpec(format="gguf", weights=smollm2(), adapters=(adapter,))

    def unquantized(self, tmp_path_factory: pytest.TempPathFactory) -> ModelSpec:
        file = Forms(smollm2(), tmp_path_factory.mktemp("f16")).gguf(2)
        return ModelSpec(format="gguf", weights=file)
