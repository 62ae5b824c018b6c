"""How a model's layers are dealt out to accelerators. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from math import floor

STEPS = 20
"""Halvings when a share is looked for; the last is a millionth of the memory."""


def deal(costs: Sequence[int], rooms: Sequence[int]) -> tuple[int, ...] | None:
    """How many of the layers each device takes, in order; None if they do not fit.

    `costs` are the bytes of each layer, `rooms` those of each device. Devices are filled to the same part.
    """
    if (full := fill(costs, rooms)) is None:
        return None
    low, high = 0.0, 1.0
    for _ in range(STEPS):
        middle = (low + high) / 2
        found = fill(costs, [floor(room * middle) for room in rooms])
        if found is None:
            low = middle
        else:
            high, full = middle, found
    return full


def fill(costs: Sequence[int], rooms: Sequence[int]) -> tuple[int, ...] | None:
    """As `deal`, but each device is filled before the next one gets anything."""
    counts = []
    start = 0
    for room in rooms:
        end = start
        while end < len(costs) and costs[end] <= room:
            room -= costs[end]
            end += 1
        counts.append(end - start)
        start = end
    return tuple(counts) if start == len(costs) else None


def most_layers(costs: Sequence[int], rooms: Sequence[int], *, beside_first: int = 0) -> tuple[int, ...]:
    """How many layers each device takes if as many of the last ones as possible are to find a place.

    Whichever is the first of them brings so many bytes along.
    """
    for first in range(len(costs) + 1):
        part = [cost + (beside_first if at == first else 0) for at, cost in enumerate(costs)][first:]
        if (found := fill(part, rooms)) is not None:
            return found
    raise AssertionError("no layers always fit")


def shares(costs: Sequence[int], rooms: Sequence[int]) -> tuple[int, ...]:
    """How many layers each device takes if all must be taken, fit or not: each in proportion to its room."""
    rooms = [max(0, room) for room in rooms]
    total, whole = sum(costs), sum(rooms)
    counts = []
    ends = list(accumulate(costs, initial=0))
    start, bound = 0, 0.0
    for at, room in enumerate(rooms):
        bound += total * (room / whole if whole else 1 / len(rooms))
        end = len(costs) if at == len(rooms) - 1 else start
        while end < len(costs) and (ends[end] + ends[end + 1]) / 2 <= bound:
            end += 1
        counts.append(end - start)
        start = end
    return tuple(counts)
