"""Which GPUs ROCm shows to a process, by the variables that limit them. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from corectl.hardware.device import Device

_LOWER = "ROCR_VISIBLE_DEVICES"
"""Counts all GPUs, and takes UUIDs too."""
_UPPER = ("HIP_VISIBLE_DEVICES", "GPU_DEVICE_ORDINAL")
"""Count those that are left. Empty, they are as if they were not set."""


def arranged(found: Sequence[Device], environment: Mapping[str, str]) -> list[Device]:
    """The devices, given in the order of their indices: first those that ROCm shows, in its order, then hidden ones.

    As in ROCm, what is after the first name that is none is hidden.
    """
    shown, hidden = list(found), []
    for variable in (_LOWER, *_UPPER):
        value = environment.get(variable)
        if value is None or (not value and variable != _LOWER):
            continue
        left = _listed(shown, value, repeats=variable != _LOWER)
        hidden += [_hidden(device, variable, value) for device in shown if device not in left]
        shown = left
    return shown + hidden


def _listed(found: Sequence[Device], value: str, *, repeats: bool) -> list[Device]:
    """The devices of a list. One that is named again ends it, unless `repeats` are passed over."""
    listed: list[Device] = []
    for name in value.split(","):
        device = _named(found, name.strip())
        if device is None or (device in listed and not repeats):
            break
        if device not in listed:
            listed.append(device)
    return listed


def _named(found: Sequence[Device], name: str) -> Device | None:
    """The device of an index, or the only one whose UUID begins so, in capitals or not."""
    if name.isascii() and name.isdigit():
        index = int(name[:9])
        return found[index] if index < len(found) else None
    matching = [device for device in found if device.id.lower().startswith(name.lower())]
    return matching[0] if len(name) > len("GPU-") and len(matching) == 1 else None


def _hidden(device: Device, variable: str, value: str) -> Device:
    return msgspec.structs.replace(
        device,
        also=(),
        unusable=f"{variable}={value[:100]} hides it",
        remedy=f"name it in {variable}, or leave that out",
        hidden=True,
    )
