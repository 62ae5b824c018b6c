"""The descriptor: what can be said about ctransformers, and about a file, without loading either."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Callable

from corectl.runner.engine import (
    Availability,
    CacheShape,
    Engine,
    MemoryEstimate,
    ModelSpec,
    Placement,
)
from corectl_ctransformers.format import FORMAT
from corectl_ctransformers.header import read_header, weights_of
from corectl_ctransformers.memory import estimate
from corectl_ctransformers.variant import PACKAGE, has_build, library_folder

IGNORED = ("num_gpu", "main_gpu", "flash_attention", "kv_cache_type")
"""The library computes on the CPU here, and has one way to do so."""


class CTransformersBackend:
    """Files from before GGUF, one request at a time, on the CPU.

    It loads some GGUF files too. They are not offered here: llama.cpp loads those and all others, and batches.
    """

    name = "ctransformers"
    formats = (FORMAT,)

    def availability(self) -> Availability:
        folder = library_folder()
        if folder is None:
            return Availability(
                reason="ctransformers is not installed; type: pip install 'corectl[ctransformers]'"
            )
        if not has_build(folder):
            return Availability(
                reason=f"ctransformers has no build for {platform.machine()} processors; "
                "type: pip install ctransformers --no-binary ctransformers"
            )
        return Availability(variant="cpu", version=importlib.metadata.version(PACKAGE), ignores=IGNORED)

    def estimate(self, model: ModelSpec, shape: CacheShape) -> MemoryEstimate:
        return estimate(read_header(weights_of(model.weights, model.named)))

    def load(self, model: ModelSpec, placement: Placement, progress: Callable[[float], None]) -> Engine:
        from corectl_ctransformers.load import load_engine

        return load_engine(model, placement, progress)
