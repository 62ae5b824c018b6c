"""Completions over HTTP: opened when their prompts have been fitted, then streamed; early errors get a status."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from types import MappingProxyType
from typing import Any, cast

import msgspec
from litestar import Response
from litestar.types import HTTPResponseStartEvent, Receive, Scope, Send

from corectl.errors import Canceled, CorectlError, TooSlow
from corectl.messages import Completion, Event, Finish, LoadOptions, Started
from corectl.runner.stream import EventStream, Sink
from corectl.scheduler.scheduler import Scheduler
from corectl.scheduler.state import AnyModel, Lease
from corectl.server.watch import disconnected
from corectl.server.writer import BodyWriter

Encode = Callable[[Event], bytes]

MAX_HELD = 2**20
"""Bytes that are held for a client that does not read; a line of a stream has about 120. More ends the stream."""

QUIET_SECONDS = 15.0
"""After so long without a byte a stream says that it is alive, if its protocol has a word for that: whatever stands
between server and client may take a minute of silence for the end."""


class OpenCompletion:
    """A completion whose prompt has been rendered and fitted. `close` it, or hand it to `StreamedReply`, which does.

    `load_ns` is how long its model took to be ready, `started` what was done to its prompt.
    """

    def __init__(self, lease: Lease, stream: EventStream, first: list[Event], stack: AsyncExitStack) -> None:
        assert isinstance(first[0], Started)
        self.load_ns = lease.load_ns
        self._lease = lease
        self.started = first[0]
        self._stream = stream
        self._first = first[1:]
        self._stack = stack
        # What becomes of it if nobody reads it to its end.
        self._failure: CorectlError | None = Canceled("request canceled")

    @classmethod
    async def open(
        cls,
        scheduler: Scheduler,
        model: AnyModel,
        options: LoadOptions,
        keep_alive: float | None,
        work: Completion,
    ) -> OpenCompletion:
        """Waits for the model, and until the prompt has been rendered and fitted.

        Raises what either raises; then nothing is left open.
        """
        async with AsyncExitStack() as stack:
            lease = await stack.enter_async_context(scheduler.lease(model, options, keep_alive))
            stream = lease.runner.complete(lease.within(work))
            stack.callback(stream.close)
            first = await stream.take()
            return cls(lease, stream, first, stack.pop_all())

    async def take(self) -> list[Event]:
        """The next events, at least one; the last is a `Finish`. Raises the runner's error."""
        events, self._first = self._first, []
        try:
            events = events or await self._stream.take()
        except CorectlError as exc:
            self._failure = exc
            raise
        self.answers()
        if isinstance(events[-1], Finish):
            events[-1] = self.finished(events[-1])
        return events

    def flow(self, sink: Sink) -> None:
        """Hands all further events to `sink` as they come; it must report the last with `finished` or `failed`."""
        events, self._first = self._first, []
        if events:
            sink(events)
        self._stream.flow(sink)

    def answers(self) -> None:
        """Notes that output has come; `take` does so by itself."""
        self._lease.trace.answers()

    def finished(self, finish: Finish) -> Finish:
        """Notes that the completion has come to its end; that end, with what is to be said of the model's load."""
        finish = msgspec.structs.replace(finish, notices=(*self._lease.notices, *finish.notices))
        self._failure = None
        self._lease.trace.finished(finish)
        return finish

    def failed(self, error: CorectlError) -> None:
        self._failure = error

    async def close(self) -> None:
        """Gives the model back; cancels what is not done. May be called more than once."""
        failure = self._failure
        await self._stack.__aexit__(type(failure) if failure else None, failure, None)


