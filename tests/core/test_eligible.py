"""Which devices may be used, and what is said of those that may not."""

from __future__ import annotations

import asyncio

import pytest

from corectl.errors import BadRequest
from corectl.hardware.device import Device
from corectl.hardware.eligible import eligible, judge
from corectl.hardware.inventory import Inventory


def device(id: str, kind: str = "cuda", **changes: object) -> Device:
    return Device(id=id, kind=kind, name=id.upper(), memory_total=100, memory_free=50, **changes)  # type: ignore[arg-type]


CPU = device("cpu", "cpu", cores=6)
A, B, RED, BROKEN = device("a"), device("b"), device("r", "rocm"), device("x", unusable="old driver")


def test_all_that_a_backend_can_use_the_host_first() -> None:
    found = eligible([A, CPU, B])
    assert found.devices == (A, CPU, B) and found.reasons == ()
    assert found.host == CPU and found.accelerators == (A, B)
    assert eligible([A]).host is None


@pytest.mark.parametrize(
    ("variant", "kept"), [("", (A, RED)), ("cuda", (A,)), ("hip", (RED,)), ("rocm", (RED,)), ("cpu", ())]
)
def test_a_build_for_something_else_is_said(variant: str, kept: tuple[Device, ...]) -> None:
    found = eligible([CPU, A, RED], variant=variant)
    assert found.accelerators == kept
    assert len(found.reasons) == 2 - len(kept)
    assert all(f"computes on {variant}, not on" in reason for reason in found.reasons)


def test_what_is_unusable_is_said() -> None:
    found = eligible([CPU, BROKEN, A])
    assert found.accelerators == (A,) and found.reasons == ("X (x): old driver",)


def test_the_operators_choice_is_no_surprise() -> None:
    assert eligible([CPU, A, RED, BROKEN], library="rocm").accelerators == (RED,)
    found = eligible([CPU, A, BROKEN], variant="cpu", library="cpu")
    assert found.devices == (CPU,) and found.reasons == ()
    assert eligible([CPU, RED], library="cuda").reasons == ("no cuda device was found",)


def test_a_device_is_used_in_the_way_of_the_backend() -> None:
    """What keeps it from its own way says nothing about others."""
    old = device("old", "rocm", also=("vulkan",), unusable="ROCm does not know it", remedy="use Vulkan")
    (used,) = eligible([old], variant="vulkan").devices
    assert (used.id, used.kind, used.unusable, used.ways) == ("old", "vulkan", "", ("vulkan", "vulkan"))
    assert eligible([old], library="vulkan").devices == (used,)
    assert eligible([old], variant="hip").reasons == ("OLD (old): ROCm does not know it",)
    assert old.ways == ("vulkan",) and device("r", "rocm", also=("vulkan",)).ways == ("rocm", "vulkan")
    both = device("r", "rocm", also=("vulkan",))
    assert [used.kind for used in eligible([both], variant="hip").devices] == ["rocm"]
    assert "computes on hip, not on vulkan" in eligible([both], variant="hip", library="vulkan").reasons[0]


def test_a_kind_of_device_that_the_build_lacks_is_said() -> None:
    arc = Device(id="i", kind="vulkan", name="ARC", memory_total=1, memory_free=1, also=("sycl",))
    assert [device.kind for device in eligible([arc], variant="sycl", library="sycl").accelerators] == [
        "sycl"
    ]
    for variant in ("vulkan", "cuda", "cpu"):
        found = eligible([arc], variant=variant, library="sycl")
        assert found.accelerators == ()
        assert found.reasons == (
            f"ARC (i): the backend that is installed computes on {variant}, not on sycl",
        )
    assert eligible([A], variant="sycl", library="sycl").reasons == ("no sycl device was found",)


def test_a_gpu_without_memory_of_its_own_gives_way_to_others() -> None:
    small = device("small", "rocm", integrated=True)
    assert eligible([CPU, small]).accelerators == (small,)
    assert eligible([CPU, small, RED]).accelerators == (RED,)
    assert eligible([CPU, small, A], variant="hip").accelerators == (small,)


def test_what_nobody_misses_is_no_reason() -> None:
    hidden = device("h", unusable="hidden", hidden=True)
    small = device("small", "vulkan", integrated=True)
    assert eligible([CPU, hidden, small], variant="cpu").reasons == ()
    apple = device("apple", "metal", integrated=True)
    assert len(eligible([CPU, apple], variant="cpu").reasons) == 1


def test_a_verdict_on_each_device() -> None:
    found = judge([CPU, A, BROKEN, RED], variant="cuda")
    assert [(verdict.device.id, bool(verdict.reason)) for verdict in found] == [
        ("cpu", False),
        ("a", False),
        ("x", True),
        ("r", True),
    ]
    assert found[3].remedy == "install a build of the backend for rocm"
    assert judge([A], library="rocm")[0].remedy == "leave out OLLAMA_LLM_LIBRARY"


def test_one_accelerator_by_its_index() -> None:
    assert eligible([CPU, A, BROKEN, B], main_gpu=1).devices == (CPU, B)
    assert eligible([CPU], main_gpu=7).devices == (CPU,)
    for index in (-1, 2):
        with pytest.raises(BadRequest, match=rf'option "main_gpu" is {index}, but there are 2 GPUs'):
            eligible([CPU, A, B], main_gpu=index)
    with pytest.raises(BadRequest, match="there is 1 GPU, counted from 0"):
        eligible([CPU, A], main_gpu=1)


class Probe:
    name = "probe"

    def __init__(self, *devices: Device) -> None:
        self.reported = list(devices)
        self.asked = 0

    def devices(self) -> list[Device]:
        self.asked += 1
        if not self.reported:
            raise OSError("no driver")
        return self.reported


def test_the_inventory_asks_all_probes_and_survives_one_that_raises(
    caplog: pytest.LogCaptureFixture,
) -> None:
    first, second, broken = Probe(CPU), Probe(A, BROKEN, RED), Probe()
    inventory = Inventory({"1": first, "2": second, "0": broken}, library="cuda")
    assert inventory.devices is None and inventory.cores == 1
    reported = inventory.probe()
    assert reported == inventory.devices
    assert [(device.id, device.found_by) for device in reported] == [
        ("cpu", "1"),
        ("a", "2"),
        ("x", "2"),
        ("r", "2"),
    ]
    assert "hardware probe 0 failed" in caplog.text
    assert inventory.failures == {"0": "OSError: no driver"}
    assert [device.id for device in inventory.accelerators()] == ["a"]
    assert inventory.accelerators("cpu") == ()
    assert inventory.cores == 6
    second.reported = [B]
    inventory.probe()
    assert [device.id for device in inventory.accelerators()] == ["b"]


def test_those_who_come_first_share_one_question() -> None:
    async def story() -> None:
        probe = Probe(CPU)
        inventory = Inventory({"probe": probe})
        known = await asyncio.gather(*(inventory.known() for _ in range(5)))
        assert known == [inventory.devices] * 5
        await inventory.known()
        assert probe.asked == 1
        await inventory.refresh()
        assert probe.asked == 2

    asyncio.run(story())
