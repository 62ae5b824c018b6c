"""Machines for probes: folders with as much of `/sys` and `/dev` as graphics cards have there."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

GIB = 2**30


class Tree:
    """A machine below `root`."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def write(self, files: Mapping[str, object]) -> None:
        for name, content in files.items():
            path = self.root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{content}\n")

    def card(
        self,
        address: str,
        vendor: int,
        product: int,
        driver: str,
        render: int = 0,
        files: Mapping[str, object] | None = None,
    ) -> None:
        """A graphics card on the bus, with these files in its folder; with a number for `render`, one that computes."""
        folder = f"sys/bus/pci/devices/{address}"
        kind = "0x030000"
        numbers = {"vendor": hex(vendor), "device": hex(product), "class": kind}
        self.write({f"{folder}/{name}": content for name, content in {**numbers, **(files or {})}.items()})
        if driver:
            (self.root / folder / "driver").symlink_to(f"../../../../bus/pci/drivers/{driver}")
        if render:
            node = f"renderD{render}"
            (self.root / folder / "drm" / node).mkdir(parents=True)
            (self.root / "sys/class/drm" / node).mkdir(parents=True)
            (self.root / "sys/class/drm" / node / "device").symlink_to(self.root / folder)
            self.write({f"dev/dri/{node}": ""})

    def vulkan(self, driver: str) -> None:
        """A Vulkan driver that is installed."""
        self.write({f"usr/share/vulkan/icd.d/{driver}_icd.x86_64.json": "{}"})
