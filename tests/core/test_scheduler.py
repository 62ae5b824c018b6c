"""The scheduler with runners that tests hold in their hands, and with real ones."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from corectl.config import FOREVER
from corectl.errors import Busy, CorectlError, RunnerDied
from corectl.messages import Completion, Delta, Embedding, RawPrompt, SamplingOptions
from corectl.runner.engine import Placement
from corectl.scheduler.backends import Backends
from corectl.scheduler.policy import PlacementQuestion
from corectl.scheduler.state import LoadedModel, Model
from tests.core import fake
from tests.core.stories import (
    NOBODY,
    PATIENCE,
    HandRunner,
    MakeStage,
    Policy,
    Stage,
    events_of,
    make_model,
    outcomes,
    play,
    unloads,
    until,
)


def test_load_use_and_idle(stage: MakeStage) -> None:
    async def story() -> None:
        it = stage()
        first, second = it.hold(), it.hold()
        runner = await it.loaded(0)
        lease = await first.granted
        assert lease.runner is (await second.granted).runner is runner  # type: ignore[comparison-overlap]
        assert lease.load_ns > 0
        (shown,) = it.scheduler.loaded()
        assert (shown.active, shown.backend, shown.pid, shown.record) == (2, "fake", NOBODY, it.a.record)
        await first.let_go()
        await second.let_go()
        (shown,) = it.scheduler.loaded()
        assert shown.active == 0 and shown.expires_at is not None
        left = (shown.expires_at - datetime.now(UTC)).total_seconds()
        assert 200 < left <= 300
        assert outcomes() == ["finished", "finished"]
        assert [event for event, _ in fake.EVENTS] == ["loaded", "finished", "finished"]
        await it.scheduler.shutdown()

    play(story())


def test_keep_alive_ends_an_idle_model(stage: MakeStage) -> None:
    async def story() -> None:
        it = stage()
        held = it.hold(keep_alive=0.05)
        runner = await it.loaded(0)
        await held.granted
        await held.let_go()
        assert await runner.ended == "exit status 0"
        await until(lambda: unloads() == ["idle"])
        assert it.scheduler.loaded() == []

    play(story())


def test_keep_alive_0_with_several_requests_ends_the_model_once(stage: MakeStage) -> None:
    async def story() -> None:
        it = stage()
        several = [it.hold(keep_alive=0.0) for _ in range(3)]
        runner = await it.loaded(0)
        for held in several:
            await held.granted
        for held in several:
            assert not runner.stops
            await held.let_go()
        await until(lambda: unloads() == ["idle"])
        assert runner.stops == 1 and it.scheduler.loaded() == []

    play(story())


def test_for_ever_has_no_expiry(stage: MakeStage) -> None:
    async def story() -> None:
        it = stage()
        held = it.hold(keep_alive=FOREVER)
        await it.loaded(0)
        await held.granted
        assert it.scheduler.loaded()[0].expires_at is None
        await held.let_go()
        assert it.scheduler.loaded()[0].expires_at is None
        await it.scheduler.shutdown()

    play(story())


def test_unload_of_an_idle_model_returns_when_it_is_gone(stage: MakeStage) -> None:
    async def story() -> None:
        it = stage()
        held = it.hold()
        runner = await it.loaded(0)
        await held.granted
        await held.let_go()
        runner.stays = True
        unloading = asyncio.ensure_future(it.scheduler.unload(it.a))
        await until(lambda: runner.stops == 1)
        assert not unloading.done()
        runner.die("exit status 0")
        await unloading
        assert unloads() == ["stopped"]
        await it.scheduler.unload(it.a)

    play(story())


def test_unload_of_a_busy_model_returns_at_once(stage: MakeStage) -> None:
    async def story() -> None:
        it = stage()
        held = it.hold()
        runner = await it.loaded(0)
        await held.granted
        await it.scheduler.unload(it.a)
        (shown,) = it.scheduler.loaded()
        assert shown.expires_at is not None and shown.expires_at < datetime.now(UTC)
        assert not runner.stops
        await held.let_go()
        await runner.ended
        await until(lambda: unloads() == ["stopped"])

    play(story())


def test_unload_while_it_loads(stage: MakeStage) -> None:
    async def story() -> None:
        it = stage()
        held = it.hold()
        await it.runner(0)
        await it.scheduler.unload(it.a)
        runner = await it.loaded(0)
        await held.granted
        await held.let_go()
        await runner.ended
        await until(lambda: unloads() == ["stopped"])

    play(story())


def test_no_room_evicts_and_asks_again(stage: MakeStage) -> None:
    async def story() -> None:
        it = stage()
        held = it.hold(it.a)
        await it.loaded(0)
        await held.granted
        await held.let_go()
        it.policy.answer = lambda question: Policy.anywhere(question) if question.alone else None
        other = it.hold(it.b)
        await it.loaded(1)
        await other.granted
        assert unloads() == ["evicted"]
        # Before anything goes, it is asked whether that would help.
        assert [question.alone for question in it.policy.questions] == [True, False, True, True]
        await other.let_go()
        await it.scheduler.shutdown()

    play(story())


def test_max_loaded_models_and_a_full_queue(stage: MakeStage) -> None:
    async def story() -> None:
        it = stage(max_loaded_models=1, max_queue=0)
        held = it.hold(it.a)
        await it.loaded(0)
        await held.granted
        waiting = it.hold(it.b)
        await asyncio.sleep(0)
        with pytest.raises(Busy):
            await it.hold(it.b).task
        assert (it.scheduler.stats.waiting, it.scheduler.stats.refused) == (1, 1)
        await held.let_go()
        await it.loaded(1)
        await waiting.granted
        assert [shown.record.name.model for shown in it.scheduler.loaded()] == ["b"]
        await waiting.let_go()
        await it.scheduler.shutdown()

    play(story())


def test_a_lowered_context_is_no_reload(stage: MakeStage, tmp_path: Path) -> None:
    """What the model cannot have is settled before it is compared."""

    async def story() -> None:
        it = stage()
        small = make_model(tmp_path, "c", trained=2048)
        first = it.hold(small)
        await it.loaded(0)
        await first.granted
        second = it.hold(small, num_ctx=100_000)
        await second.granted
        await first.let_go()
        await second.let_go()
        await it.scheduler.shutdown()

    play(story())


def test_two_names_of_the_same_weights_share_a_runner(stage: MakeStage, tmp_path: Path) -> None:
    it = msgspec.structs.replace(make_model(tmp_path, "a"), record=make_model(tmp_path, "other").record)
    assert it.key == make_model(tmp_path, "a").key
    spec = msgspec.structs.replace(it.spec, adapters=(tmp_path / "adapter",))
    assert msgspec.structs.replace(it, spec=spec).key != it.key


def test_a_probe_that_raises_reports_nothing(stage: MakeStage, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: Any) -> None:
        raise OSError("no driver")

    async def story() -> None:
        it = stage()
        held = it.hold()
        await it.loaded(0)
        await held.granted
        assert it.policy.questions[0].devices == ()
        await held.let_go()
        await it.scheduler.shutdown()

    monkeypatch.setattr(fake.FakeProbe, "devices", broken)
    play(story())


def test_latest_expiry_first(stage: MakeStage) -> None:
    async def story() -> None:
        it = stage()
        for number, (model, keep) in enumerate(((it.a, 100.0), (it.b, FOREVER))):
            held = it.hold(model, keep_alive=keep)
            await it.loaded(number)
            await held.granted
            await held.let_go()
        shown: list[LoadedModel] = it.scheduler.loaded()
        assert [model.record.name.model for model in shown] == ["b", "a"]
        await it.scheduler.shutdown()

    play(story())


@asynccontextmanager
async def real_stage(folder: Path, **settings: Any) -> AsyncIterator[Stage]:
    it = Stage(folder, load_timeout=PATIENCE, **settings)
    try:
        yield it
    finally:
        await it.scheduler.shutdown()


async def text_of(it: Stage, model: Model) -> str:
    work = Completion(prompt=RawPrompt(text="abc"), sampling=SamplingOptions(num_predict=5))
    async with it.lease(model) as lease:
        return "".join([e.text async for e in events_of(lease.runner.complete(work)) if isinstance(e, Delta)])


def test_real_runners_from_load_to_shutdown(real: Path) -> None:
    async def story() -> None:
        async with real_stage(real, max_loaded_models=1) as it:
            texts = [await text_of(it, model) for model in (it.a, it.b, it.a)]
            assert texts[0] == texts[1] == texts[2] and len(texts[0]) == 5
            assert unloads() == ["evicted", "evicted"]
        assert unloads() == ["evicted", "evicted", "shutdown"]

    play(story())


def test_real_crashes_never_reach_the_request_after(real: Path) -> None:
    """While one runner dies, and until it is known why, everybody else gets a fresh one."""

    async def story() -> None:
        async with real_stage(real) as it:
            async with it.lease(it.a) as lease:
                os.kill(lease.runner.pid, 9)
                with pytest.raises(RunnerDied, match="SIGKILL"):
                    await lease.runner.embed(Embedding(inputs=("x",)))
                assert len(await text_of(it, it.a)) == 5
            assert len(await text_of(it, it.a)) == 5
        assert unloads()[0].startswith("killed by SIGKILL") and unloads()[1:] == ["shutdown"]

    play(story())


def test_a_real_load_that_fails(real: Path) -> None:
    async def story() -> None:
        async with real_stage(real) as it:
            it.a.spec.weights.write_bytes(msgspec.json.encode(fake.Behaviour(load="refuse")))
            with pytest.raises(CorectlError, match="no such tensor"):
                await text_of(it, it.a)
            it.a.spec.weights.write_bytes(msgspec.json.encode(fake.Behaviour()))
            assert len(await text_of(it, it.a)) == 5

    play(story())


def test_a_real_load_that_runs_out_of_memory_is_tried_smaller(real: Path) -> None:
    async def story() -> None:
        async with real_stage(real) as it:
            it.a.spec.weights.write_bytes(msgspec.json.encode(fake.Behaviour(load="large")))
            contexts = iter((3, 2, 1))

            def place(question: PlacementQuestion) -> Placement:
                found = Policy.anywhere(question)
                return msgspec.structs.replace(found, cells=found.num_ctx * next(contexts))

            it.policy.answer = place
            assert len(await text_of(it, it.a)) == 5
            (shown,) = it.scheduler.loaded()
            assert shown.info.cells == shown.info.num_ctx
            assert [notice.code for notice in shown.notices] == ["reduced_load"]
            assert it.scheduler.stats.smaller_loads == 2

    play(story())


def test_a_backend_by_pattern_counts_though_the_weights_are_loaded_under_another_name(
    stage: MakeStage,
) -> None:
    class Other(fake.FakeBackend):
        name = "other"

    async def story() -> None:
        it = stage(backends={"b*": "other"})
        it.scheduler.machine.backends = Backends({"fake": fake.FakeBackend(), "other": Other()})
        plugins = it.scheduler._plugins
        plugins._owners["corectl_backends", "other"] = plugins._owners["corectl_backends", "fake"]
        other_name = msgspec.structs.replace(it.b, spec=it.a.spec)
        first = it.hold(it.a)
        await it.loaded(0)
        await first.granted
        await first.let_go()
        second = it.hold(other_name)
        await it.loaded(1)
        await second.granted
        (shown,) = it.scheduler.loaded()
        assert shown.backend == "other" and "'b*'" in shown.backend_reason
        await second.let_go()
        third = it.hold(it.a)
        await third.granted
        assert len(HandRunner.started) == 2, "where nobody has named one, any will do"
        await third.let_go()
        await it.scheduler.shutdown()

    play(story())
