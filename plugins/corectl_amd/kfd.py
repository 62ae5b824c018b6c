"""The nodes of KFD, the part of Linux's driver amdgpu through which ROCm computes: CPUs and GPUs in one list."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec

from corectl.hardware.kernel import fields, names

NODES = "sys/class/kfd/kfd/topology/nodes"


class Node(msgspec.Struct, frozen=True, kw_only=True):
    """One GPU.

    `index` counts GPUs, as ROCm's lists of visible devices do; `number` counts CPUs as well. `target` are the three
    numbers of its gfx target (zeros: an old kernel does not tell), `unique` is the one behind `GPU-` in its UUID (0: it
    has none), `address` its place on the PCI bus and `render_node` the file in `/dev/dri` through which it computes.
    With `cpu_cores` it is part of a processor.
    """

    index: int
    number: int
    target: tuple[int, int, int]
    unique: int
    address: str
    product: int
    render_node: str
    cpu_cores: int


def gpu_nodes(root: Path) -> list[Node]:
    """All GPUs that this process may see, in ROCm's order."""
    folders = sorted(int(name) for name in names(root / NODES) if name.isascii() and name.isdigit())
    readable = [said for folder in folders if (said := fields(root / NODES / str(folder) / "properties"))]
    # ROCm numbers the nodes that it may read, and leaves out those of others' containers.
    gpus = [(number, said) for number, said in enumerate(readable) if said.get("simd_count")]
    uniques = [said.get("unique_id", 0) for _, said in gpus]
    # Parts of one GPU may have the same, which then tells nothing.
    return [
        _node(index, number, said, unique if uniques.count(unique) == 1 else 0)
        for index, ((number, said), unique) in enumerate(zip(gpus, uniques, strict=True))
    ]


def _node(index: int, number: int, said: Mapping[str, int], unique: int) -> Node:
    version, place = said.get("gfx_target_version", 0), said.get("location_id", 0)
    minor = said.get("drm_render_minor")
    return Node(
        index=index,
        number=number,
        target=(version // 10000, version // 100 % 100, version % 100),
        unique=unique,
        address=f"{said.get('domain', 0):04x}:{place >> 8 & 0xFF:02x}:{place >> 3 & 0x1F:02x}.{place & 7}",
        product=said.get("device_id", 0),
        render_node=f"renderD{minor}" if minor else "",
        cpu_cores=said.get("cpu_cores_count", 0),
    )
