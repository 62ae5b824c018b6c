"""Machines whose memory is divided among groups of cores (NUMA nodes). Pure, but for the kernel's files."""

from __future__ import annotations

import re
from collections.abc import Sequence, Set
from pathlib import Path

from corectl.hardware.kernel import names

OFF, DISTRIBUTE, AS_ALLOWED = 0, 1, 3
"""llama.cpp's numbers for what it may do: nothing, spread threads over all nodes, or keep to the allowed cores."""

_NODES = "sys/devices/system/node"


def nodes(root: Path = Path("/")) -> list[set[int]]:
    """The numbers of each node's hardware threads; one may have memory only. Empty where the kernel tells of none."""
    found = sorted(name for name in names(root / _NODES) if re.fullmatch(r"node\d+", name))
    return [
        {int(name[3:]) for name in names(root / _NODES / node) if re.fullmatch(r"cpu\d+", name)}
        for node in found
    ]


def strategy(nodes: Sequence[Set[int]], allowed: Set[int]) -> int:
    """What llama.cpp should do for threads that may run on the `allowed` hardware threads.

    Whoever has confined the server to one node wants no other. And to spread threads llama.cpp puts each on all of a
    node's cores, which must then be there and be ours.
    """
    if sum(not node.isdisjoint(allowed) for node in nodes) < 2:
        return OFF
    return DISTRIBUTE if all(node and node <= allowed for node in nodes) else AS_ALLOWED
