"""What is said of AMD GPUs: on machines that are folders with what Linux's driver writes."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

from corectl.hardware import vulkan
from corectl.hardware.device import Device
from corectl.hardware.eligible import eligible
from corectl_amd import AmdProbe, corectl_hardware_probes, devices
from corectl_amd.targets import nearest, override, supported
from corectl_amd.visible import arranged
from tests.plugins.sysfs import GIB, Tree

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads what Linux's driver says")


class Machine(Tree):
    """One with KFD: node 0 is its processor, and GPUs follow."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self._gpus = 0

    def node(self, number: int, **properties: int) -> None:
        lines = "\n".join(f"{name} {value}" for name, value in properties.items())
        self.write({f"sys/class/kfd/kfd/topology/nodes/{number}/properties": lines})

    def gpu(
        self,
        version: int,
        *,
        unique: int = 0,
        total: int = 16 * GIB,
        used: int = GIB,
        cores: int = 0,
        **files: object,
    ) -> None:
        if not self._gpus:
            self.node(0, cpu_cores_count=8, simd_count=0)
            self.write({"dev/kfd": ""})
        self._gpus += 1
        place, render = self._gpus, 127 + self._gpus
        self.node(
            place,
            cpu_cores_count=cores,
            simd_count=64,
            gfx_target_version=version,
            unique_id=unique,
            location_id=place << 8,
            domain=0,
            device_id=0x744C,
            drm_render_minor=render,
        )
        memory = {"mem_info_vram_total": total, "mem_info_vram_used": used}
        self.card(f"0000:{place:02x}:00.0", 0x1002, 0x744C, "amdgpu", render, {**memory, **files})

    def devices(self, **environment: str) -> list[Device]:
        return AmdProbe(self.root, environment).devices()


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    for name in vulkan._VARIABLES:
        monkeypatch.delenv(name, raising=False)
    return Machine(tmp_path)


def test_it_is_offered_by_its_name() -> None:
    assert [probe.name for probe in corectl_hardware_probes()] == ["amd"]


def test_a_machine_without_cards_says_nothing_and_is_quick(machine: Machine) -> None:
    begin = time.monotonic()
    assert machine.devices() == []
    machine.node(0, cpu_cores_count=8, simd_count=0)
    machine.card("0000:00:02.0", 0x8086, 0x56A0, "i915")
    assert machine.devices() == []
    assert time.monotonic() - begin < 1


def test_a_gpu_with_memory_of_its_own(machine: Machine) -> None:
    machine.gpu(110000, unique=0xABCDEF, used=3 * GIB)
    assert machine.devices() == [
        Device(
            id="GPU-0000000000abcdef",
            kind="rocm",
            name="AMD GPU gfx1100",
            memory_total=16 * GIB,
            memory_free=13 * GIB,
            driver="amdgpu",
            architecture="gfx1100",
        )
    ]


def test_names_and_versions_where_they_are_told(machine: Machine) -> None:
    machine.gpu(90010, product_name="AMD Instinct MI210")
    machine.gpu(110000)
    machine.write(
        {
            "sys/module/amdgpu/version": "6.12.12",
            "usr/share/misc/pci.ids": "1002  AMD\n\t744c  Navi 31 [Radeon RX 7900 XTX]\n",
        }
    )
    first, second = machine.devices()
    assert (first.name, first.architecture, first.driver) == (
        "AMD Instinct MI210",
        "gfx90a",
        "amdgpu 6.12.12",
    )
    assert second.name == "AMD Radeon RX 7900 XTX"
    assert (first.id, second.id) == ("0", "1"), "without a UUID, the index stands for it"


@pytest.mark.parametrize(("version", "cores"), [(110003, 0), (110000, 8)])
def test_a_gpu_of_a_processor_may_use_the_machines_memory(machine: Machine, version: int, cores: int) -> None:
    shared = {"mem_info_gtt_total": 2**20, "mem_info_gtt_used": 2**19}
    machine.gpu(version, total=512, used=256, cores=cores, **shared)
    (device,) = machine.devices()
    assert device.integrated and device.memory_total == 512 + 2**20
    assert device.memory_free == 256 + 2**19


def test_a_gpu_without_known_memory_is_not_used(machine: Machine) -> None:
    machine.gpu(110000, total=0)
    (device,) = machine.devices()
    assert "how much memory" in device.unusable and device.remedy


def test_parts_of_one_gpu_are_told_by_their_indices(machine: Machine) -> None:
    for unique in (7, 7, 8):
        machine.gpu(90402, unique=unique)
    assert [device.id for device in machine.devices()] == ["0", "1", "GPU-0000000000000008"]


def test_an_old_kernel(machine: Machine) -> None:
    """It does not tell targets, but indices count such GPUs too."""
    machine.gpu(0)
    machine.gpu(90000)
    first, second = machine.devices(ROCR_VISIBLE_DEVICES="0,1")
    assert first.unusable == "the kernel does not tell its gfx target" and first.remedy
    assert (second.id, second.unusable) == ("1", "")


