"""What /v1/responses has answered, to be gone on with: in memory, bounded, the oldest is forgotten."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from contextlib import suppress

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


class _Kept(msgspec.Struct, frozen=True):
    """A conversation, and the ids of the items of its response; `size` is in bytes, with those items."""

    conversation: bytes
    items: tuple[str, ...]
    size: int


class Conversations:
    """Messages by the id of the response that they led to, and that is the last of them; its items by their own ids.

    They are kept encoded: a small text may become many objects, whose size nobody knows.
    """

    def __init__(self, *, most: int = MAX_RESPONSES, size: int = MAX_SIZE) -> None:
        self._most = most
        self._size = self._free = size
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        # Each with the id of its response.
        self._items: dict[str, tuple[str, bytes]] = {}

    def find(self, id: str) -> bytes | None:
        found = self._kept.get(id)
        if found is None:
            return None
        self._kept.move_to_end(id)
        return found.conversation

    def find_item(self, id: str) -> bytes | None:
        """An item, encoded; None if it is not here any more. Its response counts as used. For any thread."""
        found = self._items.get(id)
        if found is None:
            return None
        # Another thread may have forgotten it by now.
        with suppress(KeyError):
            self._kept.move_to_end(found[0])
        return found[1]

    def keep(self, id: str, conversation: bytes, items: Mapping[str, bytes]) -> None:
        """Keeps a conversation and the items of its response, at the cost of those that were not used for longest.

        What is larger than all that may be kept is not: others are not forgotten for it.
        """
        size = len(conversation) + sum(len(item) for item in items.values())
        if size > self._size:
            return
        self._kept[id] = _Kept(conversation, tuple(items), size)
        self._items.update((item, (id, data)) for item, data in items.items())
        self._free -= size
        while len(self._kept) > self._most or self._free < 0:
            _, forgotten = self._kept.popitem(last=False)
            self._free += forgotten.size
            for item in forgotten.items:
                del self._items[item]
