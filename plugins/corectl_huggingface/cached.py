"""The files of a repository that huggingface_hub has downloaded before. All of this blocks."""

from __future__ import annotations

import hashlib
from pathlib import Path

from corectl.errors import BadModelFile
from corectl.model.files import read_small
from corectl_huggingface import snapshots
from corectl_huggingface.listing import RepoFile


class CachedFiles:
    """Of one repository."""

    def __init__(self, owner: str, name: str) -> None:
        self._owner, self._name = owner, name

    def large(self, file: RepoFile) -> Path | None:
        """Where a file of that name and size lies. Whether it is the one, the pull sees when it reads it."""
        try:
            return snapshots.blob(self._owner, self._name, file.sha256, file.size)
        except OSError:
            return None

    def small(self, file: RepoFile) -> bytes | None:
        """What is in the file. What was damaged in the cache counts as not being there."""
        try:
            path = snapshots.blob(self._owner, self._name, file.sha256 or file.git, file.size)
            data = read_small(path, file.size) if path is not None else None
        except (OSError, BadModelFile):
            return None
        return data if data is not None and is_file(file, data) else None


def is_file(file: RepoFile, data: bytes) -> bool:
    """Whether these are the bytes that the hub has listed."""
    if file.sha256:
        return hashlib.sha256(data).hexdigest() == file.sha256
    named = hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False)
    return named.hexdigest() == file.git
