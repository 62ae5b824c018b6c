"""The events of a streamed chat. What is the same in all of them is encoded once: an event is made for each token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from corectl.messages import Delta, Event, Finish, Logprob
from corectl.server.context import Clock
from corectl.server.whole import CallCollector, ToolCall
from corectl_openai.replies import DONE, FINGERPRINT, encode, new_id, said_of, usage_of, wire_logprobs

_UNENDED = b'},"finish_reason":null}]}\n\n'
_EMPTY = b'"content":""'


class ChatStream:
    """One reply. Its choices end in any order; the last to end also ends the reply."""

    def __init__(self, model: str, created: int, clock: Clock, *, choices: int, usage: bool) -> None:
        head = {
            "id": new_id("chatcmpl-"),
            "object": "chat.completion.chunk",
            "created": created,
            "model": model,
            "system_fingerprint": FINGERPRINT,
        }
        self._clock = clock
        self._usage = usage
        self._ends: list[Finish] = []
        self.head = b"data: " + encode(head)[:-1]
        self.choices = [ChoiceStream(self, index) for index in range(choices)]

    def end(self, finish: Finish) -> bytes:
        """What follows the end of a choice: nothing before the last."""
        self._ends.append(finish)
        if len(self._ends) < len(self.choices):
            return b""
        usage = b""
        if self._usage:
            usage = b'%s,"choices":[],"usage":%s}\n\n' % (self.head, encode(usage_of([self._ends])))
        return usage + DONE

    def said(self, finish: Finish) -> bytes:
        """Further members of an event: what is to be said of a choice."""
        said = said_of([finish], self._clock)
        return b"," + encode(said)[1:-1] if said else b""


class ChoiceStream:
    """One choice: the role comes with its first piece, each call whole, its end by itself."""

    def __init__(self, reply: ChatStream, index: int) -> None:
        self._reply = reply
        self._calls = CallCollector()
        self._called = False
        self._begin = b'%s,"choices":[{"index":%d,"delta":{' % (reply.head, index)
        self._content = self._begin + b'"content":'
        self._role = b'"role":"assistant",'

    def encode(self, event: Event) -> bytes:
        """The bytes for an event; none for one that shows nothing yet, such as the beginning of a call."""
        if type(event) is Delta:
            if self._role or event.thinking or event.tool_calls or event.logprobs:
                return self._parts(event)
            return self._content + encode(event.text) + _UNENDED
        assert isinstance(event, Finish)
        return self._end(event)

    def _parts(self, delta: Delta) -> bytes:
        """An event for each kind of output; probabilities go with the first."""
        calls = self._calls.take(delta.tool_calls)
        parts = []
        if delta.thinking:
            parts.append(b'"content":"","reasoning":' + encode(delta.thinking))
        if delta.text:
            parts.append(b'"content":' + encode(delta.text))
        if calls:
            self._called = True
            parts.append(b'"content":"","tool_calls":' + encode(wire_calls(calls)))
        if delta.logprobs and not parts:
            parts.append(_EMPTY)
        events = [self._begin + self._first() + part + _UNENDED for part in parts]
        if delta.logprobs:
            events[0] = events[0].replace(_UNENDED, _with_logprobs(delta.logprobs))
        return b"".join(events)

    def _first(self) -> bytes:
        role, self._role = self._role, b""
        return role

    def _end(self, finish: Finish) -> bytes:
        begun = b"" if not self._role else self._begin + self._first() + _EMPTY + _UNENDED
        reason = encode(reason_of(finish, called=self._called))
        said = self._reply.said(finish)
        end = b'%s},"finish_reason":%s}]%s}\n\n' % (self._begin, reason, said)
        return begun + end + self._reply.end(finish)


def _with_logprobs(found: Sequence[Logprob]) -> bytes:
    return b'},"finish_reason":null,"logprobs":{"content":%s}}]}\n\n' % encode(wire_logprobs(found))


def wire_calls(calls: Sequence[ToolCall]) -> list[dict[str, Any]]:
    """Calls as this protocol has them: their arguments are a text, as the model wrote it."""
    return [
        {
            "id": call.id,
            "index": call.index,
            "type": "function",
            "function": {"name": call.name, "arguments": call.arguments},
        }
        for call in calls
    ]


def reason_of(finish: Finish, *, called: bool) -> str:
    """Why a choice has ended, in the words of this protocol."""
    return "tool_calls" if called and finish.reason == "stop" else finish.reason
