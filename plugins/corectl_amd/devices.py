"""What is reported of one AMD GPU: its memory, and whether ROCm or Vulkan can compute on it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

import msgspec

from corectl.hardware.device import Device, DeviceKind
from corectl.hardware.kernel import is_there, may_use, number, read
from corectl.hardware.pci import PciCard, not_driven, product_name
from corectl.hardware.ram import machine_memory
from corectl.hardware.vulkan import has_driver
from corectl_amd.kfd import Node
from corectl_amd.targets import INTEGRATED, Target, dotted, name_of, nearest, override

_MAKER = 0x1002
_DRIVER = "amdgpu"
_VULKAN = ("radeon_icd", "amd_icd")
_GROUPS = "type: sudo usermod -aG render,video $USER; then log in again"
_CONTAINER = "start the container with: --device /dev/kfd --device /dev/dri"
_USE_VULKAN = "use a build of the backend for Vulkan"
_NO_MEMORY = (
    "the driver does not say how much memory it has",
    "use a newer kernel, or a newer driver amdgpu",
)


def of_node(node: Node, root: Path, environment: Mapping[str, str], targets: Collection[Target]) -> Device:
    """A GPU that KFD lists. `targets` are those that ROCm computes on."""
    folder = root / "sys/class/drm" / node.render_node / "device"
    integrated = node.cpu_cores > 0 or node.target in INTEGRATED
    total, free = _memory(folder, integrated=integrated)
    reason, remedy = _access(("kfd", f"dri/{node.render_node}"), root) or _target(node, environment, targets)
    if not (reason or total):
        reason, remedy = _NO_MEMORY
    told = " ".join(read(folder / "product_name", 200).split())
    product = told or product_name(_MAKER, node.product, root)
    return Device(
        id=f"GPU-{node.unique:016x}" if node.unique else str(node.index),
        kind="rocm",
        name=f"AMD {product.removeprefix('AMD ')}" if product else f"AMD GPU {name_of(node.target)}",
        memory_total=total,
        memory_free=free,
        driver=_driver(root),
        architecture=name_of(node.target),
        integrated=integrated,
        also=_also(node.render_node, root),
        unusable=reason,
        remedy=remedy,
    )


def of_card(card: PciCard, root: Path) -> Device:
    """A card that KFD does not list."""
    if card.driver != _DRIVER:
        return not_driven(card, "rocm", "AMD", _DRIVER, root)
    total, free = _memory(card.folder, integrated=False)
    return msgspec.structs.replace(
        not_driven(card, "rocm", "AMD", _DRIVER, root),
        memory_total=total,
        memory_free=free,
        driver=_driver(root),
        also=_also(card.render_node, root),
        unusable="the driver amdgpu has it, but does not offer it for computing (KFD)",
        remedy=f"{_USE_VULKAN}, or a kernel that has KFD and knows this GPU",
    )


def _memory(folder: Path, *, integrated: bool) -> tuple[int, int]:
    """Bytes in all, and free ones. A GPU of a processor may use the machine's memory besides the part set apart."""
    total, used = (number(folder / f"mem_info_vram_{name}") or 0 for name in ("total", "used"))
    free = max(0, total - used)
    if integrated:
        shared, taken = (number(folder / f"mem_info_gtt_{name}") or 0 for name in ("total", "used"))
        total += shared
        free += min(max(0, shared - taken), machine_memory().free)
    return total, free


def _access(files: tuple[str, ...], root: Path) -> tuple[str, str] | None:
    """Why the files in `/dev` cannot be used, and the remedy; None if they can."""
    for name in files:
        if not is_there(root / "dev" / name):
            return f"/dev/{name} is not there", _CONTAINER
        if not may_use(root / "dev" / name):
            return f"this user may not use /dev/{name}", _GROUPS
    return None


def _target(node: Node, environment: Mapping[str, str], known: Collection[Target]) -> tuple[str, str]:
    """Why ROCm does not compute on the GPU's target, and the remedy; both empty if it does."""
    wanted, said = override(node.number, environment)
    if said and wanted is None:
        return f"{said} is no version such as 10.3.0", "write three numbers, or leave the variable out"
    target = wanted or node.target
    if target in known:
        return "", ""
    if wanted:
        names = ", ".join(f"{dotted(other)} ({name_of(other)})" for other in sorted(known))
        return f"{said}, but ROCm does not support {name_of(wanted)} here", f"name one of {names}"
    if not any(target):
        return "the kernel does not tell its gfx target", f"use a newer kernel; or {_USE_VULKAN}"
    reason = f"ROCm does not support {name_of(target)} here"
    near = nearest(target, known)
    if near is None:
        return reason, _USE_VULKAN
    variable = f"HSA_OVERRIDE_GFX_VERSION_{node.number}={dotted(near)}"
    return reason, f"{_USE_VULKAN}, or try programs that are made for {name_of(near)}: {variable}"


def _also(render_node: str, root: Path) -> tuple[DeviceKind, ...]:
    usable = render_node and may_use(root / "dev/dri" / render_node) and has_driver(_VULKAN, root)
    return ("vulkan",) if usable else ()


def _driver(root: Path) -> str:
    """The driver's name, and its version if it is not the kernel's own."""
    return f"{_DRIVER} {read(root / 'sys/module/amdgpu/version', 60)}".strip()
