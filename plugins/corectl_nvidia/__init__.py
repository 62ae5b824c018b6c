"""Reports NVIDIA GPUs, as the driver's management library (NVML) sees them. Silent where there is no driver."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from corectl import hookimpl
from corectl.hardware.device import Device, HardwareProbe

corectl_api = 1

DRIVER = Path("/proc/driver/nvidia/version")
"""There on Linux if the kernel has loaded the driver."""
OLDEST = (5, 0)
"""The lowest compute capability that CUDA builds are made for."""
NOT_INSTALLED = "nvidia-ml-py is not installed; type: pip install 'corectl[nvidia]'"


class NvidiaProbe:
    """One device for each GPU that CUDA_VISIBLE_DEVICES leaves, by its UUID."""

    name = "nvidia"

    def devices(self) -> list[Device]:
        try:
            import pynvml
        except ImportError:
            return [_unseen(NOT_INSTALLED)] if DRIVER.exists() else []
        try:
            pynvml.nvmlInit()
        except pynvml.NVMLError as exc:
            return [_unseen(f"the driver does not answer: {exc}")] if DRIVER.exists() else []
        try:
            driver = str(pynvml.nvmlSystemGetDriverVersion())
            found = [_device(pynvml, index, driver) for index in range(pynvml.nvmlDeviceGetCount())]
        finally:
            pynvml.nvmlShutdown()
        return visible(found, os.environ.get("CUDA_VISIBLE_DEVICES"))


def visible(found: Sequence[Device], names: str | None) -> list[Device]:
    """The devices that CUDA shows, in its order, for a value of CUDA_VISIBLE_DEVICES (None: it is not set).

    A name is an index in the order of the bus, or the beginning of a UUID. As in CUDA, what is after the first name
    that is none is not visible.
    """
    if names is None:
        return list(found)
    shown: list[Device] = []
    for name in (part.strip() for part in names.split(",")):
        matching = _named(found, name)
        if len(matching) != 1 or matching[0] in shown:
            break
        shown += matching
    return shown


def _named(found: Sequence[Device], name: str) -> list[Device]:
    if name.isascii() and name.isdigit():
        return list(found[int(name) : int(name) + 1])
    return [device for device in found if name.startswith("GPU-") and device.id.startswith(name)]


def _device(pynvml: Any, index: int, driver: str) -> Device:
    """One GPU. What one does not say of itself makes that one unusable, and no other."""
    name = id = f"GPU {index}"
    try:
        handle = pynvml.nvmlDeviceGetHandleByIndex(index)
        id, name = str(pynvml.nvmlDeviceGetUUID(handle)), str(pynvml.nvmlDeviceGetName(handle))
        memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
        capability = tuple(pynvml.nvmlDeviceGetCudaComputeCapability(handle))
    except pynvml.NVMLError as exc:
        return _unseen(str(exc), id=id, name=name, driver=driver)
    return Device(
        id=id,
        kind="cuda",
        name=name,
        memory_total=int(memory.total),
        memory_free=int(memory.free),
        driver=driver,
        unusable="" if capability >= OLDEST else f"its compute capability {_dotted(capability)} is below 5.0",
    )


def _dotted(numbers: Iterable[int]) -> str:
    return ".".join(map(str, numbers))


def _unseen(reason: str, *, id: str = "nvidia", name: str = "NVIDIA GPU", driver: str = "") -> Device:
    return Device(
        id=id, kind="cuda", name=name, memory_total=0, memory_free=0, driver=driver, unusable=reason
    )


@hookimpl
def corectl_hardware_probes() -> list[HardwareProbe]:
    return [NvidiaProbe()]
