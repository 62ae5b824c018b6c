"""Which gfx targets ROCm computes on, and what HSA_OVERRIDE_GFX_VERSION makes of the others."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from pathlib import Path

from corectl.hardware.kernel import names

Target = tuple[int, int, int]

SUPPORTED: frozenset[Target] = frozenset(
    {
        *((9, 0, 0), (9, 0, 6), (9, 0, 8), (9, 0, 10), (9, 4, 0), (9, 4, 1), (9, 4, 2)),
        *((10, 3, 0), (11, 0, 0), (11, 0, 1), (11, 0, 2), (11, 5, 1), (12, 0, 0), (12, 0, 1)),
    }
)
"""Those that ROCm is known to compute on, where no installed library says more."""

INTEGRATED: frozenset[Target] = frozenset(
    {
        *((9, 0, 2), (9, 0, 9), (9, 0, 12)),
        *((10, 1, 3), (10, 3, 3), (10, 3, 5), (10, 3, 6)),
        *((11, 0, 3), (11, 5, 0), (11, 5, 1), (11, 5, 2), (11, 5, 3)),
    }
)
"""GPUs of processors: they share the machine's memory."""

_VARIABLE = "HSA_OVERRIDE_GFX_VERSION"
_LIBRARIES = ("opt/rocm/lib/rocblas/library", "usr/lib64/rocblas/library", "usr/lib/rocblas/library")
_NAME = re.compile(r"gfx(\d{1,2})(\d)([0-9a-f])(?![0-9a-f])")


def name_of(target: Target) -> str:
    """Such as `gfx90a` or `gfx1100`."""
    return f"gfx{target[0]}{target[1]:x}{target[2]:x}"


def dotted(target: Target) -> str:
    """As HSA_OVERRIDE_GFX_VERSION has it, such as `9.0.10`."""
    return ".".join(map(str, target))


def override(number: int, environment: Mapping[str, str]) -> tuple[Target | None, str]:
    """What the user has ROCm take the GPU with this number for, and the variable that says so with its value.

    None: nothing is said, or with a value what ROCm cannot read.
    """
    for name in (f"{_VARIABLE}_{number}", _VARIABLE):
        if (value := environment.get(name)) is not None:
            parts = re.fullmatch(r"(\d{1,2})\.(\d{1,3})\.(\d{1,3})", value)
            said = f"{name}={value[:40]}"
            return (int(parts[1]), int(parts[2]), int(parts[3])) if parts else None, said
    return None, ""


def supported(root: Path) -> frozenset[Target]:
    """The targets of the ROCm that is installed, as its library of matrix kernels has them; else the known ones."""
    there = {
        (int(found[1]), int(found[2], 16), int(found[3], 16))
        for folder in _LIBRARIES
        for name in names(root / folder)
        if (found := _NAME.search(name))
    }
    return frozenset(there) or SUPPORTED


def nearest(target: Target, known: Collection[Target]) -> Target | None:
    """The target whose programs may run on one that is not supported: the same but for a lower last number."""
    return max((other for other in known if other[:2] == target[:2] and other < target), default=None)
