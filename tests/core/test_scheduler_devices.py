"""The scheduler on simulated devices: where models go, what makes room, and what a device takes with it."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import msgspec
import pytest

from corectl import deadline
from corectl.errors import BadRequest, LoadFailed
from corectl.hardware.inventory import Inventory
from corectl.messages import LoadOptions
from corectl.runner.engine import MemoryUse
from tests.core.simulated import GIB, MIB, MakeDevices, cpu, gpu, served, where
from tests.core.stories import HandRunner, play, unloads, until


def test_two_models_on_two_gpus(devices: MakeDevices) -> None:
    async def story() -> None:
        it = devices(cpu(), gpu("x", 2 * GIB), gpu("y", 2 * GIB))
        first, one = await served(it, 0, it.a)
        second, two = await served(it, 1, it.b)
        assert (where(first), where(second)) == ({"x": 10}, {"y": 10})
        shown = {model.record.name.model: model for model in it.scheduler.loaded()}
        assert [use.device for use in shown["a"].placement.estimated] == ["cpu", "x"]
        assert shown["a"].notices == () == shown["b"].notices
        for held in (one, two):
            await held.let_go()
        await it.scheduler.shutdown()

    play(story())


def test_a_full_gpu_makes_room_and_its_memory_is_waited_for(devices: MakeDevices) -> None:
    async def story() -> None:
        it = devices(cpu(), gpu("x", 2 * GIB))
        runner, held = await served(it, 0, it.a)
        await held.let_go()
        probes: list[int] = []
        seen = it.machine.devices

        def late() -> Any:
            """The driver gives memory back three looks after the runner has ended."""
            probes.append(len(probes))
            found = seen()
            if runner.ended.done() and len(probes) < 6:
                return [msgspec.structs.replace(d, memory_free=0) if d.id == "x" else d for d in found]
            return found

        it.machine.devices = late  # type: ignore[method-assign]
        try:
            other, held = await served(it, 1, it.b)
        finally:
            del it.machine.devices
        assert where(other) == {"x": 10} and unloads() == ["evicted"]
        assert len(probes) >= 6
        await held.let_go()
        await it.scheduler.shutdown()
        assert it.scheduler.stats.unloads == {"evicted": 1, "shutdown": 1}

    play(story())


def test_a_part_of_the_layers_is_said_with_each_lease_and_in_what_is_loaded(devices: MakeDevices) -> None:
    async def story() -> None:
        it = devices(cpu(), gpu("x", 600 * MIB))
        runner, held = await served(it, 0)
        assert where(runner) == {"x": 4}
        lease = await held.granted
        (shown,) = it.scheduler.loaded()
        assert lease.notices == shown.notices
        assert [notice.code for notice in shown.notices] == ["cpu_fallback"]
        await held.let_go()
        await it.scheduler.shutdown()

    play(story())


@pytest.mark.parametrize("library", ["", "cpu"])
def test_a_probe_that_hangs_or_raises_is_no_machine_without_gpus(devices: MakeDevices, library: str) -> None:
    async def story() -> None:
        it = devices(cpu(), llm_library=library)
        machine = it.scheduler.machine

        class Broken:
            name = "gpus"

            def devices(self) -> list[Any]:
                raise OSError("no driver")

        machine.inventory = Inventory({"machine": it.machine, "gpus": Broken()}, library)
        held = it.hold()
        await it.loaded(0)
        notices = (await held.granted).notices
        if library:
            assert notices == (), "nobody wants to know"
        else:
            (notice,) = notices
            assert notice.code == "cpu_fallback"
            assert notice.message.endswith(": the hardware probe gpus failed: OSError: no driver")
        await held.let_go()
        await it.scheduler.shutdown()

    play(story())


def test_a_probe_that_is_late_does_not_take_models_off_its_devices(
    devices: MakeDevices, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They stay where they are; new ones are loaded elsewhere until it answers again."""
    monkeypatch.setattr(deadline, "SECONDS", 0.05)
    answer = threading.Event()
    answer.set()

    async def story() -> None:
        it = devices(cpu(), gpu("x", 4 * GIB))

        class Cpus:
            name = "cpus"

            def devices(self) -> list[Any]:
                return [device for device in it.machine.devices() if device.kind == "cpu"]

        class Gpus:
            name = "gpus"

            def devices(self) -> list[Any]:
                answer.wait(10)
                return [device for device in it.machine.devices() if device.kind != "cpu"]

        it.scheduler.machine.inventory = Inventory({"cpus": Cpus(), "gpus": Gpus()})
        runner, held = await served(it, 0, it.a)
        await held.let_go()
        answer.clear()
        try:
            other, held = await served(it, 1, it.b)
        finally:
            answer.set()
        assert where(runner) == {"x": 10} and where(other) == {}
        assert sorted(entry.record.name.short for entry in it.scheduler.loaded()) == ["a:latest", "b:latest"]
        assert unloads() == []
        await held.let_go()
        await it.scheduler.shutdown()

    play(story())


