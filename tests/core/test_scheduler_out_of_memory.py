"""The scheduler on simulated devices: what is tried when memory runs out."""

from __future__ import annotations

import pytest

from corectl.errors import DevicesMissing, LoadFailed, OutOfMemory
from tests.core.simulated import GIB, MakeDevices, cpu, gpu, served, where
from tests.core.stories import HandRunner, make_model, play, unloads, until


def runs_out(runner: HandRunner) -> None:
    runner.loaded.set_exception(OutOfMemory("cannot allocate 77 bytes"))


def test_a_load_that_runs_out_of_memory_is_tried_smaller(devices: MakeDevices) -> None:
    """First a pool of one context, then a shorter context, then fewer layers; then it has failed."""

    async def story() -> None:
        it = devices(cpu(), gpu("x", 24 * GIB))
        held = it.hold()
        sizes = []
        for turn in range(3):
            runner = await it.runner(turn)
            placement = runner.load.placement
            sizes.append((placement.num_ctx, placement.cells, sum(placement.layers)))
            runs_out(runner)
        runner = await it.loaded(3)
        assert sizes == [(32768, 65536, 10), (32768, 32768, 10), (4096, 4096, 10)]
        assert runner.load.placement.num_ctx == 4096 and 0 < sum(runner.load.placement.layers) < 10
        notice, other = (await held.granted).notices
        assert notice.code == "reduced_load" and "context of 4096 tokens, a pool of 4096" in notice.message
        assert other.code == "cpu_fallback"
        again = it.hold()
        assert (await again.granted).runner is runner  # type: ignore[comparison-overlap]
        assert it.scheduler.stats.smaller_loads == 3 and it.scheduler.stats.loads == 1
        for request in (held, again):
            await request.let_go()
        await it.scheduler.shutdown()

    play(story())


def test_gpus_that_the_engine_does_not_find_are_done_without_and_that_is_said(devices: MakeDevices) -> None:
    async def story() -> None:
        it = devices(cpu(), gpu("x", 24 * GIB), gpu("y", 23 * GIB))
        held = it.hold()
        for turn, id in enumerate("xy"):
            runner = await it.runner(turn)
            assert list(where(runner)) == [id]
            runner.loaded.set_exception(DevicesMissing(f"no driver for {id}"))
        runner = await it.loaded(2)
        assert where(runner) == {} and runner.load.placement.num_ctx == 4096
        (notice,) = (await held.granted).notices
        assert notice.code == "cpu_fallback"
        assert "(x): no driver for x" in notice.message and "(y): no driver for y" in notice.message
        again = it.hold()
        assert (await again.granted).runner is runner  # type: ignore[comparison-overlap]
        for request in (held, again):
            await request.let_go()
        await it.scheduler.shutdown()

    play(story())


def test_gpus_that_the_engine_does_not_find_fail_a_load_that_requires_them(devices: MakeDevices) -> None:
    async def story() -> None:
        it = devices(cpu(), gpu("x", 24 * GIB), require_gpu=True)
        held = it.hold()
        (await it.runner(0)).loaded.set_exception(DevicesMissing("no driver"))
        with pytest.raises(LoadFailed, match=r"requires a GPU, but none can be used: .*\(x\): no driver"):
            await held.task
        assert len(HandRunner.started) == 1

    play(story())


def test_a_context_that_was_asked_for_stays_when_memory_runs_out(devices: MakeDevices) -> None:
    async def story() -> None:
        it = devices(cpu())
        held = it.hold(num_ctx=8192)
        runs_out(await it.runner(0))
        runs_out(await it.runner(1))
        with pytest.raises(OutOfMemory, match="cannot allocate 77 bytes"):
            await held.task
        assert [(r.load.placement.num_ctx, r.load.placement.cells) for r in HandRunner.started] == [
            (8192, 16384),
            (8192, 8192),
        ]
        assert it.scheduler.stats.load_failures == 1

    play(story())


def test_layers_that_were_asked_for_stay_when_memory_runs_out(devices: MakeDevices) -> None:
    async def story() -> None:
        it = devices(cpu(), gpu("x", 9 * GIB))
        held = it.hold(num_ctx=4096, num_gpu=6)
        for turn in range(2):
            runs_out(await it.runner(turn))
        with pytest.raises(OutOfMemory):
            await held.task
        assert [sum(runner.load.placement.layers) for runner in HandRunner.started] == [6, 6]

    play(story())


def test_the_other_models_go_before_anything_is_lowered(devices: MakeDevices) -> None:
    async def story() -> None:
        it = devices(cpu(), gpu("x", 24 * GIB), max_loaded_models=5)
        c = make_model(it.a.spec.weights.parent, "c")
        for number, model in enumerate((it.a, it.b)):
            _, held = await served(it, number, model, num_ctx=4096)
            await held.let_go()
        held = it.hold(c, num_ctx=4096)
        runs_out(await it.runner(2))
        runner = await it.loaded(3)
        assert unloads() == ["evicted", "evicted"]
        assert runner.load.placement.cells == 8192
        assert (await held.granted).notices == ()
        await held.let_go()
        await it.scheduler.shutdown()

    play(story())


def test_memory_that_runs_out_in_the_middle_of_work_clears_the_machine(devices: MakeDevices) -> None:
    async def story() -> None:
        it = devices(cpu(), max_loaded_models=5)
        _, held = await served(it, 0, it.a)
        await held.let_go()
        _, running = await served(it, 1, it.b)
        with pytest.raises(OutOfMemory):
            async with it.lease(it.b):
                raise OutOfMemory("while it computed")
        await until(lambda: unloads() == ["out of memory"])
        (shown,) = it.scheduler.loaded()
        assert shown.active == 1, "what runs may end"
        await running.let_go()
        await until(lambda: unloads() == ["out of memory"] * 2)
        await it.scheduler.shutdown()

    play(story())
