"""Streamed replies: events become bytes as they come, and the model is given back at the end, whoever reads."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Any, cast

import pytest

from corectl.errors import CorectlError, RunnerDied
from corectl.messages import Delta, Event, Finish, Fit, Notice, Started, Usage
from corectl.runner.stream import EventStream
from corectl.scheduler.state import Lease
from corectl.server import streaming
from corectl.server.streaming import OpenCompletion, StreamedReply
from corectl.trace import Trace
from tests.core.stories import play, until

FIT = Fit(num_ctx=64)
FINISH = Finish(reason="stop", usage=Usage(output_tokens=2), fit=FIT)


def encode(event: Event) -> bytes:
    if isinstance(event, Delta):
        if event.text == "bug":
            raise ZeroDivisionError
        return event.text.encode()
    assert isinstance(event, Finish)
    return b"!" + ",".join(notice.code for notice in event.notices).encode()


def encode_error(error: CorectlError) -> bytes:
    return f"<{error.code}>".encode()


class Stage:
    """A reply, the runner's end of its stream, and its client."""

    def __init__(self, ping: bytes = b"") -> None:
        self.ping = ping
        self.cancelled: list[bool] = []
        self.left: list[BaseException | None] = []
        self.stream = EventStream(1, lambda _, cancel: self.cancelled.append(cancel))
        self.trace = Trace()
        self.body = b""
        self.reading = asyncio.Event()
        self.reading.set()
        self.gone = asyncio.Event()
        self.task: asyncio.Task[None]

    async def begin(self) -> Stage:
        stack = AsyncExitStack()

        async def leave(_: Any, error: BaseException | None, __: Any) -> bool:
            self.left.append(error)
            return False

        stack.push_async_exit(leave)
        stack.callback(self.stream.close)
        lease = Lease(
            runner=cast(Any, None),
            load_ns=1,
            notices=(Notice(code="reduced_load", message="m"),),
            trace=self.trace,
        )
        first: list[Event] = [Started(prompt_tokens=1, fit=FIT), Delta("a")]
        opened = OpenCompletion(lease, self.stream, first, stack)
        reply = StreamedReply(
            opened, media_type="text/plain", encode=encode, encode_error=encode_error, ping=self.ping
        )
        scope: Any = {"type": "http"}
        self.task = asyncio.ensure_future(reply.to_asgi_response()(scope, self.receive, self.send))
        await until(lambda: self.task.done() or self.body != b"")
        return self

    async def receive(self) -> Any:
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        await self.reading.wait()
        self.body += message.get("body", b"")


def test_events_are_written_in_the_turn_in_which_they_come() -> None:
    async def story() -> None:
        it = await Stage().begin()
        it.stream.put([Delta("b")])
        assert it.body == b"ab", "no turn of the loop in between"
        it.stream.put([FINISH])
        await it.task
        assert it.body == b"ab!reduced_load"
        assert (it.cancelled, it.left) == ([False], [None])
        assert (it.trace.reason, it.trace.notices) == ("stop", ("reduced_load",))

    play(story())


def test_an_error_in_mid_stream_is_written_and_told_to_the_lease() -> None:
    async def story() -> None:
        it = await Stage().begin()
        error = RunnerDied("gone")
        it.stream.put(error)
        await it.task
        assert (it.body, it.left) == (b"a<runner_died>", [error])

    play(story())


def test_a_stream_in_which_nothing_comes_says_that_it_is_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "QUIET_SECONDS", 0.01)

    async def story() -> None:
        it = await Stage(ping=b".").begin()
        await until(lambda: it.body.startswith(b"a.."))
        it.stream.put([FINISH])
        await it.task
        assert it.body.strip(b".").startswith(b"a.") and it.body.endswith(b"!reduced_load")

    play(story())


def test_a_client_that_leaves_cancels_the_work() -> None:
    async def story() -> None:
        it = await Stage().begin()
        it.gone.set()
        await it.task
        assert it.cancelled == [True]
        assert isinstance(it.left[0], CorectlError) and it.left[0].code == "canceled"
        assert len(asyncio.all_tasks()) == 1

    play(story())


def test_the_model_is_given_back_before_a_slow_client_has_read_the_end() -> None:
    async def story() -> None:
        it = await Stage().begin()
        it.reading.clear()
        it.stream.put([Delta("b")])
        it.stream.put([FINISH])
        await until(lambda: it.left == [None])
        assert it.body == b"a" and not it.task.done()
        it.reading.set()
        await it.task
        assert it.body == b"ab!reduced_load"

    play(story())


def test_a_client_that_does_not_read_does_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "MAX_HELD", 100)

    async def story() -> None:
        it = await Stage().begin()
        it.reading.clear()
        for _ in range(101):
            it.stream.put([Delta("x")])
        await until(lambda: it.cancelled == [True])
        assert isinstance(it.left[0], CorectlError) and it.left[0].code == "too_slow"
        it.stream.put([Delta("y")])
        it.reading.set()
        await it.task
        assert it.body == b"a" + b"x" * 101 + b"<too_slow>", "nothing is lost before the error"

    play(story())


def test_a_bug_of_the_frontend_ends_its_own_reply() -> None:
    async def story() -> None:
        it = await Stage().begin()
        it.stream.put([Delta("bug")])
        with pytest.raises(ZeroDivisionError):
            await it.task
        assert it.cancelled == [True]

    play(story())
