"""Replies that are not streamed, and what comes whole even in streams: a completion's pieces put together."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from corectl.messages import Delta, Finish, ToolCallDelta
from corectl.server.streaming import OpenCompletion

_ONE_LINE = str.maketrans("\n\r", "  ")


class ToolCall(msgspec.Struct, frozen=True):
    """A whole call. `arguments` is a JSON object as the model wrote it, on one line: no object of ours might hold it,
    for its numbers and escapes may be more than Python's."""

    index: int
    id: str
    name: str
    arguments: str


def one_line(arguments: str) -> str:
    """JSON, or a piece of it, on one line, as lines of a stream are. Within JSON strings no line can end."""
    return arguments.translate(_ONE_LINE)


class CallCollector:
    """Puts one reply's calls together. One that is never done is no call: its text comes as content."""

    def __init__(self) -> None:
        self._open: dict[int, list[ToolCallDelta]] = {}

    def take(self, pieces: Iterable[ToolCallDelta]) -> list[ToolCall]:
        """The calls that are complete with these pieces."""
        complete = []
        for piece in pieces:
            self._open.setdefault(piece.index, []).append(piece)
            if piece.done:
                complete.append(_whole(self._open.pop(piece.index)))
        return complete


def _whole(pieces: list[ToolCallDelta]) -> ToolCall:
    return ToolCall(
        pieces[0].index,
        next((piece.id for piece in pieces if piece.id), ""),
        next((piece.name for piece in pieces if piece.name), ""),
        one_line("".join(piece.arguments for piece in pieces)),
    )


async def collected(opened: OpenCompletion) -> tuple[Delta, Finish]:
    """All that a completion gives, as one piece, and its end. Raises what the stream raises."""
    deltas: list[Delta] = []
    while True:
        for event in await opened.take():
            if isinstance(event, Finish):
                return joined(deltas), event
            assert isinstance(event, Delta)
            deltas.append(event)


def joined(deltas: Iterable[Delta]) -> Delta:
    """All deltas of a reply as one."""
    found = list(deltas)
    return Delta(
        "".join(item.text for item in found),
        tuple(entry for item in found for entry in item.logprobs),
        "".join(item.thinking for item in found),
        tuple(call for item in found for call in item.tool_calls),
    )
