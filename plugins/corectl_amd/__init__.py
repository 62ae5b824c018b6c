"""Reports AMD GPUs, as Linux's driver amdgpu and its part for computing (KFD) show them. Silent where there is none."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from corectl import hookimpl
from corectl.hardware.device import Device, HardwareProbe
from corectl.hardware.pci import cards
from corectl_amd.devices import of_card, of_node
from corectl_amd.kfd import gpu_nodes
from corectl_amd.targets import supported
from corectl_amd.visible import arranged

corectl_api = 1

_MAKER = 0x1002


class AmdProbe:
    """One device for each GPU. `environment` has the variables of ROCm; None: this process's."""

    name = "amd"

    def __init__(self, root: Path = Path("/"), environment: Mapping[str, str] | None = None) -> None:
        self._root = root
        self._environment = environment

    def devices(self) -> list[Device]:
        """Those that ROCm shows come first, in its order; then hidden ones, and cards that ROCm does not know."""
        environment = os.environ if self._environment is None else self._environment
        nodes = gpu_nodes(self._root)
        targets = supported(self._root) if nodes else frozenset()
        found = [of_node(node, self._root, environment, targets) for node in nodes]
        known = {node.address for node in nodes}
        others = [card for card in cards(_MAKER, self._root) if card.address not in known]
        return arranged(found, environment) + [of_card(card, self._root) for card in others]


@hookimpl
def corectl_hardware_probes() -> list[HardwareProbe]:
    return [AmdProbe()]
