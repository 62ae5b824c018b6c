"""Conversations that /v1/responses can go on with: in memory, bounded, the oldest are forgotten."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from corectl.messages import Message

MAX_RESPONSES = 1024
MAX_SIZE = 64 * 2**20
"""Characters of all that is kept."""


class Conversations:
    """Messages by the id of the response that they led to, and that is the last of them."""

    def __init__(self, *, most: int = MAX_RESPONSES, size: int = MAX_SIZE) -> None:
        self._most = most
        self._free = size
        self._kept: OrderedDict[str, tuple[Message, ...]] = OrderedDict()

    def find(self, id: str) -> tuple[Message, ...] | None:
        found = self._kept.get(id)
        if found is not None:
            self._kept.move_to_end(id)
        return found

    def keep(self, id: str, messages: Sequence[Message]) -> None:
        """Keeps a conversation, at the cost of those that were not used for longest."""
        self._kept[id] = tuple(messages)
        self._free -= _size(messages)
        while self._kept and (len(self._kept) > self._most or self._free < 0):
            _, forgotten = self._kept.popitem(last=False)
            self._free += _size(forgotten)


def _size(messages: Sequence[Message]) -> int:
    return sum(
        256
        + len(message.content)
        + len(message.thinking)
        + sum(map(len, message.images))
        + sum(len(str(call)) for call in message.tool_calls)
        for message in messages
    )