# What ROCm computes on


def test_a_target_that_is_not_supported(machine: Machine) -> None:
    machine.gpu(80003, unique=1)
    machine.gpu(100304, unique=2)
    old, close = machine.devices()
    assert old.unusable == "ROCm does not support gfx803 here" and "Vulkan" in old.remedy
    assert close.unusable == "ROCm does not support gfx1034 here"
    assert "HSA_OVERRIDE_GFX_VERSION_2=10.3.0" in close.remedy


@pytest.mark.parametrize(
    "environment",
    [
        {"HSA_OVERRIDE_GFX_VERSION": "10.3.0"},
        {"HSA_OVERRIDE_GFX_VERSION_1": "10.3.0", "HSA_OVERRIDE_GFX_VERSION": "1.2.3"},
    ],
)
def test_an_override(machine: Machine, environment: dict[str, str]) -> None:
    machine.gpu(100304)
    (device,) = machine.devices(**environment)
    assert (device.unusable, device.architecture) == ("", "gfx1034")


def test_an_override_of_another_gpu_is_none(machine: Machine) -> None:
    machine.gpu(100304)
    machine.gpu(100304)
    first, second = machine.devices(HSA_OVERRIDE_GFX_VERSION_2="10.3.0")
    assert first.unusable and not second.unusable


@pytest.mark.parametrize("value", ["", "gfx1030", "10.3", "10.3.0 ", "10.3.0.0", "-1.0.0", "9" * 6000])
def test_an_override_that_is_no_version(machine: Machine, value: str) -> None:
    machine.gpu(110000)
    (device,) = machine.devices(HSA_OVERRIDE_GFX_VERSION=value)
    assert "is no version" in device.unusable and device.remedy and len(device.unusable) < 120


def test_an_override_with_what_is_not_supported_either(machine: Machine) -> None:
    machine.gpu(110000)
    (device,) = machine.devices(HSA_OVERRIDE_GFX_VERSION="8.0.3")
    assert device.unusable == "HSA_OVERRIDE_GFX_VERSION=8.0.3, but ROCm does not support gfx803 here"
    assert "9.0.10 (gfx90a)" in device.remedy


def test_the_rocm_that_is_installed_says_what_it_computes_on(machine: Machine) -> None:
    folder = "opt/rocm/lib/rocblas/library"
    names = ("Kernels.so-000-gfx90a-xnack+.hsaco", "TensileLibrary_lazy_gfx1201.dat", "TensileManifest.txt")
    machine.write({f"{folder}/{name}": "" for name in names})
    machine.gpu(110000)
    machine.gpu(120001)
    machine.gpu(90010)
    assert [bool(device.unusable) for device in machine.devices()] == [True, False, False]
    assert supported(machine.root) == {(9, 0, 10), (12, 0, 1)}


def test_the_nearest_target() -> None:
    known = {(10, 3, 0), (11, 0, 0), (11, 0, 2)}
    assert nearest((11, 0, 3), known) == (11, 0, 2) and nearest((10, 3, 6), known) == (10, 3, 0)
    assert nearest((10, 1, 0), known) is None and nearest((12, 0, 0), known) is None


def test_the_number_of_an_override_goes_first() -> None:
    both = {"HSA_OVERRIDE_GFX_VERSION_3": "9.0.0", "HSA_OVERRIDE_GFX_VERSION": "10.3.0"}
    assert override(3, both)[0] == (9, 0, 0) and override(1, both)[0] == (10, 3, 0)
    assert override(1, {}) == (None, "")


# Permission


def test_files_that_are_not_there(machine: Machine) -> None:
    machine.gpu(110000)
    (machine.root / "dev/dri/renderD128").unlink()
    (device,) = machine.devices()
    assert device.unusable == "/dev/dri/renderD128 is not there" and "--device /dev/dri" in device.remedy
    (machine.root / "dev/kfd").unlink()
    assert machine.devices()[0].unusable == "/dev/kfd is not there"


