"""How much memory an Intel GPU has. Nothing tells how much of its own is free, so all of it counts as free."""

from __future__ import annotations

from pathlib import Path

from corectl.hardware.kernel import names, number, read
from corectl.hardware.ram import machine_memory

_SMALL_MACHINE = 4 * 2**30


def shared_memory() -> tuple[int, int]:
    """Of a processor's GPU, in all and free: as much of the machine's as its Vulkan driver lets it have."""
    machine = machine_memory()
    total = machine.total // 2 if machine.total <= _SMALL_MACHINE else machine.total // 4 * 3
    return total, min(total, machine.free)


def own_memory(folder: Path) -> tuple[int, int]:
    """Of a card, in all and free, by its folder on the bus.

    The driver xe tells, and so do some versions of i915. Otherwise it is what the processor can see of the memory,
    which is up to a quarter more than there is, if that is no power of two.
    """
    total = sum(
        number(folder / name / "physical_vram_size_bytes") or 0
        for name in names(folder)
        if name.startswith("tile")
    )
    total = total or max((number(path / "lmem_total_bytes") or 0 for path in _cards(folder)), default=0)
    total = total or _largest_window(folder)
    return total, total


def _cards(folder: Path) -> list[Path]:
    return [folder / "drm" / name for name in names(folder / "drm") if name.startswith("card")]


def _largest_window(folder: Path) -> int:
    """The largest range of addresses through which the processor reaches the card."""
    sizes = [0]
    for line in read(folder / "resource").splitlines():
        try:
            first, last, *_ = (int(part[:18], 16) for part in line.split())
        except ValueError:
            continue
        sizes.append(last - first + 1 if last > first else 0)
    return max(sizes)
