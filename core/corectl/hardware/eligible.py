"""Which of a machine's devices a model may be loaded on: what its backend can use, and what was asked for. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from corectl.errors import BadRequest
from corectl.hardware.device import Device

KINDS = {"hip": "rocm"}
"""What backends call a way to compute, where it has another name than the devices."""


class Eligible(msgspec.Struct, frozen=True, kw_only=True):
    """Devices that may be used, and why accelerators are left out though nobody asked for that."""

    devices: tuple[Device, ...]
    reasons: tuple[str, ...] = ()

    @property
    def host(self) -> Device | None:
        """The machine's own memory and processor; None if no probe knows them."""
        return next((device for device in self.devices if device.kind == "cpu"), None)

    @property
    def accelerators(self) -> tuple[Device, ...]:
        return tuple(device for device in self.devices if device.kind != "cpu")


def eligible(
    devices: Sequence[Device], *, variant: str = "", library: str = "", main_gpu: int | None = None
) -> Eligible:
    """Those of `devices` that a backend of this `variant` can use (empty: it does not say, and may use all).

    `library` is the kind that the operator has chosen, `main_gpu` the index of the only accelerator to use. Raises
    `BadRequest` if there is no such index; where there is no accelerator at all, the index says nothing.
    """
    chosen: list[Device] = []
    reasons: list[str] = []
    for device in devices:
        if device.kind == "cpu":
            if not device.unusable:
                chosen.append(device)
        elif library and device.kind != library:
            continue
        elif reason := _why_not(device, variant):
            reasons.append(f"{device.name} ({device.id}): {reason}")
        else:
            chosen.append(device)
    if library not in ("", "cpu") and not any(device.kind == library for device in devices):
        reasons.append(f"no {library} device was found")
    accelerators = [device for device in chosen if device.kind != "cpu"]
    if main_gpu is not None and accelerators:
        if not 0 <= main_gpu < len(accelerators):
            there = "there is 1 GPU" if len(accelerators) == 1 else f"there are {len(accelerators)} GPUs"
            raise BadRequest(f'option "main_gpu" is {main_gpu}, but {there}, counted from 0')
        chosen = [device for device in chosen if device.kind == "cpu" or device is accelerators[main_gpu]]
    return Eligible(devices=tuple(chosen), reasons=tuple(reasons))


def _why_not(device: Device, variant: str) -> str:
    if device.unusable:
        return device.unusable
    if variant and KINDS.get(variant, variant) != device.kind:
        return f"the backend that is installed computes on {variant}, not on {device.kind}"
    return ""
