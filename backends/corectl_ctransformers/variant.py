"""Which of the library's builds is for this processor."""

from __future__ import annotations

import importlib.util
import platform
import sys
from pathlib import Path

from corectl.hardware.processor import processor

PACKAGE = "ctransformers"

LOCAL = "local"
"""The build that was made where the library was installed from its sources."""

_NEEDS = {"avx2": {"avx2", "fma", "f16c"}, "avx": {"avx", "f16c"}}
"""The builds, best first, and what instructions they take for granted."""


def library_folder() -> Path | None:
    """Where the library's builds lie; None if it is not installed. Imports nothing."""
    spec = importlib.util.find_spec(PACKAGE)
    found = spec.submodule_search_locations if spec is not None else None
    return Path(next(iter(found)), "lib") if found else None


def has_build(folder: Path) -> bool:
    """Whether there is a build for this machine: one that was made here, or one that the package brings."""
    brought = sys.platform == "darwin" or platform.machine().lower() in ("x86_64", "amd64")
    return brought or (folder / LOCAL).is_dir()


def library_variant() -> str | None:
    """The build to load: one that was built here, else the best for the processor.

    None where nothing is known of that: then the library finds out by itself, which takes it a second.
    """
    folder = library_folder()
    if folder is not None and (folder / LOCAL).is_dir():
        return LOCAL
    extensions = set(processor().extensions)
    if not extensions:
        return None
    return next((name for name, needs in _NEEDS.items() if needs <= extensions), "basic")
