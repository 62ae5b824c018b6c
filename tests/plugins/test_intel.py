"""What is said of Intel GPUs: on machines that are folders with what Linux's drivers write."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

import corectl_intel
from corectl.hardware import vulkan
from corectl.hardware.device import Device
from corectl.hardware.eligible import eligible
from corectl.hardware.ram import Memory
from corectl_intel import IntelProbe, corectl_hardware_probes, memory
from tests.plugins.sysfs import GIB, Tree

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads what Linux's drivers say")

ARC, PROCESSORS = "0000:03:00.0", "0000:00:02.0"
WINDOWS = (
    "0x00000000a0000000 0x00000000a0ffffff 0x0000000000140204\n"
    "0x0000000000000000 0x0000000000000000 0x0000000000000000\n"
    "0x0000004000000000 {last} 0x000000000014220c\n"
)
"""What a card shows: registers, nothing, and its memory."""


class Machine(Tree):
    def intel(
        self, address: str, driver: str = "i915", render: int = 128, files: Mapping[str, object] | None = None
    ) -> None:
        self.card(address, 0x8086, 0x56A0, driver, render, files)

    def devices(self) -> list[Device]:
        return IntelProbe(self.root).devices()


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    for name in vulkan._VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(memory, "machine_memory", lambda: Memory(32 * GIB, 10 * GIB, 0))
    tree = Machine(tmp_path)
    tree.vulkan("intel")
    return tree


def test_it_is_offered_by_its_name() -> None:
    assert [probe.name for probe in corectl_hardware_probes()] == ["intel"]


def test_a_machine_without_cards_says_nothing_and_is_quick(machine: Machine) -> None:
    begin = time.monotonic()
    machine.card(ARC, 0x1002, 0x744C, "amdgpu")
    machine.card("0000:00:1f.3", 0x8086, 0x7AD0, "snd_hda_intel", 0, {"class": "0x040300"})
    # The NPU of a processor, with its driver and without.
    machine.card("0000:00:0b.0", 0x8086, 0x7D1D, "intel_vpu", 0, {"class": "0x120000"})
    machine.card("0000:00:0c.0", 0x8086, 0x643E, "", 0, {"class": "0x120000"})
    assert machine.devices() == []
    assert time.monotonic() - begin < 1


def test_a_card_whose_driver_tells_its_memory(machine: Machine) -> None:
    tiles = {f"tile{number}/physical_vram_size_bytes": 8 * GIB for number in (0, 1)}
    machine.intel(ARC, "xe", files=tiles)
    machine.write({"usr/share/hwdata/pci.ids": "8086  Intel\n\t56a0  DG2 [Arc A770]\n"})
    assert machine.devices() == [
        Device(
            id=ARC,
            kind="vulkan",
            name="Intel Arc A770",
            memory_total=16 * GIB,
            memory_free=16 * GIB,
            driver="xe",
            also=("sycl",),
        )
    ]


def test_memory_that_some_versions_of_i915_tell(machine: Machine) -> None:
    machine.intel(ARC, files={"drm/card0/lmem_total_bytes": 6 * GIB})
    assert machine.devices()[0].memory_total == 6 * GIB


def test_memory_that_the_processor_sees(machine: Machine) -> None:
    machine.intel(ARC, files={"resource": WINDOWS.format(last=hex(0x4000000000 + 16 * GIB - 1))})
    (device,) = machine.devices()
    assert device.memory_total == 16 * GIB and device.ways == ("vulkan", "sycl")


@pytest.mark.parametrize(
    "resource", [WINDOWS.format(last="0x400fffffff"), "", "x\n\n0x1\n0x9 0x1 0x1", "f" * 9999]
)
def test_a_card_with_a_small_window(machine: Machine, resource: str) -> None:
    machine.intel(ARC, files={"resource": resource})
    (device,) = machine.devices()
    assert "of its memory can be seen" in device.unusable and "Resizable BAR" in device.remedy
    assert device.ways == ()


def test_a_gpu_of_a_processor_may_use_most_of_the_machines_memory(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.intel(PROCESSORS)
    (device,) = machine.devices()
    assert device.integrated and (device.memory_total, device.memory_free) == (24 * GIB, 10 * GIB)
    monkeypatch.setattr(memory, "machine_memory", lambda: Memory(4 * GIB, 3 * GIB, 0))
    assert machine.devices()[0].memory_total == 2 * GIB


def test_it_gives_way_to_a_card_beside_it(machine: Machine) -> None:
    machine.intel(PROCESSORS)
    machine.intel(ARC, "xe", 129, {"tile0/physical_vram_size_bytes": 8 * GIB})
    for variant in ("vulkan", "sycl"):
        (used,) = eligible(machine.devices(), variant=variant).accelerators
        assert (used.id, used.kind) == (ARC, variant)


# Reasons


def test_without_a_vulkan_driver_there_is_sycl(machine: Machine) -> None:
    machine.intel(PROCESSORS)
    for file in (machine.root / "usr/share/vulkan/icd.d").iterdir():
        file.unlink()
    (device,) = machine.devices()
    assert "no Vulkan driver" in device.unusable and "mesa-vulkan-drivers" in device.remedy
    assert device.ways == ("sycl",)


def test_files_that_may_not_be_used(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.intel(PROCESSORS)
    node = machine.root / "dev/dri/renderD128"
    if os.geteuid() == 0:  # who may use everything
        monkeypatch.setattr(corectl_intel, "may_use", lambda path: path != node)
    else:
        node.chmod(0)
    (device,) = machine.devices()
    assert device.unusable == "this user may not use /dev/dri/renderD128" and device.ways == ()
    assert "sudo usermod -aG render,video $USER" in device.remedy


def test_files_that_are_not_there(machine: Machine) -> None:
    machine.intel(PROCESSORS)
    (machine.root / "dev/dri/renderD128").unlink()
    (device,) = machine.devices()
    assert device.unusable == "/dev/dri/renderD128 is not there" and "--device /dev/dri" in device.remedy
    machine.intel("0000:00:02.1", "xe", 0)
    assert machine.devices()[1].unusable == "its driver offers nothing to compute with"


def test_a_card_without_driver(machine: Machine) -> None:
    machine.intel(ARC, "", 0)
    (device,) = machine.devices()
    assert (device.name, device.unusable) == ("Intel GPU 56a0", "no driver has taken it")
    assert "modprobe i915" in device.remedy
