"""The small files in which the kernel says what there is: read without ever waiting, and never much of them."""

from __future__ import annotations

import os
from itertools import islice
from pathlib import Path

MOST_BYTES = 64 * 1024
MOST_NAMES = 4096
_AT_ONCE = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)


def read(path: Path, most: int = MOST_BYTES) -> str:
    """The first `most` bytes of a file without the spaces around them; empty if it cannot be read.

    What would have to be waited for, such as a pipe, is empty too. Bytes that are no UTF-8 are replaced.
    """
    try:
        file = os.open(path, os.O_RDONLY | _AT_ONCE)
    except (OSError, ValueError):
        return ""
    data = b""
    try:
        while len(data) < most and (part := os.read(file, most - len(data))):
            data += part
    except OSError:
        return ""
    finally:
        os.close(file)
    return data.decode("utf-8", "replace").strip("\0 \t\r\n")


def number(path: Path) -> int | None:
    """A whole number of at least 0 in decimal or, after `0x`, in hexadecimal digits; None for anything else."""
    text = read(path, 32)
    if text.isascii() and text.isdigit():
        return int(text)
    try:
        return int(text, 16) if text.startswith("0x") else None
    except ValueError:
        return None


def fields(path: Path) -> dict[str, int]:
    """The lines of a file that are a name, a space and a whole number."""
    found: dict[str, int] = {}
    for line in read(path).splitlines():
        name, _, value = line.partition(" ")
        if value.isascii() and value.isdigit() and len(value) <= 20:
            found[name] = int(value)
    return found


def names(folder: Path) -> list[str]:
    """The names in a folder, sorted; none if it cannot be read."""
    try:
        with os.scandir(folder) as entries:
            return sorted(entry.name for entry in islice(entries, MOST_NAMES))
    except OSError:
        return []


def is_there(path: Path) -> bool:
    """Whether there is a file or folder; if that may not be known, there is none."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def may_use(path: Path) -> bool:
    """Whether this process may read and write a device's file."""
    return os.access(path, os.R_OK | os.W_OK)
