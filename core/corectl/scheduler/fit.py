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
    cells = -(-cells // estimate.cell_step) * estimate.cell_step
    compute = _compute(estimate, cells)
    start = len(stack) - sum(layers)
    parts = [(HOST, stack[:start])]
    for device, count in zip(accelerators, layers, strict=True):
        parts.append((device, stack[start : start + count]))
        start += count
    sees = next((index for index, count in enumerate(layers, 1) if count), 0)
    found = []
    for index, (device, part) in enumerate(parts):
        weights = sum(layer.weights for layer in part) + (estimate.vision if index == sees else 0)
        scratch = (compute if part else 0) + (estimate.vision_compute if index == sees else 0)
        if not index:
            weights += estimate.host - (0 if sees else estimate.tied)
            scratch += estimate.host_compute
            # What an accelerator is given to compute with goes through the host's memory.
            scratch += _by_cell(estimate, cells) if sees else 0
        cache = sum(_cache(layer, shape, cells) for layer in part)
        found.append(MemoryUse(device=device, weights=weights, cache=cache, compute=scratch))
    return tuple(found)


def _cache(layer: LayerMemory, shape: CacheShape, cells: int) -> int:
    if layer.most_cells:
        cells = min(cells, layer.most_cells)
    return int(layer.cell * cells) + layer.sequence * shape.max_sequences


def _compute(estimate: MemoryEstimate, cells: int) -> int:
    return max(estimate.least_compute, estimate.compute + _by_cell(estimate, cells))


def _by_cell(estimate: MemoryEstimate, cells: int) -> int:
    windows = estimate.window_cell * min(cells, estimate.window_cells)
    return int(estimate.compute_cell * cells + windows)
