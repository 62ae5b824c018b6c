"""What a hardware probe reports."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, Protocol, runtime_checkable

import msgspec

DeviceKind = Literal["cpu", "cuda", "rocm", "metal", "vulkan", "sycl"]


class Device(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that computes. Memory is in bytes; for a CPU it is the machine's, and `swap` is its room besides.

    `id` is stable while the server runs and unique over all probes: what the maker's variable for visible devices calls
    it, or its place on the PCI bus. `kind` is its own way to compute, and `also` are others that it can be used by.
    `architecture` is what programs for it are built for: a compute capability (`8.9`), a gfx target (`gfx1100`), the
    family of a CPU's instructions. `cores` counts physical cores (0: not known).

    `unusable` says why the device cannot be used in its own way (empty: it can), and `remedy` what to type or change.
    `hidden`: that is because somebody has asked for it. One that is `integrated` has no memory but the machine's. One
    that is `alone` cannot compute together with others. The inventory fills in `found_by`, the name of the probe.
    """

    id: str
    kind: DeviceKind
    name: str
    memory_total: int
    memory_free: int
    swap: int = 0
    cores: int = 0
    driver: str = ""
    architecture: str = ""
    integrated: bool = False
    alone: bool = False
    also: tuple[DeviceKind, ...] = ()
    unusable: str = ""
    remedy: str = ""
    hidden: bool = False
    found_by: str = ""

    @property
    def ways(self) -> tuple[DeviceKind, ...]:
        """The ways in which it can be used, its own first."""
        return self.also if self.unusable else (self.kind, *self.also)


class HardwareProbe(Protocol):
    """Reports devices; see `corectl.hookspecs.corectl_hardware_probes` for when it is called."""

    @property
    def name(self) -> str: ...

    def devices(self) -> list[Device]: ...


@runtime_checkable
class DetailedProbe(Protocol):
    """A probe that knows more of the machine than a load needs."""

    def details(self) -> Mapping[str, str]:
        """Facts by what they are called, for people. May take half a second: only `corectl hardware` asks."""
        ...
