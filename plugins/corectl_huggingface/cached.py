"""The files of a repository that huggingface_hub has downloaded before. All of this blocks."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path

from corectl.errors import BadModelFile
from corectl.model.files import read_small
from corectl_huggingface import snapshots
from corectl_huggingface.hashes import Hashes
from corectl_huggingface.listing import RepoFile

log = logging.getLogger(__name__)


class CachedFiles:
    """Of one repository. What was damaged in the cache counts as not being there."""

    def __init__(self, owner: str, name: str, hashes: Hashes) -> None:
        self._owner, self._name, self._hashes = owner, name, hashes

    def large(self, file: RepoFile) -> Path | None:
        """Where the file lies. It is read as a whole, once: a link to it in the store is believed from then on."""
        try:
            path = snapshots.blob(self._owner, self._name, file.sha256, file.size)
            if path is None or self._hashes.sha256(path) == file.sha256:
                return path
        except OSError:
            return None
        log.warning("%s of the Hugging Face cache is damaged, and is fetched again", path)
        return None

    def small(self, file: RepoFile) -> bytes | None:
        """What is in the file."""
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
