"""Whether the disk has room for what is to come."""

from __future__ import annotations

import shutil
from pathlib import Path

from corectl.errors import CorectlError

MARGIN = 2**20
"""Bytes that must be left for manifests and notes."""


def check_room(folder: Path, needed: int, what: str) -> None:
    """Raises `CorectlError` with status 507 if the disk of a folder has no room for so many bytes of `what`."""
    if needed <= 0:
        return
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if needed + MARGIN > free:
        error = CorectlError(
            f"not enough space for the model store: {what} needs {needed / 1e9:.1f} GB more, "
            f"and {free / 1e9:.1f} GB are free"
        )
        error.status = 507
        raise error
