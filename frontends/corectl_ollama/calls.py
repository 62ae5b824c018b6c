"""Tool calls as the native API shows them."""

from __future__ import annotations

import msgspec

from corectl.server.whole import ToolCall


class WireFunction(msgspec.Struct):
    """`arguments` is a JSON object as the model wrote it: its numbers and escapes may be more than we could hold."""

    index: int
    name: str
    arguments: msgspec.Raw


class WireToolCall(msgspec.Struct):
    id: str
    function: WireFunction

    @classmethod
    def of(cls, call: ToolCall) -> WireToolCall:
        return cls(call.id, WireFunction(call.index, call.name, msgspec.Raw(call.arguments.encode())))
