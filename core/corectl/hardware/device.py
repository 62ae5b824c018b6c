"""What a hardware probe reports."""

from __future__ import annotations

from typing import Literal, Protocol

import msgspec

DeviceKind = Literal["cpu", "cuda", "rocm", "metal", "vulkan"]


class Device(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that computes. Memory is in bytes; for a CPU it is the machine's, and `swap` is its room besides.

    `id` is stable while the server runs and unique over all probes, `cores` counts physical cores (0: not known),
    `unusable` says why the device cannot be used (empty: it can).
    """

    id: str
    kind: DeviceKind
    name: str
    memory_total: int
    memory_free: int
    swap: int = 0
    cores: int = 0
    driver: str = ""
    unusable: str = ""


class HardwareProbe(Protocol):
    """Reports devices; see `corectl.hookspecs.corectl_hardware_probes` for when it is called."""

    @property
    def name(self) -> str: ...

    def devices(self) -> list[Device]: ...
