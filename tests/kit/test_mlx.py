"""MLX keeps what a backend promises, as far as it can. On the first two layers of SmolLM2: its CPU build is slow."""

from __future__ import annotations

import msgspec
import pytest

from corectl.runner.engine import Backend, ModelSpec
from corectl.testing import BackendSuite
from corectl_mlx.backend import MlxBackend
from tests.conftest import smollm2
from tests.forms import Forms


class TestMlx(BackendSuite):
    engine_modules = ("mlx", "mlx_lm")
    cannot = {
        "context shift": "MLX keeps keys as they were rotated, and has no way to rotate them on",
        "thread control": "MLX decides about its threads by itself",
        "cutting": "a copy takes memory of its own, so what was computed moves from one sequence to another",
        "embeddings": "mlx-lm has no models that embed",
        "reranking": "mlx-lm has no cross-encoders",
        "images": "mlx-lm has no models that see",
    }

    def backend(self) -> Backend:
        return MlxBackend()

    def model(self, tmp_path_factory: pytest.TempPathFactory) -> ModelSpec:
        folder = Forms(smollm2(), tmp_path_factory.mktemp("mlx")).safetensors(2)
        named = {path.name: path for path in sorted(folder.iterdir())}
        return ModelSpec(format="safetensors", weights=named["model.safetensors"], named=named)

    def adapted(self, tmp_path_factory: pytest.TempPathFactory) -> ModelSpec:
        from tests.backends.test_mlx_adapters import of_peft

        folder = of_peft(tmp_path_factory.mktemp("adapter") / "peft")
        named = {path.name: path for path in sorted(folder.iterdir())}
        return msgspec.structs.replace(
            self.model(tmp_path_factory), adapters=(named["adapter_model.safetensors"],), adapter_named=named
        )

    def unquantized(self, tmp_path_factory: pytest.TempPathFactory) -> ModelSpec:
        return self.model(tmp_path_factory)
