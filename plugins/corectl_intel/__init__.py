"""Reports Intel GPUs, as Linux's drivers i915 and xe show them. Silent where there is none."""

from __future__ import annotations

from pathlib import Path

from corectl import hookimpl
from corectl.hardware.device import Device, HardwareProbe
from corectl.hardware.kernel import is_there, may_use
from corectl.hardware.pci import DISPLAY, PciCard, card_name, cards, not_driven
from corectl.hardware.vulkan import MISSING, REMEDY, has_driver
from corectl_intel.memory import own_memory, shared_memory

corectl_api = 1

_MAKER = 0x8086
_DRIVERS = ("i915", "xe")
_VULKAN = ("intel_icd", "intel_hasvk_icd")
_PROCESSORS = "0000:00:02."
"""The place on the bus of a processor's own GPU, in every Intel processor."""
_SMALLEST = 2**30


class IntelProbe:
    """One device for each GPU, by its place on the bus: for Vulkan, and also for SYCL."""

    name = "intel"

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root

    def devices(self) -> list[Device]:
        # The NPUs in Intel's processors are no GPUs.
        return [self._device(card) for card in cards(_MAKER, self._root, (DISPLAY,))]

    def _device(self, card: PciCard) -> Device:
        if card.driver not in _DRIVERS:
            return not_driven(card, "vulkan", "Intel", _DRIVERS[0], self._root)
        integrated = card.address.startswith(_PROCESSORS)
        total, free = shared_memory() if integrated else own_memory(card.folder)
        why = self._no_access(card) or _too_small(total)
        reason, remedy = why or self._no_vulkan()
        return Device(
            id=card.address,
            kind="vulkan",
            name=card_name(card, "Intel", self._root),
            memory_total=total,
            memory_free=free,
            driver=card.driver,
            integrated=integrated,
            also=() if why else ("sycl",),
            unusable=reason,
            remedy=remedy,
        )

    def _no_access(self, card: PciCard) -> tuple[str, str] | None:
        node = card.render_node
        if not node:
            return "its driver offers nothing to compute with", "use a newer kernel"
        if not is_there(self._root / "dev/dri" / node):
            return f"/dev/dri/{node} is not there", "start the container with: --device /dev/dri"
        if not may_use(self._root / "dev/dri" / node):
            remedy = "type: sudo usermod -aG render,video $USER; then log in again"
            return f"this user may not use /dev/dri/{node}", remedy
        return None

    def _no_vulkan(self) -> tuple[str, str]:
        return ("", "") if has_driver(_VULKAN, self._root) else (MISSING, REMEDY)


def _too_small(memory: int) -> tuple[str, str] | None:
    if memory >= _SMALLEST:
        return None
    return (
        f"only {memory // 2**20} MiB of its memory can be seen",
        "turn on Resizable BAR in the machine's firmware, or use the driver xe of a newer kernel",
    )


@hookimpl
def corectl_hardware_probes() -> list[HardwareProbe]:
    return [IntelProbe()]
