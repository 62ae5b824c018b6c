"""States of sequences in the machine's memory: what was computed once, for those who begin with the same tokens."""

from __future__ import annotations

from collections import OrderedDict

import msgspec

from corectl.runner.prefix import common


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
        """Counts a state that somebody else keeps until `take_back`; `make_room` has made room for it."""
        self._aside += size

    def take_back(self, size: int) -> None:
        self._aside -= size

    def fits(self, size: int) -> bool:
        """Whether a state of so many bytes fits beside all others."""
        return 0 < size <= self.limit - self.used

    def make_room(self, size: int) -> None:
        """Drops states until one of so many bytes, at most `room`, fits."""
        while self._found and self.used + size > self.limit:
            _, oldest = self._found.popitem(last=False)
            self._stored -= len(oldest.state)

    def add(self, salt: str, tokens: list[int], state: bytearray) -> None:
        """Keeps a state for others; `make_room` has made room for it."""
        snapshot = Snapshot(salt, tokens, state)
        self._found[id(snapshot)] = snapshot
        self._stored += len(state)

    def drop_within(self, salt: str, tokens: list[int]) -> None:
        """Forgets the states of what `tokens` begin with, where a state of all of them can be cut instead."""
        for key, snapshot in list(self._found.items()):
            if snapshot.salt == salt and snapshot.tokens == tokens[: len(snapshot.tokens)]:
                del self._found[key]
                self._stored -= len(snapshot.state)

    def longest(self, salt: str, tokens: list[int], limit: int) -> tuple[Snapshot | None, int]:
        """The state that has most of the beginning of the first `limit` of `tokens`, and how many of them it has.

        Of several the smallest, and none of which more than three quarters would be copied in vain.
        """
        best: tuple[Snapshot | None, int] = (None, 0)
        for snapshot in self._found.values():
            length = common(snapshot.tokens, tokens, 0, limit) if snapshot.salt == salt else 0
            size = len(snapshot.tokens)
            smaller = best[0] is not None and length == best[1] and size < len(best[0].tokens)
            if 4 * length >= size and (length > best[1] or smaller):
                best = (snapshot, length)
        return best

    def touch(self, snapshot: Snapshot) -> None:
        """It has been used."""
        if id(snapshot) in self._found:
            self._found.move_to_end(id(snapshot))

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
