"""The accelerators of a placement: which of ggml's devices they are, and what llama.cpp says that it took on each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, MutableMapping, Sequence

import msgspec

from corectl.errors import DevicesMissing
from corectl.runner.engine import MemoryUse, Placement
from corectl.scheduler.fit import HOST
from corectl_llamacpp.addresses import address_of

_VISIBLE = {"cuda": "CUDA_VISIBLE_DEVICES", "rocm": "ROCR_VISIBLE_DEVICES"}
"""By variant: the variable that lists the devices to be seen, by the ids that placements have."""
_COUNTED_AFTER = {"rocm": ("HIP_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES", "GPU_DEVICE_ORDINAL")}
"""Variables that choose once more among what that one leaves. The probe has obeyed them already."""
_LIBRARIES = {"cuda": "CUDA", "rocm": "ROCm", "metal": "MTL", "vulkan": "Vulkan", "sycl": "SYCL"}

_KINDS = {
    "model": "weights",
    "LoRA": "weights",
    "KV": "cache",
    "RS": "cache",
    "compute": "compute",
    "output": "compute",
}
_SHARED = "_Host"


class GgmlDevice(msgspec.Struct, frozen=True, kw_only=True):
    """A device under the name that ggml has for it, such as `CUDA0`. Memory is in bytes.

    `library` is the part of ggml that computes on it (`CUDA`, `ROCm`, `MTL`, `Vulkan`, `SYCL`, `CPU` ...), `kind` is
    `cpu`, `gpu`, `igpu` or `accel`, `address` its place on the PCI bus (empty: not known), and `token` what its
    functions know it by.
    """

    name: str
    description: str
    library: str
    kind: str
    memory_free: int
    memory_total: int
    address: str = ""
    token: int = 0


class Buffer(msgspec.Struct, frozen=True):
    """Memory that llama.cpp has taken. `place` is its name for a device and a way to allocate there.

    `kind` is `model`, `LoRA`, `KV`, `RS` (states), `compute` or `output`.
    """

    place: str
    kind: str
    size: int


def accelerators(placement: Placement) -> tuple[str, ...]:
    """Ids of the devices that have layers, in order."""
    return tuple(device for device in placement.devices if device != HOST)[: len(placement.layers)]


def make_visible(variant: str, placement: Placement, environment: MutableMapping[str, str]) -> None:
    """Lets llama.cpp see the placement's accelerators only, in its order. Before its library is loaded.

    A device that it sees costs some hundred MB, used or not. Only where there is a variable that takes their ids.
    """
    if variant in _VISIBLE:
        environment[_VISIBLE[variant]] = ",".join(accelerators(placement))
        for name in _COUNTED_AFTER.get(variant, ()):
            environment.pop(name, None)


def chosen(
    found: Sequence[GgmlDevice],
    placement: Placement,
    variant: str,
    *,
    address: Callable[[str], str] = address_of,
) -> dict[str, GgmlDevice]:
    """The placement's accelerators by their ids, among the devices that ggml has found.

    Where a variable has made them visible they are the only ones, in order. Else each is told by its place on the bus;
    and where that is not known, by there being no others. Raises `DevicesMissing` if one cannot be told.
    """
    wanted = accelerators(placement)
    there = [device for device in found if device.library == _LIBRARIES.get(variant)]
    if variant in _VISIBLE:
        return _paired(wanted, there[: len(wanted)], there, variant)
    by_address = {device.address: device for device in there if device.address}
    named = [by_address[place] for place in map(address, wanted) if place in by_address]
    for group in (named, there, [device for device in there if device.kind == "gpu"]):
        if len(group) == len(wanted):
            return _paired(wanted, group, there, variant)
    return _paired(wanted, named, there, variant)


def _paired(
    wanted: Sequence[str], group: Sequence[GgmlDevice], there: Sequence[GgmlDevice], variant: str
) -> dict[str, GgmlDevice]:
    if len(group) == len(wanted):
        return dict(zip(wanted, group, strict=True))
    names = ", ".join(f"{device.name} ({device.description})" for device in there) or "none"
    raise DevicesMissing(
        f"llama.cpp, which is built for {variant}, does not see {', '.join(wanted)}; it finds: {names}"
    )


def measured(
    buffers: Iterable[Buffer],
    devices: Mapping[str, GgmlDevice],
    *,
    weights: int,
    projectors: int = 0,
) -> tuple[MemoryUse, ...]:
    """What lies where, the host first and then `devices`, which are by their ids.

    `weights` are the bytes of all tensors, `projectors` of what the log leaves out. A mapped file counts from its first
    tensor to its last, with those that were copied to elsewhere; so no more than all tensors are on the host.
    """
    ids = {device.name: id for id, device in devices.items()}
    found = {id: dict.fromkeys(("weights", "cache", "compute"), 0) for id in (HOST, *devices)}
    for buffer in buffers:
        kind = _KINDS.get(buffer.kind)
        if kind is not None:
            found[_place(buffer.place, ids)][kind] += buffer.size
    found[HOST]["weights"] = min(found[HOST]["weights"], weights)
    # A projector is on the first accelerator if there is one.
    found[next(iter(devices), HOST)]["weights"] += projectors
    return tuple(MemoryUse(device=device, **kinds) for device, kinds in found.items())


def _place(place: str, ids: Mapping[str, str]) -> str:
    """The id of the device that llama.cpp has a name for: `CPU_Mapped`, `CUDA1`, `CUDA_Host`, `MTL0_Mapped`."""
    return HOST if place.endswith(_SHARED) else ids.get(place.partition("_")[0], HOST)
