"""Conversations that /v1/responses can go on with: in memory, bounded, the oldest are forgotten."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import msgspec

from corectl.messages import Message

MAX_RESPONSES = 1024
MAX_SIZE = 64 * 2**20
"""Bytes of all that is kept."""

NOTHING = b"[]"
"""A conversation without messages, encoded."""

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(tuple[Message, ...]).decode


def encoded(messages: Sequence[Message]) -> bytes:
    """A conversation as it is kept."""
    return _encode(messages)


def decoded(conversation: bytes) -> tuple[Message, ...]:
    return _decode(conversation)


def joined(*conversations: bytes) -> bytes:
    """Encoded conversations as one, in the time that it takes to copy them."""
    parts = [conversation[1:-1] for conversation in conversations if conversation != NOTHING]
    return b"[%s]" % b",".join(parts)


class Conversations:
    """Messages by the id of the response that they led to, and that is the last of them.

    They are kept encoded: a small text may become many objects, whose size nobody knows.
    """

    def __init__(self, *, most: int = MAX_RESPONSES, size: int = MAX_SIZE) -> None:
        self._most = most
        self._size = self._free = size
        self._kept: OrderedDict[str, bytes] = OrderedDict()

    def find(self, id: str) -> bytes | None:
        found = self._kept.get(id)
        if found is not None:
            self._kept.move_to_end(id)
        return found

    def keep(self, id: str, conversation: bytes) -> None:
        """Keeps a conversation, at the cost of those that were not used for longest.

        One that is larger than all that may be kept is not: others are not forgotten for it.
        """
        if len(conversation) > self._size:
            return
        self._kept[id] = conversation
        self._free -= len(conversation)
        while len(self._kept) > self._most or self._free < 0:
            _, forgotten = self._kept.popitem(last=False)
            self._free += len(forgotten)
