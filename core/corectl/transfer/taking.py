"""Blobs that need no download: a registry has sent their bytes with its offer, or a file of this machine has them."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from pathlib import Path

from corectl.errors import BadRequest
from corectl.store.blobs import BlobStore
from corectl.store.local_file import LocalFile
from corectl.transfer.body import DigestMismatch

log = logging.getLogger("corectl.transfer")


def take_bytes(blobs: BlobStore, data: bytes, digest: str) -> None:
    """Stores the bytes of a blob. Raises `DigestMismatch`, and `OSError`."""
    found = f"sha256:{hashlib.sha256(data).hexdigest()}"
    if found != digest:
        raise DigestMismatch(digest, found)
    blobs.put(data)


def take_file(blobs: BlobStore, path: Path, digest: str, read: Callable[[int], None]) -> bool:
    """Links or copies a file into the store; False if it is not the blob, or cannot be read.

    It is read as a whole, since a link is believed from then on, and once more if it is copied. `read` is told how much
    has been read, and may raise to end it. Raises `BadRequest` for a file that changes meanwhile, and `OSError` as
    writing does.
    """
    try:
        file = LocalFile.open(path)
    except (BadRequest, OSError):
        return False
    with file:
        if not _is_blob(file, digest, read):
            log.warning("%s is damaged, and is fetched again", path)
            return False
        if blobs.link(file, digest) is None:
            blobs.copy(file, digest, read)
    return True


def _is_blob(file: LocalFile, digest: str, read: Callable[[int], None]) -> bool:
    try:
        return file.digest(read) == digest
    except (BadRequest, OSError):
        return False
