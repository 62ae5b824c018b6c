"""Runners that hang are noticed, killed, and their streams told why."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from corectl.errors import RunnerDied
from corectl.runner.supervisor import Runner
from corectl.runner.watchdog import Patience, Watchdog
from tests.core.stories import PATIENCE, Loader, collect, completion, play, until


def test_a_stopped_process_is_killed(loader: Loader) -> None:
    async def story() -> None:
        patience = Patience(every=0.05, silence=0.5)
        runner = await Runner.start(loader(seconds=0.01), load_timeout=PATIENCE, patience=patience)
        stream = runner.complete(completion(predict=500, text="x"))
        await stream.take()
        os.kill(runner.pid, signal.SIGSTOP)
        with pytest.raises(RunnerDied, match="it hung: silent for"):
            while True:
                await stream.take()
        stream.close()
        assert (await runner.ended).startswith("it hung: silent for")

    play(story())


def test_a_step_that_never_ends_is_given_up(loader: Loader) -> None:
    async def story() -> None:
        patience = Patience(every=0.05, step=0.5)
        runner = await Runner.start(loader(at="hang", after=5), load_timeout=PATIENCE, patience=patience)
        with pytest.raises(RunnerDied, match="it hung: stuck in one step for"):
            await collect(runner, completion())
        await runner.ended

    play(story())


def test_work_that_goes_on_is_left_alone(loader: Loader) -> None:
    """Each step is far below the limit, all of them together far above."""

    async def story() -> None:
        patience = Patience(every=0.02, silence=PATIENCE, step=5.0)
        runner = await Runner.start(loader(seconds=0.02), load_timeout=PATIENCE, patience=patience)
        text, finish = await collect(runner, completion(predict=40))
        assert (len(text), finish.reason) == (40, "length")
        await runner.stop()

    play(story())


class Asked:
    """A runner that is asked, and never answers unless told to."""

    def __init__(self, **patience: float) -> None:
        self.work = True
        self.questions = 0
        self.reasons: list[str] = []
        self.answers = False
        self.dog = Watchdog(
            Patience(**patience), busy=lambda: self.work, ask=self.ask, give_up=self.reasons.append
        )

    def ask(self) -> None:
        self.questions += 1
        if self.answers:
            self.dog.heard(0.0)


def test_silence_is_counted_in_questions() -> None:
    async def story() -> None:
        it = Asked(every=0.001, silence=0.005)
        it.dog.wake()
        it.dog.wake()
        await until(lambda: bool(it.reasons))
        assert it.questions == 5 and len(it.reasons) == 1

    play(story())


def test_nobody_is_asked_without_work() -> None:
    async def story() -> None:
        it = Asked(every=0.001, silence=0.005)
        it.answers = True
        it.dog.wake()
        await until(lambda: it.questions > 20)
        it.work = False
        await until(lambda: len(asyncio.all_tasks()) == 1)
        assert it.reasons == []
        before, it.work = it.questions, True
        it.dog.wake()
        await until(lambda: it.questions > before)
        it.dog.rest()
        await until(lambda: len(asyncio.all_tasks()) == 1)

    play(story())