def test_nothing_is_evicted_for_a_model_that_would_not_fit_even_then(devices: MakeDevices) -> None:
    async def story() -> None:
        it = devices(cpu())
        _, held = await served(it, 0, it.a, num_ctx=4096)
        await held.let_go()
        with pytest.raises(
            LoadFailed, match=r"requires more system memory \(\d+\.\d GiB\) than is available"
        ):
            await it.hold(it.b, num_ctx=2**20).task
        assert unloads() == [] and it.scheduler.stats.load_failures == 1
        await it.scheduler.shutdown()

    play(story())


def test_a_driver_that_fails_once_costs_no_model(devices: MakeDevices) -> None:
    async def story() -> None:
        it = devices(cpu(), gpu("x", 2 * GIB), gpu("y", 2 * GIB), max_loaded_models=5)
        first, held = await served(it, 0, it.a)
        assert where(first) == {"x": 10}
        await held.let_go()
        gone = it.machine.there.pop("x")
        await it.scheduler.plan(it.b, LoadOptions())
        loading = it.hold(it.b)
        await until(lambda: it.scheduler.stats.waiting == 1)
        it.machine.there["x"] = gone
        await it.loaded(1)
        await loading.granted
        assert unloads() == []
        await loading.let_go()
        await it.scheduler.shutdown()

    play(story())


def test_a_gpu_that_vanishes_takes_its_models_with_it(devices: MakeDevices) -> None:
    """Known at the next load; then they go, and the next request for them finds another place."""

    async def story() -> None:
        it = devices(cpu(), gpu("x", 2 * GIB), gpu("y", 2 * GIB), max_loaded_models=5)
        first, held = await served(it, 0, it.a)
        assert where(first) == {"x": 10}
        await held.let_go()
        del it.machine.there["x"]
        second, other = await served(it, 1, it.b)
        assert where(second) == {"y": 10}
        await until(lambda: unloads() == ["device lost"])
        await other.let_go()
        again, held = await served(it, 2, it.a)
        assert where(again) == {"y": 10} and unloads() == ["device lost", "evicted"]
        await held.let_go()
        await it.scheduler.shutdown()

    play(story())


def test_a_required_gpu(devices: MakeDevices) -> None:
    async def story() -> None:
        it = devices(cpu(), gpu("x", 600 * MIB), require_gpu=True)
        with pytest.raises(LoadFailed, match="requires all layers on GPUs, but the model requires 1"):
            await it.hold().task
        del it.machine.there["x"]
        with pytest.raises(LoadFailed, match="no GPU was found"):
            await it.hold().task
        with pytest.raises(LoadFailed, match="no GPU was found"):
            await it.hold(num_gpu=0).task
        assert HandRunner.started == []

    play(story())


def test_the_kind_of_device_and_the_index_of_one(devices: MakeDevices) -> None:
    async def story() -> None:
        it = devices(cpu(), gpu("x", 9 * GIB), gpu("y", 9 * GIB))
        runner, held = await served(it, 0, main_gpu=1)
        assert where(runner) == {"y": 10}
        await held.let_go()
        with pytest.raises(BadRequest, match='option "main_gpu" is 5, but there are 2 GPUs'):
            await it.hold(main_gpu=5).task
        await it.scheduler.shutdown()
        it = devices(cpu(), gpu("x", 9 * GIB), llm_library="cpu")
        HandRunner.started.clear()
        runner, held = await served(it, 0)
        assert where(runner) == {} and (await held.granted).notices == ()
        await held.let_go()
        await it.scheduler.shutdown()

    play(story())


def test_the_context_is_by_the_memory_of_the_gpus(devices: MakeDevices) -> None:
    async def contexts(*there: Any, **settings: Any) -> tuple[int, int]:
        it = devices(*there, **settings)
        _, context = await it.scheduler.machine.settle(it.a, LoadOptions())
        return context.num_ctx, it.scheduler.machine.max_loaded

    async def story() -> None:
        assert await contexts(cpu()) == (4096, 3)
        assert await contexts(cpu(), gpu("x", 24 * GIB)) == (32768, 3)
        assert await contexts(cpu(), gpu("x", 24 * GIB), gpu("y", 24 * GIB)) == (262144, 6)
        assert await contexts(cpu(), gpu("x", 24 * GIB), llm_library="cpu") == (4096, 3)
        assert await contexts(cpu(), gpu("x", 24 * GIB), context_length=500) == (500, 3)
        assert await contexts(cpu(), gpu("x", 24 * GIB), max_loaded_models=1, max_context=9000) == (9000, 1)
        with pytest.raises(BadRequest, match='option "num_ctx" is 9001'):
            await devices(cpu(), max_context=9000).hold(num_ctx=9001).task

    play(story())


