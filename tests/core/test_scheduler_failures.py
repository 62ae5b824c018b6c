"""The scheduler when clients leave, loads fail, runners die, policies raise, or the server ends."""

from __future__ import annotations

import asyncio

import pytest

from corectl.config import Settings
from corectl.errors import Busy, LoadFailed, NotSupported, RunnerDied
from corectl.plugins import PluginHost
from corectl.scheduler.scheduler import Scheduler
from corectl.scheduler.state import RequestSummary
from tests.core import fake
from tests.core.stories import (
    HandRunner,
    MakeStage,
    Policy,
    outcomes,
    play,
    unloads,
    until,
)


def test_cancel_while_loading_gives_up_the_load(stage: MakeStage) -> None:
    async def story() -> None:
        it = stage()
        held = it.hold()
        runner = await it.runner(0)
        held.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await held.task
        await until(lambda: runner.loaded.cancelled())
        await until(lambda: not it.scheduler._slots)
        assert outcomes() == ["cancelled"]
        again = it.hold()
        await it.loaded(1)
        await again.granted
        await again.let_go()
        await it.scheduler.shutdown()

    play(story())


def test_cancel_before_the_load_has_begun(stage: MakeStage) -> None:
    async def story() -> None:
        it = stage()
        held = it.hold()
        await asyncio.sleep(0)
        held.task.cancel()
        again = it.hold()
        with pytest.raises(asyncio.CancelledError):
            await held.task
        await until(lambda: bool(HandRunner.started))
        HandRunner.started[-1].loaded.set_result(None)
        await again.granted
        await again.let_go()
        await it.scheduler.shutdown()

    play(story())


def test_cancel_at_the_moment_when_the_load_ends(stage: MakeStage) -> None:
    async def story() -> None:
        it = stage()
        held = it.hold()
        runner = await it.loaded(0)
        held.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await held.task
        await until(lambda: not it.scheduler._slots or bool(it.scheduler.loaded()))
        again = it.hold()
        if runner.stops:
            await it.loaded(1)
        await again.granted
        await again.let_go()
        await it.scheduler.shutdown()

    play(story())


def test_a_new_request_while_a_cancelled_load_still_ends(stage: MakeStage) -> None:
    async def story() -> None:
        it = stage()
        held = it.hold()
        await it.runner(0)
        held.task.cancel()
        again = it.hold(num_ctx=128)
        with pytest.raises(asyncio.CancelledError):
            await held.task
        runner = await it.loaded(1)
        assert (await again.granted).runner is runner  # type: ignore[comparison-overlap]
        assert runner.info.num_ctx == 128
        await again.let_go()
        await it.scheduler.shutdown()

    play(story())


def test_a_failed_load_reaches_everybody_and_the_next_one_tries_again(stage: MakeStage) -> None:
    async def story() -> None:
        it = stage()
        several = [it.hold() for _ in range(3)]
        (await it.runner(0)).loaded.set_exception(LoadFailed("no such tensor"))
        for held in several:
            with pytest.raises(LoadFailed, match="no such tensor"):
                await held.task
        assert outcomes() == ["load_failed"] * 3 and unloads() == []
        again = it.hold()
        (await it.runner(1)).loaded.set_exception(OSError("too many open files"))
        with pytest.raises(LoadFailed, match="OSError: too many open files"):
            await again.task
        assert it.scheduler._slots == {} and it.scheduler._requests == {}

    play(story())


def test_a_runner_that_dies_is_replaced_and_old_leases_do_not_count(stage: MakeStage) -> None:
    async def story() -> None:
        it = stage()
        old = it.hold()
        first = await it.loaded(0)
        await old.granted
        first.die("killed by SIGKILL")
        new = it.hold()
        second = await it.loaded(1)
        assert (await new.granted).runner is second  # type: ignore[comparison-overlap]
        await old.let_go()
        assert it.scheduler.loaded()[0].active == 1
        assert unloads() == ["killed by SIGKILL"]
        await new.let_go()
        assert it.scheduler.loaded()[0].active == 0
        await it.scheduler.shutdown()

    play(story())


def test_requests_while_a_runner_dies_wait_for_the_next_one(stage: MakeStage) -> None:
    """The process has closed its connection; that it is gone, and why, is known a little later."""

    async def story() -> None:
        it = stage()
        old = it.hold()
        first = await it.loaded(0)
        await old.granted
        first.break_off()
        await asyncio.sleep(0)
        new = it.hold()
        await asyncio.sleep(0)
        assert it.scheduler.loaded() == [] and not new.granted.done()
        first.die("exit status 1")
        second = await it.loaded(1)
        assert (await new.granted).runner is second  # type: ignore[comparison-overlap]
        await old.let_go()
        await new.let_go()
        await it.scheduler.shutdown()

    play(story())


