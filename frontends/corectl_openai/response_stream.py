"""The events of a streamed response, in their order. What is the same in all pieces of an item is encoded once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from corectl.errors import CorectlError
from corectl.messages import Delta, Event, Finish
from corectl.server.whole import CallCollector, ToolCall
from corectl_openai.replies import encode
from corectl_openai.response import (
    ResponseHead,
    call_item,
    is_cut,
    item_id,
    message_item,
    reasoning_item,
)
from corectl_openai.response_objects import EVENTS, Item, OutputText, ReasoningItem, SummaryText

Part = OutputText | SummaryText

_TEXT, _THOUGHT = "response.output_text.delta", "response.reasoning_summary_text.delta"


class ResponseStream:
    """One response. At most one item is open; each call comes whole. `done` is told the items of a good end."""

    def __init__(self, head: ResponseHead, done: Callable[[list[Item]], None]) -> None:
        self._head = head
        self._done = done
        self._calls = CallCollector()
        self._items: list[Item] = []
        self._number = 0
        self._open = ""
        self._id = ""
        self._pieces: list[str] = []
        self._piece = b""

    def encode(self, event: Event) -> bytes:
        """The bytes of an event; in front of the first are those that say that a response has begun."""
        if type(event) is Delta:
            calls = self._calls.take(event.tool_calls)
            parts = [self._begin()]
            if event.thinking:
                parts.append(self._push(_THOUGHT, event.thinking))
            if event.text:
                parts.append(self._push(_TEXT, event.text))
            parts += [self._close() + self._call(call) for call in calls]
            return b"".join(parts)
        assert isinstance(event, Finish)
        begun = self._begin()
        empty = (
            b""
            if self._open or any(not isinstance(item, ReasoningItem) for item in self._items)
            else self._start(_TEXT)
        )
        closed = empty + self._close("incomplete" if is_cut(event) else "completed")
        response = self._head.ended(self._items, event)
        self._done(self._items)
        return begun + closed + self._event(f"response.{response.status}", response=response)

    def failed(self, error: CorectlError) -> bytes:
        return self._begin() + self._event("response.failed", response=self._head.failed(self._items, error))

    def _begin(self) -> bytes:
        if self._number:
            return b""
        response = self._head.begun()
        return self._event("response.created", response=response) + self._event(
            "response.in_progress", response=response
        )

    def _event(self, kind: str, **words: Any) -> bytes:
        data = encode(EVENTS[kind](sequence_number=self._number, **words))
        self._number += 1
        return b"event: %s\ndata: %s\n\n" % (kind.encode(), data)

    def _push(self, kind: str, text: str) -> bytes:
        before = b"" if self._open == kind else self._close() + self._start(kind)
        self._pieces.append(text)
        piece = self._piece + encode(text) + b',"sequence_number":%d}\n\n' % self._number
        self._number += 1
        return before + piece

    def _where(self) -> dict[str, Any]:
        index = {"content_index": 0} if self._open == _TEXT else {"summary_index": 0}
        return {"item_id": self._id, "output_index": len(self._items), **index}

    def _start(self, kind: str) -> bytes:
        """Opens an item, and the part of it that pieces are for."""
        message = kind == _TEXT
        self._open, self._id, self._pieces = kind, item_id("msg" if message else "rs"), []
        probabilities: dict[str, Any] = {"logprobs": []} if message else {}
        same = encode({"type": kind, **self._where(), **probabilities})[:-1]
        self._piece = b"event: %s\ndata: %s" % (kind.encode(), same + b',"delta":')
        item: Item = message_item(self._id, "", "in_progress") if message else reasoning_item(self._id, "")
        added = self._event("response.output_item.added", output_index=len(self._items), item=item)
        part: Part = OutputText("") if message else SummaryText("")
        name = "response.content_part.added" if message else "response.reasoning_summary_part.added"
        return added + self._event(name, **self._where(), part=part)

    def _close(self, status: str = "completed") -> bytes:
        """Closes what is open, if anything is."""
        if not self._open:
            return b""
        text, message = "".join(self._pieces), self._open == _TEXT
        kind = "response.output_text" if message else "response.reasoning_summary_text"
        part: Part = OutputText(text) if message else SummaryText(text)
        name = "response.content_part" if message else "response.reasoning_summary_part"
        probabilities: dict[str, Any] = {"logprobs": []} if message else {}
        done = self._event(f"{kind}.done", **self._where(), text=text, **probabilities)
        done += self._event(f"{name}.done", **self._where(), part=part)
        item: Item = message_item(self._id, text, status) if message else reasoning_item(self._id, text)
        self._open = ""
        return done + self._finished(item)

    def _call(self, call: ToolCall) -> bytes:
        id, index = item_id("fc"), len(self._items)
        where = {"item_id": id, "output_index": index}
        item = call_item(id, call, self._head.spaces, "in_progress")
        return b"".join(
            (
                self._event("response.output_item.added", output_index=index, item=item),
                self._event("response.function_call_arguments.delta", **where, delta=call.arguments),
                self._event(
                    "response.function_call_arguments.done",
                    **where,
                    name=item.name,
                    arguments=call.arguments,
                ),
                self._finished(call_item(id, call, self._head.spaces)),
            )
        )

    def _finished(self, item: Item) -> bytes:
        done = self._event("response.output_item.done", output_index=len(self._items), item=item)
        self._items.append(item)
        return done
