"""What is read of the kernel and of the system: on folders that the tests put together, odd ones too."""

from __future__ import annotations

import os
import platform
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from corectl.hardware import cgroup, cores, kernel, pci, processor, ram, vulkan

linux = pytest.mark.skipif(sys.platform != "linux", reason="reads what Linux tells")


def write(root: Path, files: Mapping[str, str | bytes]) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return root


def test_a_file_is_read_up_to_a_limit(tmp_path: Path) -> None:
    write(tmp_path, {"small": " a b\n", "huge": b"x" * 2**21, "odd": b"\xff\xfe1\0"})
    assert kernel.read(tmp_path / "small") == "a b"
    assert len(kernel.read(tmp_path / "huge")) == kernel.MOST_BYTES
    assert kernel.read(tmp_path / "huge", 5) == "xxxxx"
    assert kernel.read(tmp_path / "odd") == "\ufffd\ufffd1"
    for nothing in (tmp_path, tmp_path / "gone", tmp_path / "small" / "below", tmp_path / "bad\0name"):
        assert kernel.read(nothing) == "" and kernel.number(nothing) is None
    assert kernel.is_there(tmp_path) and not kernel.is_there(tmp_path / "bad\0name")
    assert kernel.names(tmp_path) == ["huge", "odd", "small"] and kernel.names(tmp_path / "small") == []


@linux
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    begin = time.monotonic()
    assert kernel.read(tmp_path / "pipe") == ""
    with (tmp_path / "pipe").open("r+b", buffering=0):
        assert kernel.read(tmp_path / "pipe") == "", "somebody may write, but has not"
    assert time.monotonic() - begin < 5


@pytest.mark.parametrize(
    ("text", "value"),
    [("12\n", 12), ("0x1002", 0x1002), ("", None), ("-1", None), ("0xg", None), ("1_0", None), ("max", None)],
)
def test_numbers(text: str, value: int | None, tmp_path: Path) -> None:
    assert kernel.number(write(tmp_path, {"n": text}) / "n") == value


def test_fields_are_lines_with_a_number(tmp_path: Path) -> None:
    write(tmp_path, {"f": "a 1\nb  2\nc x\nd\n\ne 99999999999999999999999\nf 3"})
    assert kernel.fields(tmp_path / "f") == {"a": 1, "f": 3}


def test_odd_control_groups_are_none(tmp_path: Path) -> None:
    write(tmp_path, {"proc/self/cgroup": "nonsense\n:\n1:cpu\n0::/a\n"})
    assert tmp_path / "sys/fs/cgroup/a" in list(cgroup.groups("cpu", tmp_path))


# PCI


def card(address: str, vendor: str, kind: str, **files: str) -> dict[str, str | bytes]:
    folder = f"sys/bus/pci/devices/{address}"
    return {
        f"{folder}/vendor": vendor,
        f"{folder}/class": kind,
        f"{folder}/device": "0x744c",
        **{f"{folder}/{name}": text for name, text in files.items()},
    }


@linux
def test_cards_are_found_by_maker_and_class(tmp_path: Path) -> None:
    for files in (
        card("0000:03:00.0", "0x1002", "0x030000"),
        card("0000:00:01.0", "0x1002", "0x120000"),
        card("0000:03:00.1", "0x1002", "0x040300"),
        card("0000:00:02.0", "0x8086", "0x030000"),
        {"sys/bus/pci/devices/odd": "a file", "sys/bus/pci/devices/0000:09:00.0/vendor": "0x1002"},
    ):
        write(tmp_path, files)
    (tmp_path / "sys/bus/pci/devices/0000:03:00.0/driver").symlink_to("../../drivers/amdgpu")
    (tmp_path / "sys/bus/pci/devices/0000:03:00.0/drm/renderD128").mkdir(parents=True)
    first, second = pci.cards(0x1002, tmp_path)
    assert (first.address, first.driver, first.render_node) == ("0000:00:01.0", "", "")
    assert (second.address, second.driver, second.render_node) == ("0000:03:00.0", "amdgpu", "renderD128")
    assert second.product == 0x744C
    device = pci.not_driven(first, "rocm", "AMD", "amdgpu", tmp_path)
    assert (device.id, device.name, device.hidden) == ("0000:00:01.0", "AMD GPU 744c", False)
    assert (device.unusable, "modprobe amdgpu" in device.remedy) == ("no driver has taken it", True)
    assert pci.cards(0x10DE, tmp_path) == [] == pci.cards(0x1002, tmp_path / "nowhere")


@linux
def test_a_card_of_a_virtual_machine_is_not_missed(tmp_path: Path) -> None:
    write(tmp_path, card("0000:03:00.0", "0x10de", "0x030200"))
    (tmp_path / "sys/bus/pci/devices/0000:03:00.0/driver").symlink_to("../../drivers/vfio-pci")
    (found,) = pci.cards(0x10DE, tmp_path)
    device = pci.not_driven(found, "cuda", "NVIDIA", "nvidia", tmp_path)
    assert device.hidden and device.unusable == "the driver vfio-pci has it, which cannot compute"


