"""Graphics cards and accelerators on the PCI bus of a Linux machine, whether a driver has them or not."""

from __future__ import annotations

import re
from collections.abc import Collection
from functools import cache
from pathlib import Path

import msgspec

from corectl.hardware.device import Device, DeviceKind
from corectl.hardware.kernel import names, number, read

_BUS = "sys/bus/pci/devices"
DISPLAY, COMPUTING = 0x03, 0x12
"""Classes of devices: display controllers, and what is for computing only, NPUs among them."""
_NAMES = ("usr/share/hwdata/pci.ids", "usr/share/misc/pci.ids")
_MOST_NAMES = 4 * 2**20
_PRODUCT = re.compile(r"^\t([0-9a-f]{4})  (.+)$", re.MULTILINE)


class PciCard(msgspec.Struct, frozen=True, kw_only=True):
    """A card by its place on the bus, such as `0000:03:00.0`. `driver` is the kernel module that has it, if any."""

    address: str
    vendor: int
    product: int
    driver: str
    folder: Path

    @property
    def render_node(self) -> str:
        """The name of the file in `/dev/dri` through which it computes; empty if it has none."""
        return next((name for name in names(self.folder / "drm") if name.startswith("renderD")), "")


def cards(
    vendor: int, root: Path = Path("/"), classes: Collection[int] = (DISPLAY, COMPUTING)
) -> list[PciCard]:
    """The cards of a maker in the order of the bus. Reads two small files for each device of the machine."""
    found: list[PciCard] = []
    for address in names(root / _BUS):
        folder = root / _BUS / address
        if number(folder / "vendor") != vendor or (number(folder / "class") or 0) >> 16 not in classes:
            continue
        found.append(
            PciCard(
                address=address,
                vendor=vendor,
                product=number(folder / "device") or 0,
                driver=_link_name(folder / "driver"),
                folder=folder,
            )
        )
    return found


def not_driven(card: PciCard, kind: DeviceKind, maker: str, driver: str, root: Path = Path("/")) -> Device:
    """The device for a card that no driver has, or another than `driver`, the one that could compute on it."""
    if card.driver:
        reason = f"the driver {card.driver} has it, which cannot compute"
        remedy = f"let the driver {driver} have it instead"
    else:
        reason = "no driver has taken it"
        remedy = f"install its driver, or load it: sudo modprobe {driver}"
    return Device(
        id=card.address,
        kind=kind,
        name=card_name(card, maker, root),
        memory_total=0,
        memory_free=0,
        driver=card.driver,
        unusable=reason,
        remedy=remedy,
        # Somebody has given it to a virtual machine.
        hidden=card.driver.startswith("vfio"),
    )


def card_name(card: PciCard, maker: str, root: Path = Path("/")) -> str:
    """A card's maker and product, or its number where nothing tells the name."""
    return f"{maker} {product_name(card.vendor, card.product, root) or f'GPU {card.product:04x}'}"


def product_name(vendor: int, product: int, root: Path = Path("/")) -> str:
    """What the system's list of PCI devices calls a product; empty if there is no list or it is not there.

    Of `Navi 31 [Radeon RX 7900 XT]` that is what stands in brackets: the name under which it is sold.
    """
    for path in _NAMES:
        if name := _products(root / path, vendor).get(product):
            return name.rpartition("[")[2].removesuffix("]")
    return ""


@cache
def _products(path: Path, vendor: int) -> dict[int, str]:
    """A maker's products. In the list a maker is a line; its products follow it, behind one tab."""
    _, found, rest = f"\n{read(path, _MOST_NAMES)}".partition(f"\n{vendor:04x} ")
    products = re.split(r"\n(?=[^\t#\n])", rest, maxsplit=1)[0] if found else ""
    return {int(code, 16): name for code, name in _PRODUCT.findall(products)}


def _link_name(path: Path) -> str:
    try:
        return path.readlink().name
    except OSError:
        return ""
