"""States of sequences in the machine's memory: what was computed once, for those who begin with the same tokens."""

from __future__ import annotations

from collections import OrderedDict

import msgspec


class Snapshot(msgspec.Struct, frozen=True):
    """An engine's state after `tokens`."""

    salt: str
    tokens: list[int]
    state: bytearray


class Snapshots:
    """At most `limit` bytes of states; the least recently used make room. `used` are the bytes that are taken."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._found: OrderedDict[int, Snapshot] = OrderedDict()
        self._aside = 0
        self._stored = 0

    @property
    def used(self) -> int:
        return self._stored + self._aside

    @property
    def room(self) -> int:
        """The bytes that a new state may have, if others make room for it."""
        return self.limit - self._aside

    def put_aside(self, size: int) -> None:
        """Makes room for a state that somebody else keeps until `take_back`; `size` is at most `room`."""
        self._aside += size
        self._shrink()

    def take_back(self, size: int) -> None:
        self._aside -= size

    def add(self, salt: str, tokens: list[int], state: bytearray) -> None:
        """Keeps a state of at most `room` bytes for others."""
        snapshot = Snapshot(salt, tokens, state)
        self._found[id(snapshot)] = snapshot
        self._stored += len(state)
        self._shrink()

    def find(self, salt: str, tokens: list[int], limit: int) -> Snapshot | None:
        """The longest state whose tokens are the beginning of the first `limit` of `tokens`."""
        best: Snapshot | None = None
        for snapshot in self._found.values():
            length = len(snapshot.tokens)
            longer = length <= limit and length > (len(best.tokens) if best is not None else 0)
            if longer and snapshot.salt == salt and snapshot.tokens == tokens[:length]:
                best = snapshot
        if best is not None:
            self._found.move_to_end(id(best))
        return best

    def _shrink(self) -> None:
        while self._found and self.used > self.limit:
            _, oldest = self._found.popitem(last=False)
            self._stored -= len(oldest.state)
