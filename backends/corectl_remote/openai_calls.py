"""Tool calls of OpenAI's protocol, which come in fragments."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from corectl.messages import Notice, ToolCallDelta
from corectl.output.calls import call_id
from corectl_remote.failure import MAX_TEXT


class WireFragmentFunction(msgspec.Struct):
    """Arguments are a piece of a text; some servers send an object as a whole."""

    name: str | None = None
    arguments: str | dict[str, Any] | None = None


class WireFragment(msgspec.Struct):
    index: int | None = None
    id: str | None = None
    function: WireFragmentFunction | None = None


class _Call(msgspec.Struct):
    """A call so far. `index` is our own count."""

    index: int
    id: str
    name: str = ""
    arguments: list[str] = []


_object = msgspec.json.Decoder(dict[str, Any])


class CallJoiner:
    """Takes fragments on as pieces, and says in the end which calls are calls.

    One whose arguments are no JSON object, or that has no name, is left as text, with a notice in `notices`.
    """

    def __init__(self, notices: list[Notice]) -> None:
        self._notices = notices
        self._calls: list[_Call] = []
        self._by_index: dict[int | None, _Call] = {}

    def take(self, fragments: Sequence[WireFragment]) -> list[ToolCallDelta]:
        return [piece for fragment in fragments if (piece := self._piece(fragment)) is not None]

    def end(self) -> tuple[list[ToolCallDelta], str]:
        """The last piece of each call that is one, and the text of the others."""
        pieces, texts = [], []
        for call in self._calls:
            arguments = "".join(call.arguments)
            why = _fault(call.name, arguments)
            if not why:
                pieces.append(ToolCallDelta(call.index, "", "", "" if arguments else "{}", True))
                continue
            texts.append(f"{call.name}({arguments})")
            message = f"a tool call could not be read and is left in the content: {why}"
            self._notices.append(Notice(code="tool_call_not_parsed", message=message[:MAX_TEXT]))
        return pieces, "\n".join(texts)

    def _piece(self, fragment: WireFragment) -> ToolCallDelta | None:
        function = fragment.function or WireFragmentFunction()
        call = self._call_of(fragment, function)
        name = function.name if function.name and not call.name else ""
        text = function.arguments or ""
        if isinstance(text, dict):
            text = msgspec.json.encode(text).decode()
        begins = not (call.name or call.arguments)
        call.name = call.name or name or ""
        if text:
            call.arguments.append(text)
        return ToolCallDelta(call.index, call.id if begins else "", name or "", text)

    def _call_of(self, fragment: WireFragment, function: WireFragmentFunction) -> _Call:
        """The call that a fragment belongs to: the last of its index, unless it begins another one."""
        last = self._by_index.get(fragment.index)
        if last is not None and not (function.name and _is_another(fragment, last)):
            return last
        call = _Call(len(self._calls), fragment.id or call_id())
        self._calls.append(call)
        self._by_index[fragment.index] = call
        return call


def _is_another(fragment: WireFragment, call: _Call) -> bool:
    """Whether a fragment with a name begins a new call: some servers count all of them as 0, or do not count."""
    if fragment.id:
        return fragment.id != call.id
    return fragment.index is None and bool(call.name)


def _fault(name: str, arguments: str) -> str:
    """Why something is no call; empty if it is one."""
    if not name:
        return "it has no name"
    try:
        _object.decode(arguments or "{}")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        return f"its arguments are no object ({exc})"
    return ""
