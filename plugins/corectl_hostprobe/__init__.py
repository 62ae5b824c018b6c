"""Reports this machine's processor and memory."""

from __future__ import annotations

import platform

from corectl import hookimpl
from corectl.hardware.cores import usable_cores
from corectl.hardware.device import Device, HardwareProbe
from corectl.hardware.ram import machine_memory

corectl_api = 1


class HostProbe:
    """The processor as one device; its memory is the machine's, or what a container leaves of it."""

    name = "host"

    def devices(self) -> list[Device]:
        memory = machine_memory()
        return [
            Device(
                id="cpu",
                kind="cpu",
                name=platform.processor() or platform.machine(),
                memory_total=memory.total,
                memory_free=memory.free,
                swap=memory.swap,
                cores=usable_cores(),
            )
        ]


@hookimpl
def corectl_hardware_probes() -> list[HardwareProbe]:
    return [HostProbe()]
