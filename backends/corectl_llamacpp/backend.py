"""The descriptor: what can be said about llama.cpp, and about a GGUF file, without loading either."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
from collections.abc import Callable
from pathlib import Path

from corectl.model.gguf import header_of
from corectl.runner.engine import (
    Availability,
    CacheShape,
    Engine,
    MemoryEstimate,
    ModelSpec,
    Placement,
)
from corectl_llamacpp.devices import make_visible
from corectl_llamacpp.memory import estimate

VARIANTS = ("cuda", "hip", "metal", "vulkan", "sycl")


class LlamaCppBackend:
    """llama.cpp as a backend: GGUF models on CPU, CUDA, ROCm, Metal or Vulkan, as the installed wheel was built."""

    name = "llamacpp"
    formats = ("gguf",)

    def availability(self) -> Availability:
        spec = importlib.util.find_spec("llama_cpp")
        if spec is None or not spec.submodule_search_locations:
            return Availability(
                reason="llama-cpp-python is not installed; type: pip install 'corectl[llamacpp]'"
            )
        libraries = [path.name for path in Path(spec.submodule_search_locations[0], "lib").glob("*ggml-*")]
        variant = next((name for name in VARIANTS if any(f"ggml-{name}" in lib for lib in libraries)), "cpu")
        return Availability(variant=variant, version=importlib.metadata.version("llama-cpp-python"))

    def estimate(self, model: ModelSpec, shape: CacheShape) -> MemoryEstimate:
        return estimate(
            header_of(model.weights),
            shape,
            embedding=model.embedding,
            projectors=[header_of(path) for path in model.projectors],
        )

    def load(self, model: ModelSpec, placement: Placement, progress: Callable[[float], None]) -> Engine:
        make_visible(self.availability().variant, placement, os.environ)
        from corectl_llamacpp.load import load_engine

        return load_engine(model, placement, progress)
