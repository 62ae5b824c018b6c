"""What the store asks of the file system beyond reading and writing."""

from __future__ import annotations

import errno
import fcntl
import os
import sys
from pathlib import Path

_FICLONE = 0x40049409
"""The request number of Linux that makes a file share the blocks of another one until either is written to."""


def sync_directory(path: Path) -> None:
    """Make renames in the directory survive a power failure, where the platform can."""
    if os.name == "nt":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def clone(source: int, target: int) -> bool:
    """Make the open empty file `target` a copy of `source` that takes no room. False where that cannot be done."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        fcntl.ioctl(target, _FICLONE, source)
    except OSError as exc:
        if exc.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
            raise
        return False  # another file system, or one that cannot
    return True
