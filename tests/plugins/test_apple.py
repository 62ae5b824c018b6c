"""What is said of Macs: by what their system answers."""

from __future__ import annotations

import platform
import subprocess
import sys
from typing import Any

import pytest

import corectl_apple
from corectl.hardware import sysctl as system
from corectl.hardware.device import Device
from corectl.hardware.ram import Memory
from corectl_apple import AppleProbe, corectl_hardware_probes

GIB = 2**30
SAID = {
    "hw.optional.arm64": "1",
    "hw.memsize": str(64 * GIB),
    "iogpu.wired_limit_mb": "0",
    "machdep.cpu.brand_string": "Apple M9 Max",
}


@pytest.fixture
def mac(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(platform, "mac_ver", lambda: ("26.1", ("", "", ""), "arm64"))
    monkeypatch.setattr(corectl_apple, "machine_memory", lambda: Memory(64 * GIB, 40 * GIB, 0))


def ask(**changes: str) -> list[Device]:
    said = {**SAID, **changes}
    return AppleProbe(lambda *names: {name: said[name] for name in names if name in said}).devices()


def test_it_is_offered_by_its_name() -> None:
    assert [probe.name for probe in corectl_hardware_probes()] == ["apple"]


@pytest.mark.skipif(sys.platform == "darwin", reason="is a Mac")
def test_other_machines_say_nothing_and_are_not_asked() -> None:
    def never(*names: str) -> dict[str, str]:
        raise AssertionError(names)

    assert AppleProbe(never).devices() == []


@pytest.mark.usefixtures("mac")
def test_the_gpu_of_a_mac() -> None:
    assert ask() == [
        Device(
            id="metal",
            kind="metal",
            name="Apple M9 Max GPU",
            memory_total=48 * GIB,
            memory_free=40 * GIB,
            driver="macOS 26.1",
            integrated=True,
        )
    ]


@pytest.mark.usefixtures("mac")
@pytest.mark.parametrize(
    ("memory", "limit", "total"),
    [
        *((16 * GIB, "0", 16 * GIB // 3 * 2), (32 * GIB, "", 32 * GIB // 3 * 2), (36 * GIB, "0", 27 * GIB)),
        *((64 * GIB, "61440", 60 * GIB), (64 * GIB, "999999", 64 * GIB), (64 * GIB, "x", 48 * GIB)),
    ],
)
def test_how_much_metal_may_keep_in_memory(memory: int, limit: str, total: int) -> None:
    (device,) = ask(**{"hw.memsize": str(memory), "iogpu.wired_limit_mb": limit})
    assert device.memory_total == total and device.memory_free == min(total, 40 * GIB)


@pytest.mark.usefixtures("mac")
def test_a_mac_that_says_little() -> None:
    (device,) = AppleProbe(lambda *names: {"hw.optional.arm64": "1", "hw.memsize": "much"}).devices()
    assert (device.name, device.memory_total) == ("Apple GPU", 48 * GIB)


@pytest.mark.usefixtures("mac")
def test_python_for_another_processor_cannot_use_it() -> None:
    (device,) = ask(**{"sysctl.proc_translated": "1"})
    assert "Rosetta" in device.unusable and "arm64" in device.remedy


@pytest.mark.usefixtures("mac")
def test_macs_with_other_processors_say_nothing() -> None:
    assert ask(**{"hw.optional.arm64": "0"}) == [] == AppleProbe(lambda *names: {}).devices()


def test_what_the_system_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def run(command: list[str], **options: Any) -> subprocess.CompletedProcess[bytes]:
        asked.append((command, options["timeout"]))
        return subprocess.CompletedProcess(command, 1, b"a: 1\nb: x: y\nodd\n\xff: 2\n")

    monkeypatch.setattr(subprocess, "run", run)
    assert system.sysctl("a", "b", "gone") == {"a": "1", "b": "x: y", "\ufffd": "2"}
    assert asked == [(["/usr/sbin/sysctl", "a", "b", "gone"], 2.0)]


@pytest.mark.parametrize("error", [FileNotFoundError(), subprocess.TimeoutExpired("sysctl", 2)])
def test_a_system_that_does_not_answer(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(*args: Any, **options: Any) -> None:
        raise error

    monkeypatch.setattr(subprocess, "run", run)
    assert system.sysctl("a") == {}
