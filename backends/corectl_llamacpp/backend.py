"""The descriptor: what can be said about llama.cpp, and about a GGUF file, without loading either."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from corectl.messages import Notice
from corectl.model.files import ModelFiles
from corectl.model.gguf import header_of
from corectl.model.split import whole_header
from corectl.runner.engine import (
    Availability,
    CacheShape,
    Engine,
    MemoryEstimate,
    ModelSpec,
    Placement,
)
from corectl_llamacpp.build import installed
from corectl_llamacpp.devices import make_visible
from corectl_llamacpp.kinds import KINDS
from corectl_llamacpp.memory import estimate
from corectl_llamacpp.seen import facts_of

MISSING = "llama-cpp-python is not installed; type: pip install 'corectl[llamacpp]'"


class LlamaCppBackend:
    """llama.cpp as a backend: GGUF models on CPU, CUDA, ROCm, Metal, Vulkan or SYCL, as what is installed was built."""

    name = "llamacpp"
    formats = ("gguf",)

    def availability(self) -> Availability:
        build = installed()
        if build is None:
            return Availability(reason=MISSING)
        if not build.complete:
            return Availability(
                reason=f"llama-cpp-python is there without its libraries; type: {build.command}"
            )
        return Availability(variant=build.variant, version=build.version or "unknown", adapters=True)

    @property
    def quantizations(self) -> tuple[str, ...]:
        return tuple(KINDS)

    def quantize(
        self, files: ModelFiles, target: str, folder: Path, done: Callable[[int, int], None]
    ) -> Sequence[Notice]:
        """See `corectl.runner.engine.Quantizer`."""
        build = installed()
        assert build is not None, "a backend that is not available quantises nothing"
        from corectl_llamacpp.quantize import write_quantized

        return write_quantized(files, target, folder, done, build)

    def details(self) -> dict[str, str]:
        """See `corectl.runner.engine.DetailedBackend`."""
        build = installed()
        return facts_of(build) if build is not None and build.complete else {}

    def estimate(self, model: ModelSpec, shape: CacheShape) -> MemoryEstimate:
        return estimate(
            whole_header(model),
            shape,
            embedding=model.embedding,
            projectors=[header_of(path) for path in model.projectors],
            adapters=[header_of(path) for path in model.adapters],
        )

    def load(self, model: ModelSpec, placement: Placement, progress: Callable[[float], None]) -> Engine:
        build = installed()
        assert build is not None, "a backend that is not available is not loaded"
        make_visible(build.variant, placement, os.environ)
        from corectl_llamacpp.load import load_engine

        return load_engine(model, placement, progress, build)
