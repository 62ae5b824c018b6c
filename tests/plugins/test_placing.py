"""Where the default policy puts a model: simulated devices, and what lies on each of them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corectl.hardware.device import Device
from corectl.messages import LoadOptions
from corectl.runner.engine import CacheShape, LayerMemory, MemoryEstimate, Placement
from corectl.scheduler.policy import PlacementQuestion
from corectl_policies import DefaultPolicy
from corectl_policies.layers import deal, fill, most_layers, shares

CPU = Device(id="cpu", kind="cpu", name="cpu", memory_total=10_000, memory_free=10_000, cores=4)
LAYERS = 9
"""And a head, which counts as one more."""


def gpu(id: str, free: int, **changes: Any) -> Device:
    """Nine tenths of what is free may be planned with."""
    given = {"kind": "cuda", "memory_total": 20_000, "name": id, **changes}
    return Device(id=id, memory_free=free * 10 // 9, **given)


def place(
    *devices: Device, options: dict[str, Any] | None = None, vision: int = 0, **rules: Any
) -> Placement | None:
    """A model of 10 layers of 100 bytes, a cache of 10 bytes per layer and context, 50 for computing, 7 on the host."""
    estimate = MemoryEstimate(
        layers=(LayerMemory(weights=100, cell=10 / 4096),) * LAYERS,
        head=100,
        host=7,
        compute=50,
        vision=vision,
    )
    question = {
        "options": LoadOptions(num_ctx=4096, **(options or {})),
        "estimate": estimate,
        "shape": CacheShape(num_batch=512, max_sequences=16),
        "devices": (CPU, *devices),
        "num_parallel": 0,
        "embedding": False,
        "alone": False,
        **rules,
    }
    return DefaultPolicy().place(PlacementQuestion(**question))


def placed(*devices: Device, **how: Any) -> Placement:
    found = place(*devices, **how)
    assert found is not None
    return found


def where(placement: Placement) -> dict[str, int]:
    return dict(zip(placement.devices[1:], placement.layers, strict=True))


ONE_CONTEXT = 10 * 100 + 9 * 10 + 50
TWO_CONTEXTS = ONE_CONTEXT + 9 * 10


def test_one_accelerator_that_has_room() -> None:
    found = placed(gpu("a", TWO_CONTEXTS + 1))
    assert (found.devices, found.layers, found.cells) == (("cpu", "a"), (10,), 8192)
    host, there = found.estimated
    assert (host.device, host.total) == ("cpu", 7)
    assert (there.device, there.weights, there.cache, there.compute) == ("a", 1000, 180, 50)


def test_one_context_on_an_accelerator_is_better_than_two_elsewhere() -> None:
    found = placed(gpu("a", ONE_CONTEXT + 1))
    assert (where(found), found.cells) == ({"a": 10}, 4096)


def test_the_accelerator_with_the_most_room_of_those_where_it_fits() -> None:
    assert where(placed(gpu("a", 2000), gpu("b", 3000), gpu("c", 1000))) == {"b": 10}
    assert where(placed(gpu("a", 3000), gpu("b", 3000))) == {"a": 10}


def test_one_that_is_too_small_alone_shares_with_the_others() -> None:
    found = placed(gpu("a", 800), gpu("b", 800))
    assert where(found) == {"a": 5, "b": 5}
    assert [use.total for use in found.estimated] == [7, 5 * 120 + 50, 5 * 120 - 20 + 50]


def test_unequal_ones_are_filled_to_the_same_part() -> None:
    assert where(placed(gpu("a", 1000), gpu("b", 500))) == {"a": 7, "b": 3}


def test_spread_goes_to_all_even_if_one_would_do() -> None:
    assert where(placed(gpu("a", 9000), gpu("b", 9000), spread=True)) == {"a": 5, "b": 5}


def test_only_those_of_one_kind_compute_together() -> None:
    vulkan = gpu("v", 900, kind="vulkan")
    assert where(placed(gpu("a", 700), vulkan, gpu("b", 800))).keys() == {"a", "b"}
    assert place(gpu("a", 600), vulkan) is None


def test_those_that_compute_alone_never_share_a_model() -> None:
    parts = gpu("a", 800, alone=True), gpu("b", 700, alone=True)
    assert place(*parts) is None
    assert where(placed(*parts, alone=True)) == {"a": 6}
    assert where(placed(*parts, gpu("c", 650), gpu("d", 650))).keys() == {"c", "d"}
    assert where(placed(*parts, gpu("c", 100), gpu("d", 100), alone=True)) == {"a": 6}
    assert where(placed(gpu("a", 9000, alone=True), gpu("b", 9000, alone=True), spread=True)) == {"a": 10}
    assert placed(gpu("a", 0, alone=True), gpu("b", 0, alone=True), alone=True).devices == ("cpu",)


def test_what_lies_on_a_gpu_without_memory_of_its_own_lies_in_the_machines() -> None:
    shared = gpu("a", 9000, integrated=True)
    assert where(placed(shared)) == {"a": 10}
    for free, fits in ((1300, True), (1200, False)):
        machine = Device(id="cpu", kind="cpu", name="cpu", memory_total=free, memory_free=free)
        assert (place(devices=(machine, shared)) is not None) == fits
        assert place(devices=(machine, gpu("b", 9000))) is not None, "other memory is not the machine's"
    small = Device(id="cpu", kind="cpu", name="cpu", memory_total=1000, memory_free=1000)
    assert place(devices=(small, shared), alone=True) is None


def test_beside_others_all_layers_or_none() -> None:
    """The scheduler makes room first."""
    assert place(gpu("a", 500)) is None


def test_alone_as_many_of_the_last_layers_as_fit() -> None:
    found = placed(gpu("a", 500), alone=True)
    assert (where(found), found.cells) == ({"a": 4}, 4096)
    host, there = found.estimated
    assert there.total == 100 + 3 * 110 + 50 and host.total == 7 + 6 * 110 + 50
    assert where(placed(gpu("a", 300), gpu("b", 500), alone=True)) == {"a": 2, "b": 4}


def test_a_projector_has_room_beside_the_layers_that_are_offloaded() -> None:
    """Which are not the first of the model."""
    room = 50 + 250 + 100 + 2 * 110 - 1
    found = placed(gpu("x", room), alone=True, num_parallel=1, vision=250)
    assert where(found) == {"x": 2}
    assert found.estimated[1].total == 50 + 250 + 100 + 110


def test_alone_with_no_room_on_any_accelerator_the_cpu_computes_all() -> None:
    found = placed(gpu("a", 100), alone=True)
    assert (found.devices, found.layers) == (("cpu",), ())
    assert [use.device for use in found.estimated] == ["cpu"]


def test_what_does_not_lie_on_accelerators_must_fit_into_the_machine() -> None:
    small = Device(id="cpu", kind="cpu", name="cpu", memory_total=400, memory_free=400)
    assert place(alone=True, devices=(small, gpu("a", 500))) is None
    assert placed(devices=(small, gpu("a", 9000))).layers == (10,)


@pytest.mark.parametrize(("asked", "layers"), [(0, ()), (4, (4,)), (10, (10,)), (999, (10,))])
def test_the_number_of_layers_that_is_asked_for(asked: int, layers: tuple[int, ...]) -> None:
    found = placed(gpu("a", 9000), options={"num_gpu": asked})
    assert found.layers == layers
    assert found.devices == (("cpu", "a") if layers else ("cpu",))


def test_a_number_of_layers_is_obeyed_even_where_they_hardly_fit() -> None:
    assert place(gpu("a", 500), options={"num_gpu": 8}) is None
    assert where(placed(gpu("a", 500), options={"num_gpu": 8}, alone=True)) == {"a": 8}
    both = placed(gpu("a", 300), gpu("b", 550), options={"num_gpu": 9}, alone=True)
    assert where(both) == {"a": 3, "b": 6}


def test_memory_that_is_to_stay_free() -> None:
    """Of each accelerator."""
    assert where(placed(gpu("a", 1200))) == {"a": 10}
    assert place(gpu("a", 1200), overhead=200) is None
    assert where(placed(gpu("a", 1500), overhead=200)) == {"a": 10}


def test_unusable_accelerators_are_as_if_they_were_not_there() -> None:
    assert placed(gpu("a", 9000, unusable="old driver")).devices == ("cpu",)


COSTS = st.lists(st.integers(0, 100), max_size=12)
ROOMS = st.lists(st.integers(-50, 400), min_size=1, max_size=4)


@given(COSTS, ROOMS)
def test_dealing_never_overfills_and_loses_no_layer(costs: list[int], rooms: list[int]) -> None:
    found = deal(costs, rooms)
    assert (found is None) == (fill(costs, rooms) is None)
    if found is not None:
        assert sum(found) == len(costs) and len(found) == len(rooms)
        left = list(costs)
        for count, room in zip(found, rooms, strict=True):
            part, left = left[:count], left[count:]
            assert not part or sum(part) <= room


@given(COSTS, ROOMS)
def test_the_most_layers_are_the_last_ones_and_one_more_does_not_fit(
    costs: list[int], rooms: list[int]
) -> None:
    found = most_layers(costs, rooms)
    count = sum(found)
    assert fill(costs[len(costs) - count :], rooms) == found
    if count < len(costs):
        assert fill(costs[len(costs) - count - 1 :], rooms) is None


@given(COSTS, ROOMS, st.integers(0, 500))
def test_what_comes_with_the_first_of_the_layers_has_room_too(
    costs: list[int], rooms: list[int], beside: int
) -> None:
    found = most_layers(costs, rooms, beside_first=beside)
    count = sum(found)
    taken = costs[len(costs) - count :]
    if taken:
        assert fill([taken[0] + beside, *taken[1:]], rooms) == found


@given(COSTS, ROOMS)
def test_shares_take_all_layers_whatever_the_room(costs: list[int], rooms: list[int]) -> None:
    found = shares(costs, rooms)
    assert sum(found) == len(costs) and len(found) == len(rooms) and min(found) >= 0
