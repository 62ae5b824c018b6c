"""Where a device is on the PCI bus: the one thing that hardware probes and ggml's Vulkan both know of it."""

from __future__ import annotations

import re
from pathlib import Path

from corectl.hardware.kernel import read
from corectl.hardware.pci import cards

_ADDRESS = re.compile(r"[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]", re.IGNORECASE)
_AMD = 0x1002
_UNIQUE = "GPU-"
"""What stands before the number that the driver of AMD's GPUs has for each, in ROCm's ids."""


def address_of(id: str, root: Path = Path("/")) -> str:
    """The place of the device with this id, such as `0000:03:00.0`; empty if nothing tells."""
    if _ADDRESS.fullmatch(id):
        return id.lower()
    if not id.startswith(_UNIQUE):
        return ""
    wanted = id.removeprefix(_UNIQUE)
    return next(
        (card.address for card in cards(_AMD, root) if read(card.folder / "unique_id", 32) == wanted), ""
    )
