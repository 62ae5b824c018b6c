"""Conversations that /v1/responses can go on with: in memory, bounded, the oldest are forgotten."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import msgspec

from corectl.messages import Message

MAX_RESPONSES = 1024
MAX_SIZE = 64 * 2**20
"""Bytes of all that is kept."""

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(tuple[Message, ...]).decode


class Conversations:
    """Messages by the id of the response that they led to, and that is the last of them.

    They are kept encoded: a small text may become many objects, whose size nobody knows.
    """

    def __init__(self, *, most: int = MAX_RESPONSES, size: int = MAX_SIZE) -> None:
        self._most = most
        self._size = self._free = size
        self._kept: OrderedDict[str, bytes] = OrderedDict()

    def find(self, id: str) -> tuple[Message, ...] | None:
        found = self._kept.get(id)
        if found is None:
            return None
        self._kept.move_to_end(id)
        return _decode(found)

    def keep(self, id: str, messages: Sequence[Message]) -> None:
        """Keeps a conversation, at the cost of those that were not used for longest.

        One that is larger than all that may be kept is not: others are not forgotten for it.
        """
        data = _encode(messages)
        if len(data) > self._size:
            return
        self._kept[id] = data
        self._free -= len(data)
        while len(self._kept) > self._most or self._free < 0:
            _, forgotten = self._kept.popitem(last=False)
            self._free += len(forgotten)
