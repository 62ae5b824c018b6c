"""Reports NVIDIA GPUs, as the driver's management library (NVML) sees them. Silent where there is none."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping
from pathlib import Path

import msgspec

from corectl import hookimpl
from corectl.hardware.device import Device, HardwareProbe
from corectl.hardware.kernel import is_there
from corectl.hardware.pci import PciCard, cards, not_driven
from corectl_nvidia.nvml import ask, unseen
from corectl_nvidia.visible import UNSURE, unsure, visible

corectl_api = 1

log = logging.getLogger("corectl.hardware")

_MAKER = 0x10DE
_DRIVER = ("proc/driver/nvidia/version", "dev/nvidiactl")
"""There on Linux if the kernel has loaded the driver."""
_OTHERS = ("dev/dxg", "dev/nvhost-ctrl-gpu")
"""On Linux inside Windows and on small boards the library may be there without those."""


class NvidiaProbe:
    """One device for each GPU, or for each instance that one is divided into, by its UUID."""

    name = "nvidia"

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root
        self._unsure = False

    def details(self) -> Mapping[str, str]:
        """What no device can say of itself, as of the last time that `devices` was asked."""
        return {"order of GPUs": UNSURE} if self._unsure else {}

    def devices(self) -> list[Device]:
        """Those that CUDA_VISIBLE_DEVICES names come first, in its order; the others are hidden."""
        linux = sys.platform == "linux"
        driver = linux and self._has(_DRIVER)
        # Loading the binding takes longer than everything else here.
        if linux and not driver and not self._has(_OTHERS):
            return [self._not_driven(card) for card in cards(_MAKER, self._root)]
        try:
            import pynvml
        except ImportError:
            remedy = "type: pip install 'corectl[nvidia]'"
            return [unseen("nvidia-ml-py is not installed", remedy)] if driver else []
        gpus = ask(pynvml)
        if isinstance(gpus, Device):
            return [gpus] if driver else []
        names = os.environ.get("CUDA_VISIBLE_DEVICES")
        self._note_order(unsure(gpus, names, os.environ.get("CUDA_DEVICE_ORDER")))
        return visible(gpus, names)

    def _note_order(self, unsure: bool) -> None:
        if unsure and not self._unsure:
            log.warning("%s", UNSURE)
        self._unsure = unsure

    def _has(self, signs: tuple[str, ...]) -> bool:
        return any(is_there(self._root / sign) for sign in signs)

    def _not_driven(self, card: PciCard) -> Device:
        device = not_driven(card, "cuda", "NVIDIA", "nvidia", self._root)
        if card.driver != "nvidia":
            return device
        reason, remedy = "this container was not given it", "start the container with: --gpus all"
        return msgspec.structs.replace(device, unusable=reason, remedy=remedy)


@hookimpl
def corectl_hardware_probes() -> list[HardwareProbe]:
    return [NvidiaProbe()]
