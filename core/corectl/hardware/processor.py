"""What the machine's processor is called, and which vector instructions it has."""

from __future__ import annotations

import platform
import sys
from collections.abc import Collection, Iterable
from functools import cache
from pathlib import Path

import msgspec

from corectl.hardware.kernel import read
from corectl.hardware.sysctl import sysctl

_X86 = (
    *("sse3", "ssse3", "sse4_2", "avx", "f16c", "fma", "avx2", "bmi2", "avx_vnni"),
    *("avx512f", "avx512bw", "avx512vl", "avx512vbmi", "avx512_vnni", "avx512_bf16", "avx512_fp16"),
    *("amx_tile", "amx_int8", "amx_bf16"),
)
_X86_NAMES = {"pni": "sse3"}
"""What the kernel calls otherwise."""
_ARM = {
    "asimd": "neon",
    "neon": "neon",
    "asimdhp": "fp16",
    "asimddp": "dotprod",
    "i8mm": "i8mm",
    "bf16": "bf16",
    "sve": "sve",
    "sve2": "sve2",
    "sme": "sme",
}
_INTEL_MAC = ("machdep.cpu.features", "machdep.cpu.leaf7_features")
_APPLE = {
    "hw.optional.arm.FEAT_FP16": "fp16",
    "hw.optional.arm.FEAT_DotProd": "dotprod",
    "hw.optional.arm.FEAT_I8MM": "i8mm",
    "hw.optional.arm.FEAT_BF16": "bf16",
    "hw.optional.arm.FEAT_SME": "sme",
}


class Processor(msgspec.Struct, frozen=True):
    """Its name, the family of its instructions (`x86_64`, `arm64` ...), and its vector extensions.

    Extensions have the kernel's names on x86 (`avx2`, `avx512_vnni`, `amx_int8`); on Arm they are `neon`, `fp16`,
    `dotprod`, `i8mm`, `bf16`, `sve`, `sve2` and `sme`. None are known on Windows.
    """

    name: str
    family: str
    extensions: tuple[str, ...] = ()


@cache
def processor(root: Path = Path("/")) -> Processor:
    """This machine's. Reads the first lines of a file of the kernel's, or asks macOS, once."""
    if sys.platform == "darwin":
        return _of_macos(sysctl("machdep.cpu.brand_string", *_INTEL_MAC, *_APPLE))
    return _of_linux(read(root / "proc/cpuinfo"), read(root / "proc/device-tree/model", 200))


def _of_linux(cpuinfo: str, board: str) -> Processor:
    """Of the first core that is listed. Arm's cores have no name there, so the board's stands for it."""
    lines: dict[str, str] = {}
    for line in cpuinfo.splitlines():
        name, _, value = line.partition(":")
        lines.setdefault(name.strip().lower(), value.strip())
    flags = {_X86_NAMES.get(flag, flag) for flag in lines.get("flags", "").split()}
    features = {_ARM.get(feature, "") for feature in lines.get("features", "").split()}
    return Processor(
        lines.get("model name") or board or _generic_name(),
        platform.machine(),
        _known(_X86, flags) + _known(_ARM.values(), features),
    )


def _of_macos(said: dict[str, str]) -> Processor:
    flags = (
        " ".join(said.get(key, "") for key in _INTEL_MAC).lower().replace("avx1.0", "avx").replace(".", "_")
    )
    there = [name for key, name in _APPLE.items() if said.get(key) == "1"]
    return Processor(
        said.get("machdep.cpu.brand_string") or _generic_name(),
        platform.machine(),
        ("neon", *there) if platform.machine() == "arm64" else _known(_X86, flags.split()),
    )


def _known(names: Iterable[str], there: Collection[str]) -> tuple[str, ...]:
    return tuple(name for name in dict.fromkeys(names) if name in there)


def _generic_name() -> str:
    return platform.processor() or platform.machine()
