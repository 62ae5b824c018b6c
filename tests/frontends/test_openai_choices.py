"""Several completions for one reply: how they are opened, and what becomes of them if one fails."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any, cast

import pytest

from corectl.config import Settings
from corectl.errors import CorectlError, TooLong
from corectl.messages import Completion, Event, Fit, LoadOptions, RawPrompt, SamplingOptions, Started
from corectl.scheduler.state import Lease
from corectl.server.context import Clock
from corectl.trace import Trace
from corectl_openai.choices import open_all
from tests.core.stories import play, until

STARTED = Started(prompt_tokens=3, fit=Fit(num_ctx=64))
WORK = Completion(prompt=RawPrompt(text="a"), sampling=SamplingOptions())


class Stream:
    """What a runner answers to one completion, as the test puts it."""

    def __init__(self) -> None:
        self.events: asyncio.Queue[Event | CorectlError] = asyncio.Queue()
        self.closed = False

    async def take(self) -> list[Event]:
        event = await self.events.get()
        if isinstance(event, CorectlError):
            raise event
        return [event]

    def put(self, *events: Event | CorectlError) -> None:
        for event in events:
            self.events.put_nowait(event)

    def close(self) -> None:
        self.closed = True


class Stage:
    """A runner, its scheduler, and a client that waits for several choices."""

    def __init__(self, count: int) -> None:
        self.streams: list[Stream] = []
        self.trace = Trace()
        self.gone = asyncio.Event()
        services: Any = SimpleNamespace(scheduler=self, settings=Settings())
        settled: Any = SimpleNamespace(model=None, load=LoadOptions(), keep_alive=None)
        self.opening = asyncio.ensure_future(
            open_all(cast(Any, self), services, settled, [WORK] * count, Clock())
        )

    @asynccontextmanager
    async def lease(self, *_: Any) -> AsyncIterator[Lease]:
        yield Lease(runner=cast(Any, self), load_ns=1, trace=self.trace)

    def complete(self, work: Completion) -> Stream:
        self.streams.append(Stream())
        return self.streams[-1]

    async def receive(self) -> Any:
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def started(self, count: int) -> None:
        """All are with the runner, which has read the first so many prompts."""
        await until(lambda: len(self.streams) == 3)
        for stream in self.streams[:count]:
            stream.put(STARTED)
        await asyncio.sleep(0.01)


def test_no_reply_begins_before_all_prompts_have_been_read() -> None:
    async def story() -> None:
        it = Stage(3)
        await it.started(2)
        assert not it.opening.done()
        it.streams[2].put(TooLong("the prompt is too long"))
        with pytest.raises(TooLong):
            await it.opening
        assert all(stream.closed for stream in it.streams)

    play(story())


def test_all_are_open_once_their_prompts_have_been_read() -> None:
    async def story() -> None:
        it = Stage(3)
        await it.started(3)
        opened = await it.opening
        assert [one.started for one in opened] == [STARTED] * 3
        assert not any(stream.closed for stream in it.streams)

    play(story())


@pytest.mark.parametrize("read", [0, 2])
def test_a_client_that_leaves_ends_all(read: int) -> None:
    async def story() -> None:
        it = Stage(3)
        await it.started(read)
        it.gone.set()
        with pytest.raises(CorectlError, match="canceled"):
            await it.opening
        assert all(stream.closed for stream in it.streams)

    play(story())
