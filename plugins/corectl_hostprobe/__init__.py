"""Reports this machine's processor and memory."""

from __future__ import annotations

from corectl import hookimpl
from corectl.hardware.cores import usable_cores
from corectl.hardware.device import Device, HardwareProbe
from corectl.hardware.processor import processor
from corectl.hardware.ram import machine_memory

corectl_api = 1


class HostProbe:
    """The processor as one device; its memory is the machine's, or what a container leaves of it."""

    name = "host"

    def devices(self) -> list[Device]:
        memory, cpu = machine_memory(), processor()
        return [
            Device(
                id="cpu",
                kind="cpu",
                name=cpu.name,
                memory_total=memory.total,
                memory_free=memory.free,
                swap=memory.swap,
                cores=usable_cores(),
                architecture=cpu.family,
            )
        ]

    def details(self) -> dict[str, str]:
        """What a load does not need to know; see `corectl.hardware.device.DetailedProbe`."""
        from corectl_hostprobe.facts import facts

        return facts()


@hookimpl
def corectl_hardware_probes() -> list[HardwareProbe]:
    return [HostProbe()]
