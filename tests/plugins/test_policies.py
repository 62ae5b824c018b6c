"""The default policy: pure, so its rules are a table."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from corectl.hardware.device import Device
from corectl.messages import LoadOptions
from corectl.runner.engine import CacheShape, LayerMemory, MemoryEstimate, Placement
from corectl.scheduler.policy import PlacementQuestion, Resident, WaitingRequest
from corectl_policies import DefaultPolicy, corectl_scheduler_policies

POLICY = DefaultPolicy()
CPU = Device(id="cpu", kind="cpu", name="cpu", memory_total=2000, memory_free=1000, cores=4)


def place(
    *,
    weights: int = 100,
    cache: int = 100,
    compute: int = 0,
    devices: tuple[Device, ...] = (CPU,),
    parallel: int = 0,
    embedding: bool = False,
    alone: bool = False,
    **options: Any,
) -> Placement | None:
    return POLICY.place(
        PlacementQuestion(
            options=LoadOptions(**{"num_ctx": 4096, **options}),
            # `cache` bytes for a context of 4096.
            estimate=MemoryEstimate(
                layers=(LayerMemory(weights=weights, cell=cache / 4096),), compute=compute
            ),
            shape=CacheShape(num_batch=512, max_sequences=parallel or 16),
            devices=devices,
            num_parallel=parallel,
            embedding=embedding,
            alone=alone,
        )
    )


def placed(**how: Any) -> Placement:
    found = place(**how)
    assert found is not None
    return found


def resident(model: str, keep_alive: float, *, active: int = 0, idle: float = 0.0) -> Resident:
    return Resident(model=model, active=active, keep_alive=keep_alive, idle=idle, memory=1)


def test_it_is_offered_by_its_name() -> None:
    assert [policy.name for policy in corectl_scheduler_policies()] == ["default"]


def test_first_come_first_served() -> None:
    waiting = [WaitingRequest(id=id, model="m", waited=waited) for id, waited in ((7, 1.0), (3, 9.0))]
    assert POLICY.next_request(waiting) == 7


@pytest.mark.parametrize(
    ("models", "goes"),
    [
        ([resident("a", 1, active=1), resident("b", 2)], "b"),
        ([resident("a", 1, active=1), resident("b", 2, active=1)], "a"),
        ([resident("a", 5), resident("b", 2)], "b"),
        ([resident("b", 5), resident("a", 5)], "a"),
        ([resident("a", float("inf")), resident("b", 9)], "b"),
        ([resident("a", 0, active=9), resident("b", float("inf"))], "b"),
    ],
)
def test_idle_models_with_a_short_keep_alive_go_first(models: list[Resident], goes: str) -> None:
    assert POLICY.evict(models) == goes
    assert POLICY.evict(models[::-1]) == goes


def test_the_pool_holds_two_contexts_where_there_is_room() -> None:
    found = placed()
    assert (found.num_ctx, found.cells, found.max_sequences) == (4096, 2 * 4096, 16)
    assert (found.num_batch, found.num_thread, found.layers, found.use_mmap) == (512, 4, (), True)
    assert found.devices == ("cpu",)


def test_the_pool_is_smaller_before_anything_is_evicted() -> None:
    """900 of the 1000 free bytes may be planned with."""
    assert placed(weights=700, cache=100).cells == 2 * 4096
    assert placed(weights=701, cache=100).cells == 4096
    assert placed(weights=700, cache=100, compute=1).cells == 4096
    assert placed(weights=800, cache=100).cells == 4096
    assert place(weights=801, cache=100) is None


def test_what_the_operator_has_set_is_never_lowered() -> None:
    found = placed(parallel=4, cache=10)
    assert (found.cells, found.max_sequences) == (4 * 4096, 4)
    assert place(parallel=9, cache=100) is None
    assert placed(parallel=9, cache=100, alone=True).cells == 9 * 4096


def test_alone_it_is_tried_if_the_machine_has_the_memory_at_all() -> None:
    """2000 bytes, of which others use some now, and 500 of swap space."""
    swapping = msgspec.structs.replace(CPU, swap=500)
    assert placed(weights=1900, alone=True).cells == 4096
    assert place(weights=1901, alone=True) is None
    assert placed(weights=2400, alone=True, devices=(swapping,)).cells == 4096
    assert place(weights=2401, alone=True, devices=(swapping,)) is None
    assert placed(devices=(), alone=True).devices == ()
    assert place(devices=()) is None


def test_devices_that_cannot_be_used_do_not_count() -> None:
    broken = Device(
        id="gpu", kind="cuda", name="gpu", memory_total=10**9, memory_free=10**9, unusable="old driver"
    )
    assert place(weights=5000, devices=(CPU, broken)) is None
    assert placed(devices=(CPU, broken)).devices == ("cpu",)


def test_options_of_the_request() -> None:
    found = placed(num_ctx=128, num_thread=3, use_mmap=False)
    assert (found.num_ctx, found.num_thread, found.fixed_threads, found.use_mmap) == (128, 3, True, False)
    assert placed(use_mmap=True).use_mmap


@pytest.mark.parametrize("cores", [0, None])
def test_there_is_always_a_thread(cores: int | None) -> None:
    """Cores may not be known, and there may be no processor among the devices at all."""
    unknown = Device(id="cpu", kind="cpu", name="cpu", memory_total=2000, memory_free=1000)
    assert placed(devices=() if cores is None else (unknown,), alone=True).num_thread == 1
