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
    """A reply, the runner's end of its streams, and its client."""

    def __init__(self, ping: bytes = b"", streams: int = 1) -> None:
        self.ping = ping
        self.cancelled: list[bool] = []
        self.left: list[BaseException | None] = []
        self.streams = [
            EventStream(id, lambda _, cancel: self.cancelled.append(cancel)) for id in range(streams)
        ]
        self.stream = self.streams[0]
        self.trace = Trace()
        self.heads = 0
        self.body = b""
        self.reading = asyncio.Event()
        self.reading.set()
        self.gone = asyncio.Event()
        self.broken = ""
        self.task: asyncio.Task[None]

    def _opened(self, stream: EventStream) -> OpenCompletion:
        stack = AsyncExitStack()

        async def leave(_: Any, error: BaseException | None, __: Any) -> bool:
            self.left.append(error)
            return False

        stack.push_async_exit(leave)
        stack.callback(stream.close)
        lease = Lease(
            runner=cast(Any, None),
            load_ns=1,
            notices=(Notice(code="reduced_load", message="m"),),
            trace=self.trace,
        )
        return OpenCompletion(lease, stream, [Started(prompt_tokens=1, fit=FIT)], stack)

    async def open(self) -> Stage:
        """Until the reply waits for its first event."""
        opened, *others = map(self._opened, self.streams)
        reply = StreamedReply(
            opened,
            media_type="text/plain",
            encode=encode,
            encode_error=encode_error,
            beside=[(other, encode) for other in others],
            ping=self.ping,
        )
        scope: Any = {"type": "http"}
        self.task = asyncio.ensure_future(reply.to_asgi_response()(scope, self.receive, self.send))
        await asyncio.sleep(0.01)
        assert (self.task.done(), self.heads, self.body) == (False, 0, b"")
        return self

    async def begin(self) -> Stage:
        """Until the first event has been written."""
        await self.open()
        self.stream.put([Delta("a")])
        assert (self.heads, self.body) == (1, b"a")
        return self

    async def receive(self) -> Any:
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        await self.reading.wait()
        if message["type"] == self.broken:
            raise RuntimeError(self.broken)
        self.heads += message["type"] == "http.response.start"
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


def test_an_error_in_front_of_all_events_is_raised_and_has_a_status_of_its_own() -> None:
    async def story() -> None:
        it = await Stage().open()
        error = RunnerDied("gone")
        it.stream.put(error)
        with pytest.raises(RunnerDied):
            await it.task
        assert (it.heads, it.left, it.trace.first_token) == (0, [error], None)
        assert len(asyncio.all_tasks()) == 1

    play(story())


def test_an_event_of_which_nothing_is_shown_begins_the_reply_too() -> None:
    async def story() -> None:
        it = await Stage().open()
        it.stream.put([Delta("")])
        assert (it.heads, it.body) == (1, b"")
        it.stream.put(RunnerDied("gone"))
        await it.task
        assert it.body == b"<runner_died>"

    play(story())


@pytest.mark.parametrize("broken", ["http.response.start", "http.response.body"])
def test_a_reply_that_cannot_be_sent_ends_its_work(broken: str) -> None:
    async def story() -> None:
        it = await Stage().open()
        it.broken = broken
        it.stream.put([Delta("a")])
        with pytest.raises(RuntimeError, match=broken):
            await it.task
        assert it.cancelled == [True]

    play(story())


def test_of_several_completions_the_first_begins_the_reply_and_the_last_ends_it() -> None:
    async def story() -> None:
        it = await Stage(streams=3).open()
        it.streams[1].put([Delta("b")])
        assert (it.heads, it.body) == (1, b"b") and it.trace.first_token is not None
        for index in (0, 2):
            it.streams[index].put([Delta(str(index))])
        for stream in it.streams:
            assert not it.task.done()
            stream.put([FINISH])
        await it.task
        assert it.body == b"b02" + b"!reduced_load" * 3
        assert (it.heads, it.cancelled, it.left) == (1, [False] * 3, [None] * 3)

    play(story())


@pytest.mark.parametrize("begun", [False, True])
def test_an_error_of_one_completion_ends_all(begun: bool) -> None:
    async def story() -> None:
        it = await Stage(streams=3).open()
        if begun:
            it.streams[0].put([Delta("a")])
        it.streams[2].put(RunnerDied("gone"))
        if begun:
            await it.task
        else:
            with pytest.raises(RunnerDied):
                await it.task
        assert it.body == (b"a<runner_died>" if begun else b"")
        assert sorted(it.cancelled) == [False, True, True], "the one that failed has nothing to cancel"

    play(story())


def test_an_error_in_mid_stream_is_written_and_told_to_the_lease() -> None:
    async def story() -> None:
        it = await Stage().begin()
        error = RunnerDied("gone")
        it.stream.put(error)
        await it.task
        assert (it.body, it.left) == (b"a<runner_died>", [error])

    play(story())


def test_a_reply_without_a_head_is_not_said_to_be_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "QUIET_SECONDS", 0.001)

    async def story() -> None:
        it = await Stage(ping=b".").open()
        it.stream.put(RunnerDied("gone"))
        with pytest.raises(RunnerDied):
            await it.task

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


@pytest.mark.parametrize("begun", [False, True])
def test_a_client_that_leaves_cancels_the_work(begun: bool) -> None:
    async def story() -> None:
        it = await (Stage().begin() if begun else Stage().open())
        it.gone.set()
        await it.task
        assert it.heads == begun
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
