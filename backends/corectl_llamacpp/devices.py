"""The accelerators of a placement, as llama.cpp has to be told of them, and what it says that it took on each."""

from __future__ import annotations

import re
from collections.abc import Iterable, MutableMapping

import msgspec

from corectl.runner.engine import MemoryUse, Placement
from corectl.scheduler.fit import HOST

_VISIBLE = {
    "cuda": "CUDA_VISIBLE_DEVICES",
    "hip": "ROCR_VISIBLE_DEVICES",
    "vulkan": "GGML_VK_VISIBLE_DEVICES",
}
"""By the library's variant: the variable that lists the devices it may see, by the ids that placements have."""

_KINDS = {"model": "weights", "KV": "cache", "RS": "cache", "compute": "compute", "output": "compute"}
_ON_HOST = ("CPU", "BLAS", "AMX")


class Buffer(msgspec.Struct, frozen=True):
    """Memory that llama.cpp has taken. `place` is its name for a device and a way to allocate there.

    `kind` is `model`, `KV`, `RS` (states), `compute` or `output`.
    """

    place: str
    kind: str
    size: int


def accelerators(placement: Placement) -> tuple[str, ...]:
    """Ids of the devices that have layers, in order."""
    return tuple(device for device in placement.devices if device != HOST)[: len(placement.layers)]


def make_visible(variant: str, placement: Placement, environment: MutableMapping[str, str]) -> None:
    """Lets llama.cpp see the placement's accelerators only, in its order. Before its library is loaded.

    A device that it sees costs some hundred MB, used or not; and the order is that of layers and of names in the log.
    """
    if variant in _VISIBLE:
        environment[_VISIBLE[variant]] = ",".join(accelerators(placement))


def measured(
    buffers: Iterable[Buffer], placement: Placement, *, weights: int, projectors: int = 0
) -> tuple[MemoryUse, ...]:
    """What lies where, the host first. `weights` are the bytes of all tensors, `projectors` of what the log leaves out.

    A mapped file counts from its first tensor to its last, with those that were copied to elsewhere; so no more than
    all tensors are on the host.
    """
    names = accelerators(placement)
    found = {device: dict.fromkeys(("weights", "cache", "compute"), 0) for device in (HOST, *names)}
    for buffer in buffers:
        kind = _KINDS.get(buffer.kind)
        if kind is not None:
            found[_device(buffer.place, names)][kind] += buffer.size
    found[HOST]["weights"] = min(found[HOST]["weights"], weights)
    # A projector is on the first accelerator if there is one.
    found[names[0] if names else HOST]["weights"] += projectors
    return tuple(MemoryUse(device=device, **kinds) for device, kinds in found.items())


def _device(place: str, names: tuple[str, ...]) -> str:
    """The id of the device that llama.cpp has a name for: `CPU_Mapped`, `CUDA1`, `CUDA_Host`, `Metal_Mapped`."""
    if not names or place.startswith(_ON_HOST) or place.endswith("_Host"):
        return HOST
    number = re.search(r"\d+", place)
    index = int(number[0]) if number else 0
    return names[index] if index < len(names) else HOST
