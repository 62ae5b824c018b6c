"""From the events of a completion to those of a stream: a block after the other, each begun, continued and ended."""

from __future__ import annotations

from collections.abc import Collection, Iterable

import msgspec
from msgspec import UNSET, UnsetType

from corectl.errors import CorectlError
from corectl.messages import Delta, Event, Finish, Notice, ToolCallDelta
from corectl.server.context import Clock, ContextFit
from corectl.server.whole import CallCollector
from corectl_anthropic.errors import error_of, request_id
from corectl_anthropic.replies import End, Reply, Signature, Usage, end_of, said_of, usage_of

_encode = msgspec.json.Encoder().encode


class MessageStart(msgspec.Struct, tag="message_start", tag_field="type"):
    message: Reply


class TextStart(msgspec.Struct, tag="text", tag_field="type"):
    text: str = ""


class ThinkingStart(msgspec.Struct, tag="thinking", tag_field="type"):
    thinking: str = ""
    signature: str = ""


class ToolUseStart(msgspec.Struct, tag="tool_use", tag_field="type"):
    id: str
    name: str
    input: dict[str, str] = {}


class BlockStart(msgspec.Struct, tag="content_block_start", tag_field="type"):
    index: int
    content_block: TextStart | ThinkingStart | ToolUseStart


class TextDelta(msgspec.Struct, tag="text_delta", tag_field="type"):
    text: str


class ThinkingDelta(msgspec.Struct, tag="thinking_delta", tag_field="type"):
    thinking: str


class SignatureDelta(msgspec.Struct, tag="signature_delta", tag_field="type"):
    signature: str


class InputDelta(msgspec.Struct, tag="input_json_delta", tag_field="type"):
    partial_json: str


class BlockDelta(msgspec.Struct, tag="content_block_delta", tag_field="type"):
    index: int
    delta: TextDelta | ThinkingDelta | SignatureDelta | InputDelta


class BlockStop(msgspec.Struct, tag="content_block_stop", tag_field="type"):
    index: int


class MessageDelta(msgspec.Struct, kw_only=True, tag="message_delta", tag_field="type"):
    """`context_fit` and `warnings` are additions of ours."""

    delta: End
    usage: Usage
    context_fit: ContextFit | UnsetType = UNSET
    warnings: list[Notice] | UnsetType = UNSET


class MessageStop(msgspec.Struct, tag="message_stop", tag_field="type"):
    pass


class Ping(msgspec.Struct, tag="ping", tag_field="type"):
    """Where nothing else is to be said for a while."""


ServerEvent = MessageStart | BlockStart | BlockDelta | BlockStop | MessageDelta | MessageStop | Ping


class MessageStream:
    """One reply, made in the context of its request.

    `opening` is the message as it begins, `stops` are the request's stop sequences.

    A tool call is written when it is complete: until then it may turn out to be none. Calls of the tools that are
    `eager` are written as they come, at the client's own risk.
    """

    def __init__(
        self,
        opening: Reply,
        clock: Clock,
        *,
        stops: Collection[str],
        eager: Collection[str],
        notices: Iterable[Notice] = (),
    ) -> None:
        self._opening: Reply | None = opening
        self._id = request_id()
        self._clock = clock
        self._stops = stops
        self._eager = eager
        self._notices = notices
        self._calls = CallCollector()
        self._called = False
        # The eager call whose block is open, and all eager ones: what else comes of those is in no other block.
        self._writing: int | None = None
        self._written: set[int] = set()
        self._index = -1
        self._block: TextStart | ThinkingStart | ToolUseStart | None = None
        self._signature = Signature()
        self._text_head = b""

    def lines(self, event: Event) -> bytes:
        """The events that show one of a completion's; none for what shows nothing yet."""
        if type(event) is Delta and not (event.thinking or event.tool_calls) and self._text_head:
            return self._text(event.text)
        shown = [] if self._opening is None else [_line(MessageStart(self._opening))]
        self._opening = None
        if isinstance(event, Finish):
            shown += self._end(event)
        else:
            assert isinstance(event, Delta)
            shown += self._delta(event)
        return b"".join(shown)

    def failed(self, error: CorectlError) -> bytes:
        """The event that ends a stream which cannot go on."""
        # Whatever brings the error is not of this request: its own id is the one that it began with.
        return b"event: error\ndata: " + _encode(error_of(error, self._id)) + b"\n\n"

    def _delta(self, delta: Delta) -> list[bytes]:
        shown = []
        if delta.thinking:
            if not isinstance(self._block, ThinkingStart):
                shown += self._begin(ThinkingStart())
            self._signature.add(delta.thinking)
            shown.append(_line(BlockDelta(self._index, ThinkingDelta(delta.thinking))))
        if delta.text:
            if not isinstance(self._block, TextStart):
                shown += self._begin(TextStart())
            shown.append(self._text(delta.text))
        for piece in delta.tool_calls:
            shown += self._call(piece)
        return shown

    def _text(self, text: str) -> bytes:
        """Nearly all of a stream is this: all but the text is made once a block."""
        return self._text_head + _encode(text) + b"}}\n\n" if text else b""

    def _call(self, piece: ToolCallDelta) -> list[bytes]:
        shown = []
        # One at a time: a block that has ended takes no more, and a server may send all calls' ends together.
        if piece.name in self._eager and self._writing is None:
            shown += self._begin(ToolUseStart(piece.id, piece.name))
            self._writing = piece.index
            self._written.add(piece.index)
        if piece.index in self._written:
            if piece.arguments and self._writing == piece.index:
                shown.append(_line(BlockDelta(self._index, InputDelta(piece.arguments))))
            if piece.done:
                shown += self._close() if self._writing == piece.index else []
                self._called = True
            return shown
        for call in self._calls.take((piece,)):
            shown += self._begin(ToolUseStart(call.id, call.name))
            shown.append(_line(BlockDelta(self._index, InputDelta(call.arguments))))
            shown += self._close()
            self._called = True
        return shown

    def _begin(self, block: TextStart | ThinkingStart | ToolUseStart) -> list[bytes]:
        shown = self._close()
        self._index += 1
        self._block = block
        if isinstance(block, TextStart):
            self._text_head = _line(BlockDelta(self._index, TextDelta(""))).removesuffix(b'""}}\n\n')
        return [*shown, _line(BlockStart(self._index, block))]

    def _close(self) -> list[bytes]:
        """Ends the block that is open, if one is."""
        block, self._block, self._text_head, self._writing = self._block, None, b"", None
        if block is None:
            return []
        signed = []
        if isinstance(block, ThinkingStart):
            signed = [_line(BlockDelta(self._index, SignatureDelta(self._signature.text())))]
            self._signature = Signature()
        return [*signed, _line(BlockStop(self._index))]

    def _end(self, finish: Finish) -> list[bytes]:
        end = end_of(finish, self._called, self._stops)
        said = said_of(finish, self._notices, self._clock)
        return [
            *self._close(),
            _line(MessageDelta(delta=end, usage=usage_of(finish), **said)),
            _line(MessageStop()),
        ]


def _line(event: ServerEvent) -> bytes:
    name = event.__struct_config__.tag
    assert isinstance(name, str)
    return b"event: " + name.encode() + b"\ndata: " + _encode(event) + b"\n\n"


PING = _line(Ping())
