"""Asks NVML for the GPUs. A GPU that does not answer is reported with the reason, and spoils no other."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from corectl.hardware.device import Device
from corectl.hardware.ram import machine_memory
from corectl_nvidia.visible import Gpu

OLDEST = (5, 0)
"""The lowest compute capability that CUDA builds are made for."""
_MOST_INSTANCES = 64
_TOO_OLD = "a GPU with compute capability 5.0 or more is needed, such as a GTX 750 or a newer one"
_NO_INSTANCE = (
    "it is to be divided into instances (MIG), but there are none",
    "make one: sudo nvidia-smi mig -cgi 0 -C; or turn that off: sudo nvidia-smi -mig 0",
)
_LOST = "restart the machine; 'nvidia-smi' and the kernel's log say more"

_ERRORS = {
    "LIBRARY_NOT_FOUND": (
        "the driver's library libnvidia-ml.so.1 is not here",
        "start the container with --gpus all, or install the libraries of the driver that the kernel has loaded",
    ),
    "LIB_RM_VERSION_MISMATCH": (
        "the driver's library has another version than the driver in the kernel",
        "restart the machine, so that the kernel loads the driver that was installed last",
    ),
    "DRIVER_NOT_LOADED": ("the driver is not loaded", "type: sudo modprobe nvidia"),
    "NO_PERMISSION": (
        "this user may not ask the driver",
        "type: sudo chmod a+rw /dev/nvidiactl /dev/nvidia-uvm /dev/nvidia[0-9]*",
    ),
    "GPU_IS_LOST": ("it has fallen off the bus", _LOST),
    "RESET_REQUIRED": ("it must be reset", "type: sudo nvidia-smi --gpu-reset"),
}
"""By the name of an error of the library: the reason and the remedy."""


def ask(nvml: Any) -> list[Gpu] | Device:
    """All GPUs in the order of the bus, through the binding `nvml`; or one device that says why none can be seen."""
    try:
        nvml.nvmlInit()
    except nvml.NVMLError as exc:
        reason, remedy = _why(nvml, exc)
        return unseen(reason, remedy)
    try:
        driver = _driver(nvml)
        return [_gpu(nvml, index, driver) for index in range(nvml.nvmlDeviceGetCount())]
    except nvml.NVMLError as exc:
        reason, remedy = _why(nvml, exc)
        return unseen(reason, remedy)
    finally:
        with suppress(nvml.NVMLError):
            nvml.nvmlShutdown()


def unseen(
    reason: str, remedy: str, *, id: str = "nvidia", name: str = "NVIDIA GPU", driver: str = ""
) -> Device:
    """A GPU of which there is little to say but why it cannot be used."""
    return Device(
        id=id,
        kind="cuda",
        name=name,
        memory_total=0,
        memory_free=0,
        driver=driver,
        unusable=reason,
        remedy=remedy,
    )


def _driver(nvml: Any) -> str:
    """The driver's version, and that of the newest CUDA that it can run."""
    version = str(nvml.nvmlSystemGetDriverVersion())
    try:
        cuda = int(nvml.nvmlSystemGetCudaDriverVersion())
    except nvml.NVMLError:
        return version
    return f"{version}, CUDA {cuda // 1000}.{cuda % 1000 // 10}"


def _gpu(nvml: Any, index: int, driver: str) -> Gpu:
    name = id = f"GPU {index}"
    try:
        handle = nvml.nvmlDeviceGetHandleByIndex(index)
        id, name = str(nvml.nvmlDeviceGetUUID(handle)), str(nvml.nvmlDeviceGetName(handle))
        capability = tuple(nvml.nvmlDeviceGetCudaComputeCapability(handle))
        if not _is_divided(nvml, handle):
            return Gpu(id, (_device(nvml, handle, id, name, driver, capability),), name)
        instances = tuple(_instances(nvml, handle, name, driver, capability))
        return Gpu(id, instances or (unseen(*_NO_INSTANCE, id=id, name=name, driver=driver),), name)
    except (nvml.NVMLError, UnicodeDecodeError) as exc:
        reason, remedy = _why(nvml, exc)
        return Gpu(id, (unseen(reason, remedy, id=id, name=name, driver=driver),), name)


def _is_divided(nvml: Any, handle: Any) -> bool:
    try:
        current, _ = nvml.nvmlDeviceGetMigMode(handle)
    except nvml.NVMLError:
        return False
    return bool(current)


def _instances(nvml: Any, gpu: Any, name: str, driver: str, capability: tuple[int, ...]) -> Iterator[Device]:
    """The instances of a GPU, each with memory of its own. Their numbers may have gaps."""
    for index in range(min(nvml.nvmlDeviceGetMaxMigDeviceCount(gpu), _MOST_INSTANCES)):
        try:
            handle = nvml.nvmlDeviceGetMigDeviceHandleByIndex(gpu, index)
            id = str(nvml.nvmlDeviceGetUUID(handle))
        except nvml.NVMLError:
            continue
        try:
            full = str(nvml.nvmlDeviceGetName(handle))
            own = full if "MIG" in full else f"{name} MIG {index}"
            yield _device(nvml, handle, id, own, driver, capability, alone=True)
        except nvml.NVMLError as exc:
            reason, remedy = _why(nvml, exc)
            yield unseen(reason, remedy, id=id, name=f"{name} MIG {index}", driver=driver)


def _device(
    nvml: Any,
    handle: Any,
    id: str,
    name: str,
    driver: str,
    capability: tuple[int, ...],
    *,
    alone: bool = False,
) -> Device:
    try:
        memory = nvml.nvmlDeviceGetMemoryInfo(handle)
        integrated = False
    except nvml.NVMLError as exc:
        if exc.value != nvml.NVML_ERROR_NOT_SUPPORTED:
            raise
        # So answer GPUs that have no memory but the machine's.
        memory, integrated = machine_memory(), True
    dotted = ".".join(map(str, capability))
    old = capability < OLDEST
    return Device(
        id=id,
        kind="cuda",
        name=name,
        memory_total=int(memory.total),
        memory_free=int(memory.free),
        driver=driver,
        architecture=dotted,
        integrated=integrated,
        alone=alone,
        unusable=f"its compute capability {dotted} is below {OLDEST[0]}.{OLDEST[1]}" if old else "",
        remedy=_TOO_OLD if old else "",
    )


def _why(nvml: Any, error: Exception) -> tuple[str, str]:
    """The reason and the remedy for an error of the library."""
    value = getattr(error, "value", None)
    for name, known in _ERRORS.items():
        if value == getattr(nvml, f"NVML_ERROR_{name}"):
            return known
    return f"the driver does not answer: {error}", _LOST
