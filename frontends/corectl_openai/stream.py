"""The events of a streamed chat. What is the same in all of them is encoded once: an event is made for each token."""

from __future__ import annotations

from collections.abc import Sequence

from corectl.messages import Delta, Event, Finish, Logprob, ToolCallDelta
from corectl.server.context import Clock
from corectl.server.whole import ToolCall, one_line
from corectl_openai.objects import CallPiece, ChatHead, ChatLogprobs, FunctionPiece, WireCall, WireFunction
from corectl_openai.replies import DONE, encode, new_id, said_of, usage_of, wire_logprobs

_UNENDED = b'},"finish_reason":null}]}\n\n'
_EMPTY = b'"content":""'


class ChatStream:
    """One reply. Its choices end in any order; the last to end also ends the reply."""

    def __init__(self, model: str, created: int, clock: Clock, *, choices: int, usage: bool) -> None:
        head = ChatHead(id=new_id("chatcmpl-"), created=created, model=model)
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
    """One choice: the role comes with its first piece, calls in pieces, its end by itself."""

    def __init__(self, reply: ChatStream, index: int) -> None:
        self._reply = reply
        self._called = False
        self._begin = b'%s,"choices":[{"index":%d,"delta":{' % (reply.head, index)
        self._content = self._begin + b'"content":'
        self._role = b'"role":"assistant",'

    def encode(self, event: Event) -> bytes:
        """The bytes for an event; none for one that shows nothing, such as the end of a call."""
        if type(event) is Delta:
            if self._role or event.thinking or event.tool_calls or event.logprobs:
                return self._parts(event)
            return self._content + encode(event.text) + _UNENDED
        assert isinstance(event, Finish)
        return self._end(event)

    def _parts(self, delta: Delta) -> bytes:
        """An event for each kind of output; probabilities go with the first."""
        calls = wire_pieces(delta.tool_calls)
        self._called = self._called or any(piece.done for piece in delta.tool_calls)
        parts = []
        if delta.thinking:
            parts.append(b'"content":"","reasoning":' + encode(delta.thinking))
        if delta.text:
            parts.append(b'"content":' + encode(delta.text))
        if calls:
            parts.append(b'"content":"","tool_calls":' + encode(calls))
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
    return b'},"finish_reason":null,"logprobs":%s}]}\n\n' % encode(ChatLogprobs(wire_logprobs(found)))


def wire_pieces(pieces: Sequence[ToolCallDelta]) -> list[CallPiece]:
    """What of calls has come at once, as this protocol has it: the first piece of each has its id and its name."""
    found: dict[int, CallPiece] = {}
    for piece in pieces:
        arguments = one_line(piece.arguments)
        if piece.name:
            function = FunctionPiece(name=piece.name, arguments=arguments)
            found[piece.index] = CallPiece(id=piece.id, index=piece.index, type="function", function=function)
        elif piece.index in found:
            found[piece.index].function.arguments += arguments
        elif arguments:
            found[piece.index] = CallPiece(index=piece.index, function=FunctionPiece(arguments=arguments))
    return list(found.values())


def wire_calls(calls: Sequence[ToolCall]) -> list[WireCall]:
    return [
        WireCall(id=call.id, index=call.index, function=WireFunction(call.name, call.arguments))
        for call in calls
    ]


def reason_of(finish: Finish, *, called: bool) -> str:
    """Why a choice has ended, in the words of this protocol."""
    return "tool_calls" if called and finish.reason == "stop" else finish.reason
