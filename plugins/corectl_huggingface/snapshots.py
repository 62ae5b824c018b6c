"""The folders of huggingface_hub's cache.

A repository lies in `models--<owner>--<name>`: `refs/main` holds the name of a revision, `snapshots/<revision>` its
files, which are links into `blobs`. There, large files are named by their SHA-256, others by what git calls them. Where
links are not possible the files themselves are in `snapshots`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from corectl.model.files import read_small
from corectl_huggingface.environment import cache_folder

MAX_FILES = 10_000
"""Files of a revision that are looked at."""

_REVISION = re.compile(r"[0-9a-f]{6,64}")


def repositories() -> list[Path]:
    """The folders of all models."""
    return sorted(cache_folder().glob("models--*--*"))


def repositories_of(owner: str, name: str) -> Iterator[Path]:
    """The folders of one model, whose name may be spelled in several ways."""
    wanted = f"models--{owner}--{name}".lower()
    return (folder for folder in repositories() if folder.name.lower() == wanted)


def newest(repository: Path) -> Path | None:
    """The files of the revision that is called main, or else of the newest; None if there are none."""
    try:
        revision = read_small(repository / "refs" / "main", 256).decode("ascii", "replace").strip()
    except OSError:
        revision = ""
    found = repository / "snapshots" / revision
    if _REVISION.fullmatch(revision) and found.is_dir():
        return found
    every = sorted((repository / "snapshots").glob("*"), key=lambda path: path.stat().st_mtime)
    return every[-1] if every else None


def files(snapshot: Path) -> dict[str, Path]:
    """The files of a revision that are there, by their paths in the repository."""
    found: dict[str, Path] = {}
    for folder, folders, names in os.walk(snapshot):
        folders.sort()
        for name in sorted(names):
            path = Path(folder, name)
            # A link whose file has been removed, or is not there yet, leads nowhere.
            if path.is_file():
                found[path.relative_to(snapshot).as_posix()] = path
            if len(found) >= MAX_FILES:
                return found
    return found


def blob(owner: str, name: str, called: str, size: int) -> Path | None:
    """The file in the cache that has this name among the blobs of a model, if it is whole."""
    for folder in repositories_of(owner, name):
        path = folder / "blobs" / called
        if path.is_file() and not path.is_symlink() and path.stat().st_size == size:
            return path
    return None
