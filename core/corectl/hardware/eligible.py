"""Which of a machine's devices a model may be loaded on: what its backend can use, and what was asked for. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from corectl.errors import BadRequest
from corectl.hardware.device import Device

KINDS = {"hip": "rocm"}
"""What backends call a way to compute, where it has another name than the devices."""
_SMALL = ("rocm", "vulkan", "sycl")
"""Where these are integrated, they are a processor's small GPU, which nobody misses when it is not used."""

_NONE: Mapping[str, str] = {}


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


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """How a device would be used, or why it is not (`reason`) and what to type or change (`remedy`).

    `expected`: nobody is surprised that it is not used.
    """

    device: Device
    reason: str = ""
    remedy: str = ""
    expected: bool = False


def judge(devices: Sequence[Device], *, variant: str = "", library: str = "") -> list[Verdict]:
    """A verdict on each device, for a backend of this `variant` (empty: it does not say, and may use all).

    `library` is the kind that the operator has chosen. A device that is used has the kind in which it is. Those that
    are integrated are not used beside others, which would only wait for them.
    """
    verdicts = [_verdict(device, variant, library) for device in devices]
    if any(not v.reason and v.device.kind != "cpu" and not v.device.integrated for v in verdicts):
        verdicts = [_beside_others(v) if v.device.integrated and not v.reason else v for v in verdicts]
    return verdicts


def eligible(
    devices: Sequence[Device],
    *,
    variant: str = "",
    library: str = "",
    main_gpu: int | None = None,
    failures: Mapping[str, str] = _NONE,
) -> Eligible:
    """Those of `devices` that `judge` does not reject, and what it says of others.

    `failures` says of probes, by their names, why they reported nothing: nobody knows what they would have found.
    `main_gpu` is the index of the only accelerator to use. Raises `BadRequest` if there is no such index; where there
    is no accelerator at all, the index says nothing.
    """
    verdicts = judge(devices, variant=variant, library=library)
    chosen = [verdict.device for verdict in verdicts if not verdict.reason]
    reasons = [
        f"{v.device.name} ({v.device.id}): {v.reason}" for v in verdicts if v.reason and not v.expected
    ]
    if library not in ("", "cpu") and not any(library in (d.kind, *d.also) for d in devices):
        reasons.append(f"no {library} device was found")
    if library != "cpu":
        reasons += [f"the hardware probe {name} failed: {failure}" for name, failure in failures.items()]
    accelerators = [device for device in chosen if device.kind != "cpu"]
    if main_gpu is not None and accelerators:
        if not 0 <= main_gpu < len(accelerators):
            there = "there is 1 GPU" if len(accelerators) == 1 else f"there are {len(accelerators)} GPUs"
            raise BadRequest(f'option "main_gpu" is {main_gpu}, but {there}, counted from 0')
        chosen = [device for device in chosen if device.kind == "cpu" or device is accelerators[main_gpu]]
    return Eligible(devices=tuple(chosen), reasons=tuple(reasons))


def _verdict(device: Device, variant: str, library: str) -> Verdict:
    if device.kind == "cpu":
        return Verdict(device=device, reason=device.unusable, remedy=device.remedy, expected=True)
    if library and library not in (device.kind, *device.also):
        return Verdict(
            device=device,
            reason=f"the setting llm_library asks for {library}",
            remedy="leave out OLLAMA_LLM_LIBRARY",
            expected=True,
        )
    wanted = KINDS.get(variant, variant) or library or device.kind
    if wanted in device.ways and wanted == (library or wanted):
        return Verdict(device=msgspec.structs.replace(device, kind=wanted, unusable="", remedy=""))
    expected = device.hidden or (device.integrated and device.kind in _SMALL)
    if device.unusable:
        return Verdict(device=device, reason=device.unusable, remedy=device.remedy, expected=expected)
    return Verdict(
        device=device,
        reason=f"the backend that is installed computes on {variant}, not on {library or device.kind}",
        remedy=f"install a build of the backend for {library or ' or '.join(device.ways)}",
        expected=expected,
    )


def _beside_others(verdict: Verdict) -> Verdict:
    return Verdict(
        device=verdict.device,
        reason="it shares the machine's memory, and there are GPUs that have their own",
        remedy="hide those, if it is to be used instead",
        expected=True,
    )