PRODUCTS = """# a list
1001  Somebody
\t744c  Another card
1002  Maker, Inc.
\t73bf  Navi 21 [Radeon RX 6800/6800 XT / 6900 XT]
\t\t1002 0e3a  Board of somebody
# a remark
\t744c  Plain name
\tzzzz  broken
1003  Third
\t73bf  Wrong
C 03  Display controller
\t00  VGA
"""


def test_products_have_the_names_of_the_systems_list(tmp_path: Path) -> None:
    write(tmp_path, {"usr/share/misc/pci.ids": PRODUCTS})
    assert pci.product_name(0x1002, 0x73BF, tmp_path) == "Radeon RX 6800/6800 XT / 6900 XT"
    assert pci.product_name(0x1002, 0x744C, tmp_path) == "Plain name"
    assert pci.product_name(0x1002, 0x1, tmp_path) == "" == pci.product_name(0x9999, 0x1, tmp_path)
    assert pci.product_name(0x1002, 0x73BF, tmp_path / "nowhere") == ""


def test_vulkan_drivers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("VK_DRIVER_FILES", "VK_ICD_FILENAMES", "VK_ADD_DRIVER_FILES"):
        monkeypatch.delenv(name, raising=False)
    assert not vulkan.has_driver(("radeon_icd",), tmp_path)
    write(tmp_path, {"etc/vulkan/icd.d/radeon_icd.x86_64.json": "{}"})
    assert vulkan.has_driver(("radeon_icd",), tmp_path) and not vulkan.has_driver(("intel_icd",), tmp_path)
    monkeypatch.setenv("VK_DRIVER_FILES", "/somewhere/intel_icd.json")
    assert vulkan.has_driver(("intel_icd",), tmp_path)


# Processors


@linux
@pytest.mark.parametrize(
    ("cpuinfo", "board", "name", "extensions"),
    [
        (
            "processor\t: 0\nmodel name\t: Fast 9000\nflags\t\t: fpu pni avx avx2 fma f16c avx512f amx_int8\n\n"
            "processor\t: 1\nmodel name\t: Other\nflags\t\t: avx_vnni\n",
            "",
            "Fast 9000",
            ("sse3", "avx", "f16c", "fma", "avx2", "avx512f", "amx_int8"),
        ),
        (
            "processor\t: 0\nFeatures\t: fp asimd asimddp sve i8mm\n",
            "Small Board 5\0",
            "Small Board 5",
            ("neon", "dotprod", "i8mm", "sve"),
        ),
    ],
)
def test_processors(cpuinfo: str, board: str, name: str, extensions: tuple[str, ...], tmp_path: Path) -> None:
    write(tmp_path, {"proc/cpuinfo": cpuinfo, **({"proc/device-tree/model": board} if board else {})})
    found = processor.processor(tmp_path)
    assert (found.name, found.extensions) == (name, extensions) and found.family


@linux
def test_a_processor_that_is_not_described_has_a_name_all_the_same(tmp_path: Path) -> None:
    found = processor.processor(tmp_path)
    assert found.name and found.extensions == ()
    assert processor.processor().name


def test_processors_of_macos(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(platform, "machine", lambda: "arm64")
    said = {
        "machdep.cpu.brand_string": "Apple M9",
        "hw.optional.arm.FEAT_BF16": "1",
        "hw.optional.arm.FEAT_SME": "0",
    }
    monkeypatch.setattr(processor, "sysctl", lambda *names: said)
    assert processor.processor(Path("/arm")) == processor.Processor("Apple M9", "arm64", ("neon", "bf16"))
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    said = {"machdep.cpu.features": "SSE3 AVX1.0 FMA", "machdep.cpu.leaf7_features": "BMI2 AVX2"}
    found = processor.processor(Path("/intel"))
    assert found.extensions == ("sse3", "avx", "fma", "avx2", "bmi2")


@linux
def test_odd_files_about_cores_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cores, "_ROOT", tmp_path)
    plain = cores.usable_cores()
    odd = {"sys/devices/cpu_core/cpus": "x,3-,-,0-99999999999,²," + "9" * 6000, "proc/self/cgroup": "0::/"}
    write(tmp_path, {**odd, "sys/fs/cgroup/cpu.max": "many 100000"})
    assert cores.usable_cores() == plain and cores.processor_quota() is None
    write(tmp_path, {"sys/fs/cgroup/cpu.max": "50000 100000"})
    assert cores.processor_quota() == 0.5 and cores.usable_cores() == 1


@linux
def test_odd_files_about_memory_are_none(tmp_path: Path) -> None:
    plain = ram.machine_memory(tmp_path).total
    write(
        tmp_path,
        {"proc/self/cgroup": "0::/", "sys/fs/cgroup/memory.max": "x", "sys/fs/cgroup/memory.stat": "a\nb c"},
    )
    assert ram.machine_memory(tmp_path).total == plain
    write(tmp_path, {"sys/fs/cgroup/memory.max": "1000", "sys/fs/cgroup/memory.current": "much"})
    assert ram.machine_memory(tmp_path).total == 1000
