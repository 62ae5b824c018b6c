"""Whether a Vulkan driver is installed on a Linux machine: the files from which Vulkan's loader learns of it."""

from __future__ import annotations

import os
from pathlib import Path

from corectl.hardware.kernel import names

_FOLDERS = (
    "usr/share/vulkan/icd.d",
    "usr/local/share/vulkan/icd.d",
    "etc/vulkan/icd.d",
    "run/opengl-driver/share/vulkan/icd.d",
)
_VARIABLES = ("VK_DRIVER_FILES", "VK_ICD_FILENAMES", "VK_ADD_DRIVER_FILES")
"""Name the files instead; what those say is not looked into."""
MISSING = "no Vulkan driver for it is installed"
REMEDY = "install Mesa's Vulkan drivers, such as: sudo apt install mesa-vulkan-drivers"


def has_driver(prefixes: tuple[str, ...], root: Path = Path("/")) -> bool:
    """Whether there is a driver whose file's name begins with one of these, such as `radeon_icd`."""
    if any(os.environ.get(name) for name in _VARIABLES):
        return True
    return any(name.startswith(prefixes) for folder in _FOLDERS for name in names(root / folder))