def test_a_runner_that_crashes_while_it_drains_has_died(stage: MakeStage) -> None:
    async def story() -> None:
        it = stage()
        held = it.hold()
        runner = await it.loaded(0)
        await held.granted
        await it.scheduler.unload(it.a)
        runner.die("killed by SIGSEGV")
        await held.let_go()
        assert unloads() == ["killed by SIGSEGV"] and it.scheduler.stats.unloads == {"died": 1}
        await it.scheduler.shutdown()

    play(story())


def test_a_runner_counts_until_plugins_have_heard_of_its_end(stage: MakeStage) -> None:
    async def story() -> None:
        it = stage()
        held = it.hold()
        runner = await it.loaded(0)
        await held.granted
        assert [model.active for model in it.scheduler.runners()] == [1]
        await held.let_go()
        runner.stays = True
        stopping = asyncio.ensure_future(it.scheduler.unload(it.a))
        await until(lambda: runner.stops == 1)
        assert it.scheduler.loaded() == [] and len(it.scheduler.runners()) == 1
        runner.die("exit status 0")
        await stopping
        await until(lambda: unloads() == ["stopped"])
        assert it.scheduler.runners() == []
        await it.scheduler.shutdown()

    play(story())


def test_a_policy_that_never_finds_room_fails_the_request(stage: MakeStage) -> None:
    async def story() -> None:
        it = stage()
        it.policy.answer = lambda question: None
        with pytest.raises(LoadFailed, match="does not fit into memory"):
            await it.hold().task
        assert it.scheduler._slots == {}

    play(story())


def test_a_policy_that_raises_fails_the_request(stage: MakeStage, caplog: pytest.LogCaptureFixture) -> None:
    async def story() -> None:
        it = stage()
        it.policy.answer = lambda question: Policy.anywhere(question) if 1 // 0 else None
        with pytest.raises(LoadFailed, match="ZeroDivisionError"):
            await it.hold().task
        it.policy.next_request = lambda waiting: 99  # type: ignore[method-assign]
        with pytest.raises(LoadFailed, match=r"scheduler policy 'default' failed: .* chose 99"):
            await it.hold().task
        assert "chose 99" in caplog.text

    play(story())


def test_shutdown_ends_runners_loads_and_waits(stage: MakeStage) -> None:
    async def story() -> None:
        it = stage()
        busy = it.hold(it.a)
        runner = await it.loaded(0)
        await busy.granted
        loading, waiting = it.hold(it.b), it.hold(it.a, num_ctx=9999)
        await it.runner(1)
        await it.scheduler.shutdown()
        for held in (loading, waiting):
            with pytest.raises(Busy, match="shutting down"):
                await held.task
        assert runner.stops == 1 and HandRunner.started[1].loaded.cancelled()
        assert unloads() == ["shutdown"]
        await busy.let_go()
        with pytest.raises(Busy):
            await it.hold(it.b).task
        await asyncio.sleep(0)
        assert len(HandRunner.started) == 2, "a load after the end"
        assert it.scheduler._tasks == set()

    play(story())


def test_shutdown_says_so_to_plugins(stage: MakeStage) -> None:
    async def story() -> None:
        it = stage()
        held = it.hold()
        await it.loaded(0)
        await held.granted
        await held.let_go()
        await it.scheduler.shutdown()
        assert unloads() == ["shutdown"]

    play(story())


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (RunnerDied("gone"), "runner_died"),
        (ValueError("a bug"), "internal"),
        (asyncio.CancelledError(), "cancelled"),
    ],
)
def test_how_a_request_went(stage: MakeStage, error: BaseException, outcome: str) -> None:
    async def story() -> None:
        it = stage()
        asyncio.get_running_loop().call_soon(lambda: asyncio.ensure_future(it.loaded(0)))
        with pytest.raises(type(error)):
            async with it.lease():
                raise error
        (summary,) = [value for event, value in fake.EVENTS if event == "finished"]
        assert isinstance(summary, RequestSummary)
        assert (summary.model, summary.outcome) == ("a:latest", outcome)
        assert 0 <= summary.queued <= summary.total
        assert it.scheduler.loaded()[0].active == 0
        await it.scheduler.shutdown()

    play(story())


def test_an_unknown_policy_or_backend(stage: MakeStage) -> None:
    async def story() -> None:
        with pytest.raises(NotSupported, match="no scheduler policy 'mine'; installed: none"):
            Scheduler(Settings(scheduler_policy="mine"), PluginHost())
        with pytest.raises(NotSupported, match="no backend 'mine'; installed: fake"):
            await stage(backend="mine").hold().task

    play(story())