def test_memory_that_is_promised_to_a_runner_is_not_given_twice(devices: MakeDevices) -> None:
    """Nothing has touched it yet, so the system says that it is free."""

    async def story() -> None:
        it = devices(cpu(2764 * MIB), max_loaded_models=5)
        held = it.hold(it.a, num_ctx=4096)
        (await it.runner(0)).loaded.set_result(None)
        await held.granted
        other = it.hold(it.b, num_ctx=4096)
        (await it.runner(1)).loaded.set_result(None)
        await other.granted
        first, second = HandRunner.started
        assert (first.load.placement.cells, second.load.placement.cells) == (8192, 4096)
        for request in (held, other):
            await request.let_go()
        await it.scheduler.shutdown()

    play(story())


def test_estimated_and_measured_memory_side_by_side(
    devices: MakeDevices, caplog: pytest.LogCaptureFixture
) -> None:
    async def story() -> None:
        it = devices(cpu(), gpu("x", 9 * GIB))
        held = it.hold(num_ctx=4096)
        runner = await it.runner(0)
        measured = (MemoryUse(device="cpu", weights=5 * MIB), MemoryUse(device="x", weights=GIB))
        runner.info = msgspec.structs.replace(runner.info, measured=measured)
        caplog.set_level("INFO")
        runner.loaded.set_result(None)
        await held.granted
        assert "cpu estimated 1.0 MiB, measured 5.0 MiB; x estimated 1.3 GiB, measured 1.0 GiB" in caplog.text
        (shown,) = it.scheduler.loaded()
        assert shown.info.measured == measured and shown.placement.estimated[0].total == MIB
        await held.let_go()
        await it.scheduler.shutdown()

    play(story())


def test_cores_are_shared_out_among_those_that_work(devices: MakeDevices) -> None:
    async def story() -> None:
        it = devices(cpu(), max_loaded_models=5)
        first, one = await served(it, 0, it.a)
        assert first.shares == [], "alone it has them all"
        second, two = await served(it, 1, it.b)
        assert (first.shares, second.shares) == ([4], [4])
        more = it.hold(it.a)
        await more.granted
        await more.let_go()
        assert first.shares == [4], "it works as before"
        await one.let_go()
        assert (first.shares, second.shares) == ([4], [4, 8])
        again = it.hold(it.a)
        await again.granted
        assert (first.shares, second.shares) == ([4], [4, 8, 4])
        for held in (two, again):
            await held.let_go()
        await it.scheduler.shutdown()

    play(story())


def test_threads_that_a_client_has_set_are_left_alone(devices: MakeDevices) -> None:
    async def story() -> None:
        it = devices(cpu(), max_loaded_models=5)
        first, one = await served(it, 0, it.a, num_thread=2)
        second, two = await served(it, 1, it.b)
        assert (first.shares, second.shares) == ([], [4])
        for held in (one, two):
            await held.let_go()
        await it.scheduler.shutdown()

    play(story())


def test_a_plan_is_what_a_load_does(devices: MakeDevices) -> None:
    async def story() -> None:
        it = devices(cpu(), gpu("x", 2 * GIB))
        planned = await it.scheduler.plan(it.a, LoadOptions(num_ctx=8192))
        assert planned.fits and not planned.evicts and HandRunner.started == []
        runner, held = await served(it, 0, it.a, num_ctx=8192)
        placement = runner.load.placement
        assert (planned.num_ctx, planned.cells) == (placement.num_ctx, placement.cells)
        assert [part.estimated for part in planned.devices] == [use.total for use in placement.estimated]
        assert await it.scheduler.plan(it.a, LoadOptions(num_ctx=8192)) == planned, (
            "its own memory is its own"
        )
        other = await it.scheduler.plan(it.b, LoadOptions(num_ctx=8192))
        assert other.fits and other.evicts and other.devices == planned.devices
        await held.let_go()
        await it.scheduler.shutdown()

    play(story())


def test_a_plan_while_others_come_and_go_changes_nothing(devices: MakeDevices) -> None:
    async def story() -> None:
        it = devices(cpu(), gpu("x", 2 * GIB))
        held = it.hold(it.a)
        await it.runner(0)
        planned = await it.scheduler.plan(it.b, LoadOptions())
        assert planned.evicts
        await it.loaded(0)
        await held.granted
        await asyncio.sleep(0)
        assert unloads() == [] and it.scheduler.stats.waiting == 0
        await held.let_go()
        await it.scheduler.shutdown()

    play(story())
