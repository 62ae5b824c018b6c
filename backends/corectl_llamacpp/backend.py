"""The descriptor: what can be said about llama.cpp, and about a GGUF file, without loading either."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

from corectl.model.gguf import header_of
from corectl.runner.engine import (
    Availability,
    CacheShape,
    Engine,
    LayerMemory,
    MemoryEstimate,
    ModelSpec,
    Placement,
)

VARIANTS = ("cuda", "hip", "metal", "vulkan", "sycl")
CACHE_BYTES = 2
"""Bytes of one value in the key-value cache (f16)."""


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
        header = header_of(model.weights)
        cell = cache_bytes_per_token(header.metadata)
        return MemoryEstimate(
            layers=(LayerMemory(weights=header.file_size, cell=cell),), host=projector_bytes(model)
        )

    def load(self, model: ModelSpec, placement: Placement, progress: Callable[[float], None]) -> Engine:
        from corectl_llamacpp.load import load_engine

        return load_engine(model, placement, progress)


def projector_bytes(model: ModelSpec) -> int:
    """Bytes of the files that let a model see."""
    return sum(path.stat().st_size for path in model.projectors)


def cache_bytes_per_token(metadata: dict[str, Any]) -> int:
    """Bytes that one token takes in the key-value cache of all layers, from a GGUF header; 0 for encoders."""
    arch = metadata.get("general.architecture", "")

    def number(key: str, default: int = 0) -> int:
        value = metadata.get(f"{arch}.{key}")
        return int(value) if isinstance(value, int | float) else default

    if metadata.get(f"{arch}.attention.causal") is False:
        return 0
    heads = number("attention.head_count")
    kv_heads = number("attention.head_count_kv", heads)
    head_size = number("embedding_length") // heads if heads else 0
    per_layer = kv_heads * (
        number("attention.key_length", head_size) + number("attention.value_length", head_size)
    )
    return number("block_count") * per_layer * CACHE_BYTES
