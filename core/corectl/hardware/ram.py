"""How much of the machine's memory this process may use: what is there, and what its container leaves of it."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import msgspec
import psutil

from corectl.hardware.cgroup import groups
from corectl.hardware.kernel import fields, number


class Memory(msgspec.Struct, frozen=True):
    """Bytes in all, bytes that can be had without swapping, and bytes of swap space."""

    total: int
    free: int
    swap: int


def machine_memory(root: Path = Path("/")) -> Memory:
    """The memory that can be used here. For worker threads: it reads a few small files, below `root`."""
    memory = psutil.virtual_memory()
    with warnings.catch_warnings():
        # Where the system does not count what was swapped, psutil warns; the size is right all the same.
        warnings.simplefilter("ignore", RuntimeWarning)
        swap = psutil.swap_memory().total
    found = Memory(memory.total, memory.available, swap)
    if sys.platform == "linux":
        for folder in groups("memory", root):
            # Version 1 writes a limit that is none as a number larger than any memory.
            limit = _first(folder, "memory.max", "memory.limit_in_bytes")
            if limit is not None and limit < memory.total:
                found = _within(found, folder, limit)
    return found


def _within(found: Memory, group: Path, limit: int) -> Memory:
    """The smaller of what there is and what a control group with a limit leaves; it is given no swap space.

    A group around another may leave less than that one though it may have more, for it is not alone in there.
    """
    used = _first(group, "memory.current", "memory.usage_in_bytes") or 0
    left = max(0, limit - used + _reclaimable(group))
    return Memory(min(found.total, limit), min(found.free, left), 0)


def _reclaimable(group: Path) -> int:
    """Bytes of files in memory, which the kernel lets go when the group needs them."""
    counts = fields(group / "memory.stat")
    names = ("active_file", "inactive_file")
    return sum(counts.get(f"total_{name}") or counts.get(name) or 0 for name in names)


def _first(group: Path, *names: str) -> int | None:
    """The first of these files that has a number."""
    return next((value for name in names if (value := number(group / name)) is not None), None)
