"""A runner process that serves a model, and an event loop to speak to it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import msgspec

from corectl.messages import Completion, Delta, Finish, Logprob, Started
from corectl.runner import protocol
from corectl.runner.engine import ModelSpec, Placement
from corectl.runner.stream import EventStream
from corectl.runner.supervisor import Runner
from corectl.testing.plugins import plugin_of

T = TypeVar("T")

SECONDS = 120.0
"""After so long a load, or what a check asks of a runner, has failed."""


class Reply(msgspec.Struct):
    """All of one answer."""

    deltas: list[Delta]
    finish: Finish
    prompt_tokens: int

    @property
    def text(self) -> str:
        return "".join(delta.text for delta in self.deltas)

    @property
    def logprobs(self) -> list[Logprob]:
        return [item for delta in self.deltas for item in delta.logprobs]


async def collect(stream: EventStream) -> Reply:
    """Reads a stream to its end. Raises the runner's error."""
    deltas: list[Delta] = []
    started = 0
    try:
        while True:
            for event in await stream.take():
                match event:
                    case Started():
                        started = event.prompt_tokens
                    case Delta():
                        deltas.append(event)
                    case Finish():
                        return Reply(deltas, event, started)
                    case _:
                        raise AssertionError(f"a completion was answered with {event}")
    finally:
        stream.close()


class Served:
    """Runners of one model. The first is there from the start; all are gone when it is closed."""

    def __init__(self, backend: str, model: ModelSpec, placement: Placement) -> None:
        self._load = protocol.Load(
            plugins=(plugin_of("corectl_backends", backend),),
            backend=backend,
            model=model,
            placement=placement,
        )
        self._loop = asyncio.Runner()
        self._runners: list[Runner] = []
        try:
            self.runner = self.play(self.start)
        except BaseException:
            self._loop.close()
            raise

    async def start(self) -> Runner:
        """One more runner."""
        runner = await Runner.start(self._load, load_timeout=SECONDS)
        self._runners.append(runner)
        return runner

    def play(self, story: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Runs what a check does in the event loop."""

        async def limited() -> T:
            async with asyncio.timeout(SECONDS):
                return await story()

        return self._loop.run(limited())

    def ask(self, *requests: Completion) -> list[Reply]:
        """The answers to requests that are sent at once."""

        async def story() -> list[Reply]:
            return await asyncio.gather(*(collect(self.runner.complete(request)) for request in requests))

        return self.play(story)

    def close(self) -> None:
        async def story() -> None:
            for runner in self._runners:
                await runner.stop()
                await runner.ended

        try:
            self.play(story)
        finally:
            self._loop.close()
