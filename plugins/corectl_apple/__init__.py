"""Reports the GPU of Macs with Apple silicon. Silent on all other machines."""

from __future__ import annotations

import platform
import sys
from collections.abc import Callable, Mapping

from corectl import hookimpl
from corectl.hardware.device import Device, HardwareProbe
from corectl.hardware.ram import machine_memory
from corectl.hardware.sysctl import sysctl

corectl_api = 1

_MIB = 2**20
_LARGE_MACHINE = 36 * 2**30
_ROSETTA = (
    "Python runs in Rosetta, as a program for Intel's processors",
    "install Python and corectl for arm64; 'file $(which python3)' says which one this is",
)


class AppleProbe:
    """One device, whose memory is the machine's, up to the limit that Metal has. `ask` is macOS's sysctl."""

    name = "apple"

    def __init__(self, ask: Callable[..., Mapping[str, str]] = sysctl) -> None:
        self._ask = ask

    def devices(self) -> list[Device]:
        if sys.platform != "darwin":
            return []
        said = self._ask(
            "hw.optional.arm64",
            "hw.memsize",
            "iogpu.wired_limit_mb",
            "machdep.cpu.brand_string",
            "sysctl.proc_translated",
        )
        if said.get("hw.optional.arm64") != "1":
            return []
        reason, remedy = _ROSETTA if said.get("sysctl.proc_translated") == "1" else ("", "")
        machine = machine_memory()
        total = _working_set(
            _number(said, "hw.memsize") or machine.total, _number(said, "iogpu.wired_limit_mb")
        )
        return [
            Device(
                id="metal",
                kind="metal",
                name=f"{said.get('machdep.cpu.brand_string') or 'Apple'} GPU",
                memory_total=total,
                memory_free=min(total, machine.free),
                driver=f"macOS {platform.mac_ver()[0]}".strip(),
                integrated=True,
                unusable=reason,
                remedy=remedy,
            )
        ]


def _working_set(memory: int, limit: int) -> int:
    """Bytes that Metal keeps in memory: the `limit` in MiB that somebody has set, or macOS's own.

    That one leaves a third to everything else, and on large machines a quarter.
    """
    if limit:
        return min(memory, limit * _MIB)
    return memory // 4 * 3 if memory >= _LARGE_MACHINE else memory // 3 * 2


def _number(said: Mapping[str, str], name: str) -> int:
    text = said.get(name, "")
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 20 else 0


@hookimpl
def corectl_hardware_probes() -> list[HardwareProbe]:
    return [AppleProbe()]
