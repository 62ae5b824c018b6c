"""Tests that are stories in an event loop, and the stage that the scheduler's stories play on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from datetime import UTC, datetime
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import msgspec

from corectl.config import Settings
from corectl.messages import Completion, Delta, Event, Finish, LoadOptions, RawPrompt, SamplingOptions
from corectl.model.formats import ModelDescription
from corectl.model.manifest import ModelConfig
from corectl.model.name import ModelName
from corectl.model.record import ModelRecord
from corectl.plugins import PluginHost
from corectl.runner import protocol
from corectl.runner.engine import ModelSpec, Placement
from corectl.runner.stats import StepStats
from corectl.runner.stream import EventStream
from corectl.runner.supervisor import Runner
from corectl.scheduler.policy import PlacementQuestion, Resident
from corectl.scheduler.scheduler import Scheduler
from corectl.scheduler.state import Lease, Model
from tests.core import fake

PATIENCE = 60.0
"""Seconds after which a story that hangs has failed; none takes more than a few."""


NOBODY = 2**30
"""No process has this number."""


def play(story: Coroutine[Any, Any, None]) -> None:
    """Runs a test's story; one that hangs fails, and so does one that leaves an error that nobody saw."""
    problems: list[dict[str, Any]] = []

    async def limited() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: problems.append(context))
        async with asyncio.timeout(PATIENCE):
            await story

    asyncio.run(limited())
    assert problems == []


async def until(condition: Callable[[], bool]) -> None:
    """Returns when the condition holds; the test's own time limit ends the wait."""
    while not condition():  # noqa: ASYNC110 - no event can tell what is to come
        await asyncio.sleep(0.001)


class HandRunner:
    """Stands for a runner process: a test says when it is loaded, and when it is gone."""

    started: list[HandRunner]

    def __init__(self, load: protocol.Load) -> None:
        loop = asyncio.get_running_loop()
        self.load = load
        self.info = fake.engine_info(num_ctx=load.placement.num_ctx)
        self.stats = StepStats()
        self.pid = NOBODY
        self.ended: asyncio.Future[str] = loop.create_future()
        self.lost: asyncio.Future[None] = loop.create_future()
        self.loaded: asyncio.Future[None] = loop.create_future()
        self.stops = 0
        self.shares: list[int] = []
        self.stays = False

    @classmethod
    async def start(cls, load: protocol.Load, *, load_timeout: float) -> HandRunner:
        runner = cls(load)
        cls.started.append(runner)
        await runner.loaded
        return runner

    def share(self, cores: int) -> None:
        self.shares.append(cores)

    async def stop(self) -> None:
        self.stops += 1
        if not self.stays:
            self.die("exit status 0")

    def die(self, reason: str) -> None:
        if not self.ended.done():
            self.break_off()
            self.ended.set_result(reason)

    def break_off(self) -> None:
        if not self.lost.done():
            self.lost.set_result(None)


class Policy:
    """Places everything, unless told otherwise."""

    name = "default"

    def __init__(self) -> None:
        self.answer: Callable[[PlacementQuestion], Placement | None] = self.anywhere
        self.questions: list[PlacementQuestion] = []

    @staticmethod
    def anywhere(question: PlacementQuestion) -> Placement:
        num_ctx = question.options.num_ctx or 0
        return Placement(num_ctx=num_ctx, cells=num_ctx, num_batch=8, max_sequences=4, num_thread=1)

    def next_request(self, waiting: Sequence[Any]) -> int:
        return int(waiting[0].id)

    def evict(self, resident: Sequence[Resident]) -> str:
        return min(resident, key=lambda item: (item.active > 0, item.keep_alive, item.model)).model

    def place(self, question: PlacementQuestion) -> Placement | None:
        self.questions.append(question)
        return self.answer(question)


class Stage:
    """A scheduler, its policy, and the models a and b."""

    plugins = {"fake": "tests.core.fake"}

    def __init__(self, folder: Path, **settings: Any) -> None:
        fake.EVENTS.clear()
        self.policy = Policy()
        points = [
            EntryPoint(name=name, value=module, group="corectl") for name, module in self.plugins.items()
        ]
        host = PluginHost.load(Settings(), entry_points=points)
        host.policies.setdefault("default", self.policy)
        host.listen(fake.Recorder())
        self.scheduler = Scheduler(Settings(**settings), host)
        # What the machine has is known from the start, so that a story's first request waits for nothing else.
        self.scheduler.machine.inventory.probe()
        self.a, self.b = (make_model(folder, name) for name in "ab")

    def lease(self, model: Model | None = None, keep_alive: float | None = None, **options: Any) -> Any:
        return self.scheduler.lease(model or self.a, LoadOptions(**options), keep_alive)

    def hold(self, model: Model | None = None, **how: Any) -> Held:
        return Held(self.lease(model, **how))

    async def runner(self, number: int) -> HandRunner:
        """The runner of that number, as soon as its load has begun."""
        await until(lambda: len(HandRunner.started) > number)
        return HandRunner.started[number]

    async def loaded(self, number: int) -> HandRunner:
        runner = await self.runner(number)
        runner.loaded.set_result(None)
        return runner


class Held:
    """A lease in a task of its own, held until it is let go."""

    def __init__(self, lease: Any) -> None:
        self.granted: asyncio.Future[Lease] = asyncio.get_running_loop().create_future()
        self.release = asyncio.Event()
        self.task = asyncio.ensure_future(self._hold(lease))

    async def _hold(self, lease: Any) -> None:
        async with lease as granted:
            self.granted.set_result(granted)
            await self.release.wait()

    async def let_go(self) -> None:
        self.release.set()
        await self.task


def make_model(folder: Path, name: str, *, trained: int = 0) -> Model:
    weights = folder / name
    weights.write_bytes(msgspec.json.encode(fake.Behaviour()))
    record = ModelRecord(
        name=ModelName.parse(name),
        digest="0",
        size=0,
        modified_at=datetime.now(UTC),
        config=ModelConfig(),
        layers=(),
    )
    description = ModelDescription(architecture="fake", context_length=trained)
    return Model(record=record, spec=ModelSpec(format="fake", weights=weights), description=description)


def outcomes() -> list[str]:
    return [value.outcome for event, value in fake.EVENTS if event == "finished"]


def unloads() -> list[str]:
    return [value for event, value in fake.EVENTS if event == "unloaded"]


MakeStage = Callable[..., Stage]
Loader = Callable[..., protocol.Load]


async def start(load: protocol.Load, load_timeout: float = PATIENCE) -> Runner:
    return await Runner.start(load, load_timeout=load_timeout)


def completion(text: str = "abc", *, predict: int = 8, **changes: Any) -> Completion:
    sampling = SamplingOptions(num_predict=predict, **changes.pop("sampling", {}))
    return Completion(prompt=RawPrompt(text=text), sampling=sampling, **changes)


async def events_of(stream: EventStream) -> AsyncGenerator[Event, None]:
    """One event after the other, to the last; closes the stream."""
    event: Event | None = None
    try:
        while not isinstance(event, Finish):
            for event in await stream.take():
                yield event
    finally:
        stream.close()


async def collect(runner: Runner, request: Completion) -> tuple[str, Finish]:
    events = [event async for event in events_of(runner.complete(request))]
    assert isinstance(events[-1], Finish)
    return "".join(event.text for event in events[:-1] if isinstance(event, Delta)), events[-1]
