"""The descriptor: what can be said about MLX, and about a model's files, without loading either."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from corectl.messages import Notice
from corectl.model.files import ModelFiles
from corectl.runner.engine import (
    Availability,
    CacheShape,
    Engine,
    MemoryEstimate,
    ModelSpec,
    Placement,
)
from corectl_mlx.architectures import why_not
from corectl_mlx.memory import estimate


class Quantization(msgspec.Struct, frozen=True, kw_only=True):
    """A way to store weights, as MLX calls it. Where `bits` is None, the mode says how many."""

    mode: str = "affine"
    bits: int | None = None


IGNORED = ("num_gpu", "main_gpu", "use_mmap", "num_thread", "flash_attention", "kv_cache_type", "numa")
"""MLX has one device, decides about its threads, reads whole files, and keeps keys and values as it computes them."""


TARGETS = {
    "int4": Quantization(bits=4),
    "int8": Quantization(bits=8),
    "mxfp4": Quantization(mode="mxfp4"),
    "mxfp8": Quantization(mode="mxfp8"),
    "nvfp4": Quantization(mode="nvfp4"),
}
"""By what `corectl create --quantize` calls them."""


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
            # A model that is not to be on the GPU is computed by the CPU.
            ignores=tuple(name for name in IGNORED if not (metal and name == "num_gpu")),
            adapters=True,
        )

    @property
    def quantizations(self) -> tuple[str, ...]:
        return tuple(TARGETS)

    def quantize(
        self, files: ModelFiles, target: str, folder: Path, done: Callable[[int, int], None]
    ) -> Sequence[Notice]:
        """See `corectl.runner.engine.Quantizer`. MLX does not say how far it is."""
        from corectl_mlx.quantize import write_quantized

        write_quantized(files, TARGETS[target], folder)
        return ()

    def why_not(self, format: str, files: ModelFiles) -> str:
        """See `corectl.runner.engine.ArchitectureChecker`."""
        return why_not(files)

    def estimate(self, model: ModelSpec, shape: CacheShape) -> MemoryEstimate:
        return estimate(model, shape)

    def load(self, model: ModelSpec, placement: Placement, progress: Callable[[float], None]) -> Engine:
        from corectl_mlx.load import load_engine

        return load_engine(model, placement, progress)
