"""The descriptor: what can be said about MLX, and about a model's files, without loading either."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform
import sys
from collections.abc import Callable

from corectl.runner.engine import (
    Availability,
    CacheShape,
    Engine,
    MemoryEstimate,
    ModelSpec,
    Placement,
)
from corectl_mlx.memory import estimate

IGNORED = ("num_gpu", "main_gpu", "use_mmap", "num_thread", "flash_attention", "kv_cache_type")
"""MLX has one device, decides about its threads, reads whole files, and keeps keys and values as it computes them."""


class MlxBackend:
    """Safetensors models, quantised by MLX or not, on Apple's GPUs; elsewhere on the CPU, which is slow."""

    name = "mlx"
    formats = ("safetensors",)

    def availability(self) -> Availability:
        for module, package in (("mlx_lm", "mlx-lm"), ("mlx", "mlx")):
            if importlib.util.find_spec(module) is None:
                return Availability(reason=f"{package} is not installed; type: pip install 'corectl[mlx]'")
        metal = sys.platform == "darwin" and platform.machine() == "arm64"
        return Availability(
            variant="metal" if metal else "cpu",
            version=importlib.metadata.version("mlx-lm"),
            ignores=IGNORED,
        )

    def estimate(self, model: ModelSpec, shape: CacheShape) -> MemoryEstimate:
        return estimate(model, shape)

    def load(self, model: ModelSpec, placement: Placement, progress: Callable[[float], None]) -> Engine:
        from corectl_mlx.load import load_engine

        return load_engine(model, placement, progress)