class StreamedReply(Response[None]):
    """A reply that writes each event as it comes, until the last or an error.

    Its head goes with the first event: an error that comes before is raised, and has a status of its own.

    `encode` gives the bytes of one event (none for what the protocol does not show), `encode_error` those of an error
    in mid-stream. A client that leaves ends the work within one engine step. What a client does not read is held, up
    to `MAX_HELD` bytes; then its stream ends with `TooSlow`. The model is given back when the last event has come,
    whenever it is read.

    `beside` are more completions for the same reply, each with an `encode` of its own: their pieces come as they are
    made, the reply ends with the last of them, and an error of one ends all.

    `ping` is written where nothing else has been for `QUIET_SECONDS`.
    """

    def __init__(
        self,
        completion: OpenCompletion,
        *,
        media_type: str,
        encode: Encode,
        encode_error: Callable[[CorectlError], bytes],
        headers: Mapping[str, str] = MappingProxyType({}),
        beside: Sequence[tuple[OpenCompletion, Encode]] = (),
        ping: bytes = b"",
    ) -> None:
        super().__init__(None)
        self._streams = ((completion, encode), *beside)
        self._headers = [
            (name.encode(), value.encode()) for name, value in {"content-type": media_type, **headers}.items()
        ]
        self._encode_error = encode_error
        self._ping = ping

    def to_asgi_response(self, *_: Any, **__: Any) -> Any:
        """Litestar asks for it; nothing but this object is needed to write the reply."""
        return self._respond

    async def _respond(self, scope: Scope, receive: Receive, send: Send) -> None:
        head: HTTPResponseStartEvent = {
            "type": "http.response.start",
            "status": 200,
            "headers": self._headers,
        }
        writer = BodyWriter(cast(Mapping[str, Any], scope), send, head)
        reply = _Reply(writer, self._encode_error, streams=len(self._streams))
        leaving = asyncio.ensure_future(disconnected(receive))
        try:
            for completion, encode in self._streams:
                completion.flow(_Relay(completion, reply, encode).take)
            await self._until_done({reply.ended, writer.sent, leaving}, writer)
            await self._close()
            if reply.ended.done():
                reply.ended.result()
                await asyncio.wait({writer.sent, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if writer.sent.done():
                writer.sent.result()
        finally:
            leaving.cancel()
            writer.abandon()
            await asyncio.gather(leaving, return_exceptions=True)
            await self._close()

    async def _until_done(self, ends: set[asyncio.Future[None]], writer: BodyWriter) -> None:
        """Returns when one of them is done."""
        patience = QUIET_SECONDS if self._ping else None
        before = writer.written
        while not (await asyncio.wait(ends, timeout=patience, return_when=asyncio.FIRST_COMPLETED))[0]:
            if writer.begun and writer.written == before:
                writer.write([self._ping])
            before = writer.written

    async def _close(self) -> None:
        for completion, _ in self._streams:
            await completion.close()


class _Reply:
    """What a reply's completions share. `ended` is done after the last piece.

    A bug of `encode` is raised there, and so is an error in front of all pieces.
    """

    def __init__(
        self, writer: BodyWriter, encode_error: Callable[[CorectlError], bytes], *, streams: int
    ) -> None:
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.writer = writer
        self._encode_error = encode_error
        self._left = streams

    def finish(self, body: bytes) -> None:
        """Writes the last piece of one completion."""
        self._left -= 1
        self._write(body, last=self._left == 0)

    def fail(self, error: CorectlError) -> None:
        if not self.writer.begun:
            self.ended.set_exception(error)
            return
        self._write(self._encode_error(error), last=True)

    def _write(self, body: bytes, *, last: bool) -> None:
        self.writer.write([body], last=last)
        if last:
            self.ended.set_result(None)


class _Relay:
    """Takes one completion's events to the client."""

    def __init__(self, completion: OpenCompletion, reply: _Reply, encode: Encode) -> None:
        self._completion = completion
        self._reply = reply
        self._writer = reply.writer
        self._ended = reply.ended
        self._encode = encode

    def take(self, events: Sequence[Event] | CorectlError) -> None:
        if self._ended.done():
            return
        try:
            if isinstance(events, CorectlError):
                self._fail(events)
                return
            if not self._writer.begun:
                self._completion.answers()
            end = events[-1] if isinstance(events[-1], Finish) else None
            deltas = events if end is None else events[:-1]
            if deltas:
                self._writer.write([self._encode(delta) for delta in deltas])
            if end is not None:
                self._reply.finish(self._encode(self._completion.finished(end)))
            elif self._writer.held > MAX_HELD:
                self._fail(TooSlow(f"the client left more than {MAX_HELD} bytes of the reply unread"))
        except Exception as exc:
            self._ended.set_exception(exc)

    def _fail(self, error: CorectlError) -> None:
        self._completion.failed(error)
        self._reply.fail(error)
