"""Somebody else's plugin: a backend whose models know which byte tends to follow which."""

from __future__ import annotations

from collections.abc import Callable

from corectl import hookimpl
from corectl.runner.engine import (
    Availability,
    Backend,
    CacheShape,
    Engine,
    LayerMemory,
    MemoryEstimate,
    ModelSpec,
    Placement,
)

corectl_api = 1


class BigramBackend:
    """See `corectl.runner.engine.Backend`."""

    name = "bigram"
    formats = ("bigram",)

    def availability(self) -> Availability:
        return Availability(variant="cpu", version="1")

    def estimate(self, model: ModelSpec, shape: CacheShape) -> MemoryEstimate:
        return MemoryEstimate(layers=(LayerMemory(weights=model.weights.stat().st_size),))

    def load(self, model: ModelSpec, placement: Placement, progress: Callable[[float], None]) -> Engine:
        from corectl.runner.logits import LogitsEngine

        from .engine import BigramModel

        loaded = BigramModel(model.weights, placement)
        progress(1.0)
        return LogitsEngine(loaded)


@hookimpl
def corectl_backends() -> list[Backend]:
    return [BigramBackend()]
