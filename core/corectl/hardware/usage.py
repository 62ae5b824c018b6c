"""How busy the machine's cores are, cheap enough to be asked several times a second."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import msgspec

_STAT = Path("/proc/stat")
_NICE, _IDLE, _IOWAIT = 2, 4, 5
"""Columns of a line of `/proc/stat`, of which the first is the name."""


class CoreTimes(msgspec.Struct, frozen=True):
    """Seconds of all cores that this process may use, added up since the machine started.

    `idle`: nothing ran. `nicer`: something ran that gives way to this process, as far as the kernel obeys niceness.
    """

    idle: float
    nicer: float


def core_times() -> CoreTimes | None:
    """The times until now; None where the system does not tell. Takes tens of microseconds.

    The cores are hardware threads, of a container's host as well: a quota says nothing about who computes there.
    """
    return _from_kernel() if sys.platform == "linux" else _from_psutil()


def _from_kernel() -> CoreTimes | None:
    """Reads the kernel's own table: importing psutil would cost each runner 10 ms of its start."""
    try:
        table = _STAT.read_bytes()
    except OSError:
        return None
    allowed = os.sched_getaffinity(0)
    names = {b"cpu"} if len(allowed) == os.cpu_count() else {b"cpu%d" % number for number in allowed}
    idle = nicer = total = 0
    for line in table.splitlines():
        name, _, columns = line.partition(b" ")
        if not name.startswith(b"cpu"):
            break
        if name in names:
            ticks = [0, *map(int, columns.split())]
            idle += ticks[_IDLE] + ticks[_IOWAIT]
            nicer += ticks[_NICE]
            total += sum(ticks)
    # Sandboxes that imitate the table fill it with zeros.
    if not total:
        return None
    per_second = os.sysconf("SC_CLK_TCK")
    return CoreTimes(idle / per_second, 0.0 if os.nice(0) > 0 else nicer / per_second)


def _from_psutil() -> CoreTimes:
    import psutil

    times = psutil.cpu_times()
    return CoreTimes(times.idle, getattr(times, "nice", 0.0))
