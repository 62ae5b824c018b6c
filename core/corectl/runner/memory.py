"""What memory a model takes: as a backend estimates it, and as it was measured."""

from __future__ import annotations

import msgspec


class CacheShape(msgspec.Struct, frozen=True, kw_only=True):
    """What else than the number of cells decides how much memory a model takes.

    `num_batch` is the most tokens of one step, `max_sequences` how many run at once, `cache_type` the type of values in
    the key-value memory (`f16`, `q8_0`, `q4_0`), `flash_attention` None where the engine decides.
    """

    num_batch: int
    max_sequences: int
    cache_type: str = "f16"
    flash_attention: bool | None = None


class LayerMemory(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes of one layer: its weights, its key-value memory for each cell, and its state for each sequence.

    A layer with a sliding window has `most_cells` of them at most (0: as many as the pool).
    """

    weights: int
    cell: float = 0.0
    sequence: int = 0
    most_cells: int = 0


class MemoryEstimate(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes that a model will take, as `corectl.scheduler.fit` adds them up for a number of cells.

    `layers` are those that can lie on accelerators, in their order; `head` the weights that follow the last of them;
    `host` what stays in the machine's memory wherever the layers are; `tied` bytes are the same in both, and doubled
    only where the head is on an accelerator. Cells come in multiples of `cell_step`.

    Intermediate values take `compute` on each device that computes, and for each cell `compute_cell`, and for each of
    the cells that windows have (`window_cells` at most) `window_cell`; but no less than `least_compute`. Besides that,
    `host_compute` is in the machine's memory in any case. What encodes images takes `vision` of weights and
    `vision_compute`, on the first accelerator that has layers, or else on the host.
    """

    layers: tuple[LayerMemory, ...] = ()
    head: int = 0
    host: int = 0
    tied: int = 0
    cell_step: int = 1
    compute: int = 0
    compute_cell: float = 0.0
    window_cell: float = 0.0
    window_cells: int = 0
    least_compute: int = 0
    host_compute: int = 0
    vision: int = 0
    vision_compute: int = 0


class MemoryUse(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes on one device, by its id: estimated before a load, or measured after it."""

    device: str
    weights: int = 0
    cache: int = 0
    compute: int = 0

    @property
    def total(self) -> int:
        return self.weights + self.cache + self.compute
