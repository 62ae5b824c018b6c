"""What is said of NVIDIA GPUs: a driver's library that the tests put together."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

import corectl_nvidia
from corectl.hardware.device import Device
from corectl_nvidia import NvidiaProbe, corectl_hardware_probes, visible

A, B, C = "GPU-aaaa-1", "GPU-abcd-2", "GPU-cccc-3"


class NVMLError(Exception):
    pass


class Library(ModuleType):
    """As much of NVML's binding as the probe uses. `gpus` are UUID, memory in all and free, compute capability."""

    NVMLError = NVMLError

    def __init__(self, *gpus: tuple[str, int, int, tuple[int, int]], works: bool = True) -> None:
        super().__init__("pynvml")
        self.gpus = gpus
        self.works = works
        self.lost: set[str] = set()
        self.open = 0

    def nvmlInit(self) -> None:
        if not self.works:
            raise NVMLError("Driver/library version mismatch")
        self.open += 1

    def nvmlShutdown(self) -> None:
        self.open -= 1

    def nvmlSystemGetDriverVersion(self) -> str:
        return "600.1"

    def nvmlDeviceGetCount(self) -> int:
        return len(self.gpus)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> Any:
        return self.gpus[index]

    def nvmlDeviceGetUUID(self, handle: Any) -> str:
        return str(handle[0])

    def nvmlDeviceGetName(self, handle: Any) -> str:
        return f"NVIDIA {handle[0]}"

    def nvmlDeviceGetMemoryInfo(self, handle: Any) -> Any:
        if handle[0] in self.lost:
            raise NVMLError("GPU is lost")
        return SimpleNamespace(total=handle[1], free=handle[2])

    def nvmlDeviceGetCudaComputeCapability(self, handle: Any) -> tuple[int, int]:
        capability: tuple[int, int] = handle[3]
        return capability


@pytest.fixture(autouse=True)
def no_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def install(
    monkeypatch: pytest.MonkeyPatch, library: ModuleType | None, *, driver: Path | None = None
) -> None:
    """The library of this machine (None: there is none), and the sign of its driver."""
    monkeypatch.setitem(sys.modules, "pynvml", library)
    monkeypatch.setattr(corectl_nvidia, "DRIVER", driver or Path("/nowhere/version"))


def test_it_is_offered_by_its_name() -> None:
    assert [probe.name for probe in corectl_hardware_probes()] == ["nvidia"]


def test_a_machine_without_driver_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    for library in (None, Library(works=False)):
        install(monkeypatch, library)
        assert NvidiaProbe().devices() == []


def test_a_driver_that_cannot_be_asked_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    sign = tmp_path / "version"
    sign.touch()
    install(monkeypatch, None, driver=sign)
    (device,) = NvidiaProbe().devices()
    assert "pip install 'corectl[nvidia]'" in device.unusable and device.kind == "cuda"
    install(monkeypatch, Library(works=False), driver=sign)
    (device,) = NvidiaProbe().devices()
    assert device.unusable == "the driver does not answer: Driver/library version mismatch"


def test_a_device_for_each_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    library = Library((A, 1000, 900, (8, 9)), (B, 500, 100, (3, 5)))
    install(monkeypatch, library)
    first, second = NvidiaProbe().devices()
    assert first == Device(
        id=A, kind="cuda", name=f"NVIDIA {A}", memory_total=1000, memory_free=900, driver="600.1"
    )
    assert second.unusable == "its compute capability 3.5 is below 5.0"
    assert library.open == 0


def test_a_gpu_that_is_lost_spoils_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    library = Library((A, 1000, 900, (8, 9)), (B, 1000, 900, (8, 9)))
    library.lost.add(A)
    install(monkeypatch, library)
    first, second = NvidiaProbe().devices()
    assert (first.id, first.unusable) == (A, "GPU is lost") and not second.unusable
    assert library.open == 0


@pytest.mark.parametrize(
    ("names", "shown"),
    [
        *((None, [A, B, C]), ("", []), ("-1", []), ("1", [B]), ("2, 0", [C, A]), ("0,7,1", [A])),
        *((C, [C]), ("GPU-c", [C]), ("GPU-a", []), ("GPU-x,0", []), ("0,0,1", [A]), ("none", [])),
    ],
)
def test_visible_devices(names: str | None, shown: list[str]) -> None:
    found = [Device(id=id, kind="cuda", name=id, memory_total=1, memory_free=1) for id in (A, B, C)]
    assert [device.id for device in visible(found, names)] == shown


def test_the_environment_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, Library((A, 1000, 900, (8, 9)), (B, 1000, 900, (8, 9))))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert [device.id for device in NvidiaProbe().devices()] == [B]
