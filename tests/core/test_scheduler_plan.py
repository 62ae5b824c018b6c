"""What is decided for a load, and what a plan shows of it: the default policy on simulated devices."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from corectl.config import Settings
from corectl.errors import BadRequest, LoadFailed
from corectl.hardware.device import Device
from corectl.hardware.eligible import Eligible
from corectl.messages import LoadOptions
from corectl.runner.engine import CacheShape, LayerMemory, MemoryEstimate
from corectl.scheduler.context import GIB, Context
from corectl.scheduler.plan import Decision, FitPlan, Wish, decide, plan, size
from corectl_policies import DefaultPolicy

MIB = 2**20
POLICY = DefaultPolicy()
LAYERS = 9


def estimate(shape: CacheShape) -> MemoryEstimate:
    """Ten layers of 100 MiB with their head, 1 MiB of cache for each 256 tokens and layer, 50 MiB for computing."""
    layer = LayerMemory(weights=100 * MIB, cell=MIB / 256)
    return MemoryEstimate(layers=(layer,) * LAYERS, head=100 * MIB, host=10 * MIB, compute=50 * MIB)


def cpu(free: int, total: int = 8 * GIB, **changes: Any) -> Device:
    return Device(id="cpu", kind="cpu", name="CPU", memory_total=total, memory_free=free, cores=4, **changes)


def gpu(free: int, id: str = "g") -> Device:
    return Device(id=id, kind="cuda", name=f"GPU {id}", memory_total=24 * GIB, memory_free=free)


def wish(
    num_ctx: int, *, automatic: bool = False, options: dict[str, Any] | None = None, **settings: Any
) -> Wish:
    return Wish(
        options=LoadOptions(num_ctx=num_ctx, **(options or {})),
        context=Context(num_ctx, automatic),
        embedding=False,
        settings=Settings(**settings),
    )


def decided(wanted: Wish, *devices: Device, alone: bool = True, reasons: tuple[str, ...] = ()) -> Decision:
    return decide(POLICY, wanted, Eligible(devices=devices, reasons=reasons), estimate, alone=alone)


def planned(wanted: Wish, *now: Device, empty: tuple[Device, ...] | None = None, trained: int = 0) -> FitPlan:
    found = Eligible(devices=now)
    without = Eligible(devices=now if empty is None else empty)
    return plan(POLICY, wanted, found, without, estimate, trained=trained)


def test_numa_is_a_setting() -> None:
    for numa in (False, True):
        placement = decided(wish(4096, numa=numa), cpu(8 * GIB)).placement
        assert placement is not None and placement.numa is numa


def test_what_fits_is_said_without_ado() -> None:
    found = decided(wish(4096), cpu(4 * GIB))
    assert found.placement is not None and found.notices == () and found.error is None
    assert (found.placement.num_ctx, found.placement.cells) == (4096, 8192)


def test_a_context_that_nobody_set_is_lowered_until_all_layers_are_on_the_accelerator() -> None:
    """32768 tokens take 1152 MiB of cache; 2 GiB do not hold that and the weights."""
    found = decided(wish(32768, automatic=True), cpu(4 * GIB), gpu(2 * GIB))
    assert found.placement is not None
    assert (found.placement.num_ctx, found.placement.layers) == (4096, (10,))
    (notice,) = found.notices
    assert notice.code == "reduced_load" and "4096 tokens instead of 32768" in notice.message


def test_a_context_that_was_asked_for_is_never_lowered() -> None:
    found = decided(wish(32768), cpu(4 * GIB), gpu(2 * GIB))
    assert found.placement is not None and found.placement.num_ctx == 32768
    assert 0 < sum(found.placement.layers) < 10
    (notice,) = found.notices
    assert notice.code == "cpu_fallback"
    left = 10 - sum(found.placement.layers)
    assert notice.message == f"{left} of 10 layers are computed by the CPU: there is no room for more of them"


def test_a_context_is_not_lowered_for_a_few_layers_more() -> None:
    found = decided(wish(32768, automatic=True), cpu(4 * GIB), gpu(GIB))
    assert found.placement is not None and found.placement.num_ctx == 32768
    assert [notice.code for notice in found.notices] == ["cpu_fallback"]


def test_beside_others_nothing_is_lowered_because_others_may_go() -> None:
    found = decided(wish(32768, automatic=True), cpu(4 * GIB), gpu(2 * GIB), alone=False)
    assert found == Decision()


def test_a_cpu_that_computes_though_there_is_a_gpu_is_said_why() -> None:
    found = decided(wish(4096), cpu(4 * GIB), reasons=("GPU g (g): old driver",))
    (notice,) = found.notices
    assert notice.code == "cpu_fallback"
    assert notice.message == "10 of 10 layers are computed by the CPU: GPU g (g): old driver"


@pytest.mark.parametrize("layers", [0, 4])
def test_layers_on_the_cpu_because_the_client_wants_it_are_no_news(layers: int) -> None:
    found = decided(wish(4096, options={"num_gpu": layers}), cpu(4 * GIB), gpu(20 * GIB))
    assert found.placement is not None and sum(found.placement.layers) == layers
    assert found.notices == ()


def test_more_than_the_machine_has() -> None:
    found = decided(wish(4096), cpu(MIB, total=500 * MIB, swap=100 * MIB))
    assert isinstance(found.error, LoadFailed)
    assert found.error.message == (
        "model requires more system memory (1.2 GiB) than is available (600.0 MiB)"
    )
    assert decided(wish(4096), cpu(MIB, total=500 * MIB), alone=False) == Decision()


def test_a_required_gpu_that_is_not_there() -> None:
    for alone in (True, False):
        found = decided(wish(4096, require_gpu=True), cpu(4 * GIB), alone=alone)
        assert isinstance(found.error, LoadFailed) and found.placement is None
        assert found.error.message.endswith("none can be used: no GPU was found")
    found = decided(wish(4096, require_gpu=True), cpu(4 * GIB), reasons=("GPU g (g): old driver",))
    assert found.error is not None and found.error.message.endswith("GPU g (g): old driver")


def test_a_required_gpu_that_is_too_small() -> None:
    small = (cpu(4 * GIB), gpu(GIB))
    assert decided(wish(4096, require_gpu=True), *small, alone=False) == Decision(), "others may go"
    found = decided(wish(4096, require_gpu=True), *small)
    assert found.error is not None
    assert found.error.message == (
        "this server requires all layers on GPUs, but the model requires 1.2 GiB of GPU memory, "
        "and GPU g has 1.0 GiB free"
    )
    assert decided(wish(4096, require_gpu=True), cpu(4 * GIB), gpu(4 * GIB)).placement is not None


@pytest.mark.parametrize("layers", [0, 9])
def test_a_required_gpu_and_a_client_that_wants_less(layers: int) -> None:
    wanted = wish(4096, options={"num_gpu": layers}, require_gpu=True)
    found = decided(wanted, cpu(4 * GIB), gpu(20 * GIB), alone=False)
    assert isinstance(found.error, BadRequest) and f'option "num_gpu" is {layers}' in found.error.message


def test_settings_reach_the_policy() -> None:
    two = (cpu(4 * GIB), gpu(20 * GIB, "a"), gpu(20 * GIB, "b"))
    found = decided(wish(4096, sched_spread=True, num_parallel=3, cache_memory=77), *two).placement
    assert found is not None
    assert (found.layers, found.cells, found.snapshots) == ((5, 5), 3 * 4096, 77)
    assert decided(wish(4096, gpu_overhead=20 * GIB), *two).notices != ()


def test_saved_states_get_no_more_than_half_of_what_is_left() -> None:
    roomy = decided(wish(4096, cache_memory=GIB), cpu(8 * GIB)).placement
    assert roomy is not None and roomy.snapshots == GIB
    short = decided(wish(4096, cache_memory=GIB), cpu(1400 * MIB)).placement
    assert short is not None
    assert short.snapshots == (1400 * MIB - sum(use.total for use in short.estimated)) // 2 < GIB
    assert planned(wish(4096, cache_memory=GIB), cpu(8 * GIB), trained=4096).snapshots == GIB


def test_a_plan_of_what_fits_on_the_accelerator() -> None:
    found = planned(wish(4096), cpu(4 * GIB), gpu(2 * GIB), trained=262_144)
    assert found.fits and not found.evicts and found.reason == ""
    assert (found.num_ctx, found.cells, found.layers) == (4096, 8192, 10)
    host, there = found.devices
    assert (host.id, host.layers, host.estimated) == ("cpu", 0, 10 * MIB)
    assert (there.id, there.layers, there.free) == ("g", 10, 2 * GIB)
    assert there.weights == 1000 * MIB and there.cache == 9 * 32 * MIB and there.compute == 50 * MIB


@pytest.mark.parametrize("device", ["cpu", "gpu"])
def test_the_largest_context_fits_and_one_step_more_does_not(device: str) -> None:
    devices = (cpu(2 * GIB),) if device == "cpu" else (cpu(4 * GIB), gpu(2 * GIB))
    largest = planned(wish(4096), *devices, trained=262_144).largest_ctx
    assert 8192 < largest < 32768 and largest % 256 == 0

    def whole(num_ctx: int) -> bool:
        found = planned(wish(num_ctx), *devices)
        return found.fits and not found.notices

    assert whole(largest) and not whole(largest + 256)


def test_the_largest_context_is_what_the_model_was_trained_for_or_the_server_allows() -> None:
    room = (cpu(4 * GIB), gpu(20 * GIB))
    assert planned(wish(4096), *room, trained=5000).largest_ctx == 5000
    assert planned(wish(4096, max_context=4500), *room, trained=5000).largest_ctx == 4500


def test_a_plan_of_a_model_that_fits_only_when_others_have_gone() -> None:
    found = planned(wish(4096), cpu(MIB), empty=(cpu(4 * GIB),))
    assert found.fits and found.evicts
    assert found.devices[0].free == 4 * GIB


def test_a_plan_of_a_model_that_fits_in_no_case() -> None:
    found = planned(wish(4096), cpu(MIB, total=500 * MIB))
    assert not found.fits and not found.evicts and found.devices == ()
    assert found.reason.startswith("model requires more system memory") and found.largest_ctx == 0


def test_a_plan_of_a_model_that_would_only_be_tried() -> None:
    """More than is free, but less than the machine has: the system may make room."""
    found = planned(wish(4096), cpu(500 * MIB))
    assert not found.fits and found.reason == "" and found.devices[0].estimated > 500 * MIB


def test_a_plan_of_a_part_on_the_accelerator() -> None:
    found = planned(wish(32768), cpu(4 * GIB), gpu(600 * MIB), trained=262_144)
    assert found.fits and 0 < found.devices[1].layers < 10
    assert found.devices[0].layers == 0 and found.largest_ctx > 32768
    assert [notice.code for notice in found.notices] == ["cpu_fallback"]


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (5.6 * 2**30, "5.6 GiB"), (2**20, "1.0 MiB")],
)
def test_sizes(count: float, text: str) -> None:
    assert size(count) == text


def test_a_plan_is_plain_data() -> None:
    found = planned(wish(4096), cpu(4 * GIB), gpu(2 * GIB))
    assert msgspec.json.decode(msgspec.json.encode(found), type=FitPlan) == found
