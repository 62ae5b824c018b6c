"""Counts over a runner's life, kept in the server from what its frames say."""

from __future__ import annotations

from bisect import bisect_left

import msgspec

from corectl.runner.state import LoopState

BATCH_SIZES = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0)
GAPS = (
    0.002,
    0.005,
    0.01,
    0.015,
    0.02,
    0.03,
    0.04,
    0.05,
    0.075,
    0.1,
    0.15,
    0.2,
    0.3,
    0.5,
    1.0,
    2.0,
    5.0,
    20.0,
)


class Histogram(msgspec.Struct):
    """How often a value was at most each of the bounds, and above all of them; and the sum of all values."""

    bounds: tuple[float, ...]
    counts: list[int]
    total: float = 0.0

    @classmethod
    def of(cls, bounds: tuple[float, ...]) -> Histogram:
        return cls(bounds, [0] * (len(bounds) + 1))

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def add(self, other: Histogram) -> None:
        """Takes in what another with the same bounds has counted."""
        self.counts = [ours + theirs for ours, theirs in zip(self.counts, other.counts, strict=True)]
        self.total += other.total

    def copy(self) -> Histogram:
        return Histogram(self.bounds, list(self.counts), self.total)


class StepStats(msgspec.Struct):
    """Engine steps, sequences and tokens in all of them, most sequences in one; the last word of the batch loop.

    `sizes` are the sequences of each step; `gaps` the seconds between two steps that both gave output, while a
    sequence went on from one to the other: once for each step, however many tokens it gave.
    """

    steps: int = 0
    sequences: int = 0
    tokens: int = 0
    largest: int = 0
    sizes: Histogram = msgspec.field(default_factory=lambda: Histogram.of(BATCH_SIZES))
    gaps: Histogram = msgspec.field(default_factory=lambda: Histogram.of(GAPS))
    state: LoopState = LoopState()
