"""How much memory a model takes, device by device: a backend's estimate, added up for one way to place it. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from corectl.runner.engine import CacheShape, LayerMemory, MemoryEstimate, MemoryUse

HOST = "cpu"
"""The id under which memory of the machine itself is counted."""


def memory_use(
    estimate: MemoryEstimate,
    shape: CacheShape,
    *,
    cells: int,
    accelerators: Sequence[str] = (),
    layers: Sequence[int] = (),
) -> tuple[MemoryUse, ...]:
    """Bytes on the host, and then on each of `accelerators` (their ids), of which each has so many `layers`.

    The head counts as the last layer. The last layers are the offloaded ones, in the order of the devices.
    """
    stack = [*estimate.layers, LayerMemory(weights=estimate.head)]
    compute = estimate.compute + int(estimate.compute_cell * cells)
    start = len(stack) - sum(layers)
    found = [_on(HOST, stack[:start], shape, cells, compute if start else 0, extra=estimate.host)]
    for device, count in zip(accelerators, layers, strict=True):
        part = stack[start : start + count]
        start += count
        found.append(_on(device, part, shape, cells, compute if part else 0))
    return tuple(found)


def _on(
    device: str,
    layers: Sequence[LayerMemory],
    shape: CacheShape,
    cells: int,
    compute: int,
    *,
    extra: int = 0,
) -> MemoryUse:
    return MemoryUse(
        device=device,
        weights=extra + sum(layer.weights for layer in layers),
        cache=sum(_cache(layer, shape, cells) for layer in layers),
        compute=compute,
    )


def _cache(layer: LayerMemory, shape: CacheShape, cells: int) -> int:
    if layer.window:
        cells = min(cells, layer.window * shape.max_sequences + shape.num_batch)
    return int(layer.cell * cells) + layer.sequence * shape.max_sequences
