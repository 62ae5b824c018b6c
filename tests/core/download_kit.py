"""What the tests of a blob on its way have in common: its data, faults of its origin, and looks at what came of it."""

from __future__ import annotations

import threading
from collections.abc import Callable

from corectl.model.manifest import Layer
from tests.core.transfer_kit import Asked, Puller, Reply, random_bytes

DATA = random_bytes(500_000)
"""Four parts."""


def once(fault: Callable[[Reply], bool], layer: Layer, *, times: int = 1) -> Callable[[Reply], bool]:
    """A fault in the first requests for a blob only."""
    left = [times]
    lock = threading.Lock()

    def maybe(reply: Reply) -> bool:
        with lock:
            if not reply.asked.path.endswith(layer.digest) or not left[0]:
                return False
            left[0] -= 1
        return fault(reply)

    return maybe


def half(reply: Reply) -> bool:
    """Half of what was asked for, and then nothing more."""
    first, last = reply.asked.range or (0, len(DATA) - 1)
    status = 206 if reply.asked.range else 200
    body = DATA[first : last + 1]
    headers = {"content-length": str(len(body)), "content-range": f"bytes {first}-{last}/{len(DATA)}"}
    reply.head(status, headers)
    reply.wfile.write(body[: len(body) // 2])
    reply.drop()
    return True


def check(puller: Puller, layer: Layer) -> None:
    """The pull succeeds, says nothing twice, and leaves nothing about."""
    steps = [step.completed for step in puller.pull() if step.digest == layer.digest]
    assert steps == sorted(steps) and steps[-1] == layer.size
    assert puller.path(layer).read_bytes() == DATA
    assert puller.leftovers() == []


def ranges(asked: list[Asked]) -> list[tuple[int, int]]:
    return sorted(item.range for item in asked if item.range)
