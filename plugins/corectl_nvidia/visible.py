"""Which GPUs CUDA shows to a process: the variable CUDA_VISIBLE_DEVICES. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from corectl.hardware.device import Device

UNSURE = (
    "an index in CUDA_VISIBLE_DEVICES may stand for another GPU than here, because CUDA counts the fastest first; "
    "name UUIDs instead, or set CUDA_DEVICE_ORDER=PCI_BUS_ID"
)


class Gpu(msgspec.Struct, frozen=True):
    """One GPU by its UUID, and what computes: the GPU itself, or the instances that it is divided into."""

    uuid: str
    devices: tuple[Device, ...]
    name: str = ""


def unsure(gpus: Sequence[Gpu], names: str | None, order: str | None) -> bool:
    """Whether indices among `names` may stand for other GPUs in CUDA, for a value of CUDA_DEVICE_ORDER.

    Only PCI_BUS_ID makes it count in the order of the bus. Where all are of one kind, none is faster.
    """
    indices = any(name.strip().isdigit() for name in (names or "").split(","))
    return indices and order != "PCI_BUS_ID" and len({gpu.name for gpu in gpus}) > 1


def visible(gpus: Sequence[Gpu], names: str | None) -> list[Device]:
    """The devices that CUDA shows, in its order, and then the hidden ones, for a value of CUDA_VISIBLE_DEVICES.

    A name is an index in the order of the bus, or the beginning of a UUID. An index and a GPU's UUID stand for all of
    its instances. As in CUDA, what is after the first name that is none is hidden. None: the variable is not set.
    """
    every = [device for gpu in gpus for device in gpu.devices]
    if names is None:
        return every
    shown: list[Device] = []
    for name in names.split(","):
        named = _named(gpus, name.strip())
        if not named or named[0] in shown:
            break
        shown += named
    return shown + [_hidden(device, names) for device in every if device not in shown]


def _named(gpus: Sequence[Gpu], name: str) -> Sequence[Device]:
    """The devices of one name; none if nothing has it, or more than one thing."""
    if name.isascii() and name.isdigit():
        index = int(name[:9])
        return gpus[index].devices if index < len(gpus) else ()
    found: list[Sequence[Device]]
    if name.startswith("MIG-"):
        found = [(device,) for gpu in gpus for device in gpu.devices if device.id.startswith(name)]
    else:
        found = [gpu.devices for gpu in gpus if name.startswith("GPU-") and gpu.uuid.startswith(name)]
    return found[0] if len(found) == 1 else ()


def _hidden(device: Device, names: str) -> Device:
    return msgspec.structs.replace(
        device,
        unusable=f"CUDA_VISIBLE_DEVICES={names[:100]} hides it",
        remedy=f"add {device.id} to CUDA_VISIBLE_DEVICES, or leave that out",
        hidden=True,
    )
