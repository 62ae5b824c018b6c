"""How many cores an engine should compute on: those that are there, allowed, fast and paid for."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import psutil

from corectl.hardware.cgroup import groups
from corectl.hardware.kernel import number, read

_ROOT = Path("/")
_SHORT = 64
_MOST_CPUS = 8192
"""More than any kernel is built for."""
_FAST = 0.5
"""A core with less than this part of the fastest one's capacity holds the others up at every barrier."""


def usable_cores() -> int:
    """Physical cores that this process may use, at least 1. Reads a few small files; for worker threads.

    Of two hardware threads of a core one counts, efficiency cores count only where there are no others, and a quota of
    a container counts as so many whole cores: rounded, because a quota that is used up stops all threads together,
    which costs no more than its time.
    """
    cores = len(_physical(_fast(_allowed(), _ROOT), _ROOT)) if sys.platform == "linux" else _counted()
    quota = processor_quota()
    return max(1, cores if quota is None else min(cores, int(quota + 0.5)))


def processor_quota() -> float | None:
    """The container's share of processor time in cores; None if it is not limited."""
    quotas = [quota for folder in groups("cpu", _ROOT) if (quota := _quota_of(folder)) is not None]
    return min(quotas, default=None)


def _allowed() -> set[int]:
    """Numbers of the hardware threads that this process may run on: affinity and cpusets."""
    return os.sched_getaffinity(0)


def _counted() -> int:
    """Where threads cannot be told apart."""
    return _performance_cores() or psutil.cpu_count(logical=False) or os.cpu_count() or 1


def _performance_cores() -> int:
    """What macOS calls the first performance level; 0 where there is none."""
    if sys.platform != "darwin":
        return 0
    count, size = ctypes.c_int32(), ctypes.c_size_t(4)
    name = b"hw.perflevel0.physicalcpu"
    failed = ctypes.CDLL(None).sysctlbyname(name, ctypes.byref(count), ctypes.byref(size), None, 0)
    return 0 if failed else count.value


def _physical(cpus: Iterable[int], root: Path) -> set[str]:
    """One name for each physical core among hardware threads: the list of its threads."""
    topology = "sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"
    return {read(root / topology.format(cpu)) or str(cpu) for cpu in cpus}


def _fast(cpus: set[int], root: Path) -> set[int]:
    """Without efficiency cores, if there are others: Intel's kernel driver lists them, Arm's tells capacities."""
    performance = cpus & set(_parse_list(read(root / "sys/devices/cpu_core/cpus")))
    if performance:
        return performance
    capacity = {cpu: number(root / f"sys/devices/system/cpu/cpu{cpu}/cpu_capacity") or 0 for cpu in cpus}
    return {cpu for cpu in cpus if capacity[cpu] >= _FAST * max(capacity.values())}


def _quota_of(folder: Path) -> float | None:
    quota, _, period = read(folder / "cpu.max", _SHORT).partition(" ")
    if not period:
        quota, period = (read(folder / f"cpu.cfs_{name}_us", _SHORT) for name in ("quota", "period"))
    limited = quota.isdecimal() and period.isdecimal() and int(period) > 0
    return int(quota) / int(period) if limited else None


def _parse_list(text: str) -> Iterator[int]:
    """The numbers in a list as the kernel writes it: `0-3,8`. What is no number is left out."""
    for part in text.split(","):
        first, _, last = part[:20].partition("-")
        if first.isdecimal() and (last or first).isdecimal():
            yield from range(int(first), min(int(last or first), _MOST_CPUS) + 1)