@pytest.mark.parametrize("name", ["kfd", "dri/renderD128"])
def test_files_that_may_not_be_used(machine: Machine, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.gpu(110000)
    machine.vulkan("radeon")
    if os.geteuid() == 0:  # who may use everything
        monkeypatch.setattr(devices, "may_use", lambda path: path != machine.root / "dev" / name)
    else:
        (machine.root / "dev" / name).chmod(0)
    (device,) = machine.devices()
    assert device.unusable == f"this user may not use /dev/{name}"
    assert "sudo usermod -aG render,video $USER" in device.remedy
    assert device.also == (("vulkan",) if name == "kfd" else ())


# Vulkan


def test_vulkan_is_another_way(machine: Machine) -> None:
    machine.vulkan("radeon")
    machine.gpu(80003)
    (device,) = machine.devices()
    assert device.unusable and device.ways == ("vulkan",)
    assert eligible([device], variant="hip").accelerators == ()
    assert [used.id for used in eligible([device], variant="vulkan").accelerators] == [device.id]


def test_a_card_that_is_not_for_rocm(machine: Machine) -> None:
    """The driver has it, but there is no KFD."""
    machine.vulkan("radeon")
    memory = {"mem_info_vram_total": 8, "mem_info_vram_used": 3}
    machine.card("0000:05:00.0", 0x1002, 0x67DF, "amdgpu", 128, memory)
    (device,) = machine.devices()
    assert (device.id, device.memory_total, device.memory_free) == ("0000:05:00.0", 8, 5)
    assert "KFD" in device.unusable and "Vulkan" in device.remedy and device.also == ("vulkan",)


def test_a_card_without_driver(machine: Machine) -> None:
    machine.gpu(110000)
    machine.card("0000:05:00.0", 0x1002, 0x67DF, "")
    machine.card("0000:06:00.0", 0x1002, 0x67DF, "radeon")
    _, first, second = machine.devices(ROCR_VISIBLE_DEVICES="0")
    assert first.unusable == "no driver has taken it" and "modprobe amdgpu" in first.remedy
    assert second.unusable.startswith("the driver radeon has it")


# Visible devices


A, B, C = "GPU-00000000000000aa", "GPU-00000000000000ab", "2"


def shown(**environment: str) -> list[str]:
    found = [Device(id=id, kind="rocm", name=id, memory_total=1, memory_free=1) for id in (A, B, C)]
    given = arranged(found, environment)
    assert sorted(device.id for device in given) == sorted((A, B, C))
    assert all(bool(device.unusable) == device.hidden == bool(device.remedy) for device in given)
    return [device.id for device in given if not device.hidden]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        *(("", []), ("-1", []), ("1", [B]), ("2, 0", [C, A]), ("0,7,1", [A]), ("0,0,1", [A])),
        *((A, [A]), (A.lower(), [A]), ("gpu-00000000000000AB,0", [B, A]), ("GPU-0", []), ("GPU-", [])),
        *((f"2,{A}", [C, A]), ("x", []), ("²", []), ("9" * 5000, [])),
    ],
)
def test_rocr_visible_devices(value: str, expected: list[str]) -> None:
    assert shown(ROCR_VISIBLE_DEVICES=value) == expected


@pytest.mark.parametrize("variable", ["HIP_VISIBLE_DEVICES", "GPU_DEVICE_ORDINAL"])
@pytest.mark.parametrize(
    ("value", "expected"), [("", [A, B, C]), ("-1", []), ("2,1", [C, B]), ("1,1,0", [B, A]), ("0,x,1", [A])]
)
def test_variables_of_hip(variable: str, value: str, expected: list[str]) -> None:
    assert shown(**{variable: value}) == expected


def test_variables_count_what_those_before_them_have_left() -> None:
    assert shown(ROCR_VISIBLE_DEVICES="2,1", HIP_VISIBLE_DEVICES="1") == [B]
    assert shown(ROCR_VISIBLE_DEVICES="2", HIP_VISIBLE_DEVICES="2") == []
    assert shown(HIP_VISIBLE_DEVICES="1,2", GPU_DEVICE_ORDINAL="0") == [B]


def test_the_probe_reads_the_environment(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.gpu(110000, unique=1)
    machine.gpu(110000, unique=2)
    monkeypatch.setenv("ROCR_VISIBLE_DEVICES", "1")
    first, second = AmdProbe(machine.root).devices()
    assert (first.id, first.hidden, second.hidden) == ("GPU-0000000000000002", False, True)
    assert second.unusable == "ROCR_VISIBLE_DEVICES=1 hides it"


# Odd machines


def test_odd_files_are_never_an_error(machine: Machine) -> None:
    nodes = "sys/class/kfd/kfd/topology/nodes"
    machine.gpu(110000)
    machine.write(
        {
            f"{nodes}/2/properties": "simd_count x\ngfx_target_version\n\n" + "\0" * 100,
            f"{nodes}/3/properties": "simd_count 64\ngfx_target_version 99999999999999999999\nlocation_id 99999999999",
            f"{nodes}/4/properties": "simd_count 64\n" + "junk 1\n" * 200_000,
            f"{nodes}/x/properties": "simd_count 64",
            f"{nodes}/{'9' * 200}": "a file",
            "sys/class/drm/renderD128/device/mem_info_vram_total": "much",
        }
    )
    (machine.root / nodes / "5").mkdir()
    os.mkfifo(machine.root / nodes / "5/properties")
    found = machine.devices()
    assert all(device.unusable and device.remedy for device in found) and len(found) == 3


def test_a_gpu_that_has_gone_is_gone(machine: Machine) -> None:
    machine.gpu(110000, unique=1)
    probe = AmdProbe(machine.root, {})
    assert len(probe.devices()) == 1
    (machine.root / "sys/class/kfd/kfd/topology/nodes/1/properties").unlink()
    (machine.root / "sys/bus/pci/devices/0000:01:00.0/vendor").unlink()
    assert probe.devices() == []
