"""From the events of a completion to the objects of a reply: streamed, or one for all."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

from corectl.messages import Delta, Event, Finish, Rendered, ToolCallDelta
from corectl.server.context import Clock
from corectl.server.streaming import OpenCompletion
from corectl.server.whole import CallCollector, collected
from corectl_ollama.calls import WireToolCall
from corectl_ollama.replies import Remote, line


class Form(Protocol):
    """How one endpoint writes its replies. `remote` says where the model runs, if it runs elsewhere."""

    remote: Remote | None

    def chunk(self, delta: Delta, calls: list[WireToolCall]) -> Any:
        """One object of a stream. It has a thought, content or calls, never two of them."""
        ...

    def final(self, finish: Finish, clock: Clock, delta: Delta, calls: list[WireToolCall]) -> Any:
        """The last object of a stream, or the only one: then with everything that came before."""
        ...

    def done(self, reason: str) -> Any: ...

    def rendered(self, prompt: Rendered, clock: Clock) -> Any:
        """The reply to a request that only wants to see its prompt."""
        ...


class Answer:
    """One reply."""

    def __init__(self, form: Form, clock: Clock) -> None:
        self._form = form
        self._clock = clock
        self._calls = CallCollector()

    def lines(self, event: Event) -> bytes:
        """An event as lines of a stream; none for one that shows nothing yet, such as the beginning of a call."""
        if isinstance(event, Finish):
            return line(self._form.final(event, self._clock, Delta(""), []))
        assert isinstance(event, Delta)
        if not (event.thinking or event.tool_calls):
            return line(self._form.chunk(event, []))
        return self._parts(event)

    def _parts(self, delta: Delta) -> bytes:
        """A line for each kind of output, and for each call: Zed reads only one. Probabilities go with the first."""
        calls = self._take(delta.tool_calls)
        parts: list[tuple[Delta, list[WireToolCall]]] = []
        parts += [(Delta("", (), delta.thinking), [])] if delta.thinking else []
        parts += [(Delta(delta.text), [])] if delta.text else []
        parts += [(Delta(""), [call]) for call in calls]
        if delta.logprobs:
            first, with_calls = parts[0] if parts else (Delta(""), [])
            parts[:1] = [(Delta(first.text, delta.logprobs, first.thinking), with_calls)]
        return b"".join(line(self._form.chunk(part, made)) for part, made in parts)

    async def whole(self, opened: OpenCompletion) -> Any:
        """The only object of a reply that is not streamed. Raises what the stream raises."""
        delta, finish = await collected(opened)
        return self._form.final(finish, self._clock, delta, self._take(delta.tool_calls))

    def _take(self, pieces: Iterable[ToolCallDelta]) -> list[WireToolCall]:
        return [WireToolCall.of(call) for call in self._calls.take(pieces)]
