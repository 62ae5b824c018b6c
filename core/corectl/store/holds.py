"""Blobs that somebody is about to need: no server that shares the store removes them.

Each holder has a file with its digests in `corectl/holds` under the models folder, which it keeps locked. The lock ends
with the process, however that ends.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path


class Holds:
    """The holds of a store. Taking one and asking for all must not happen at once: both need the store's lock."""

    def __init__(self, root: Path) -> None:
        self._folder = root / "corectl" / "holds"

    @contextmanager
    def take(self, digests: Iterable[str]) -> Iterator[None]:
        """Hold `digests` until the block is left. Raises `OSError`."""
        self._folder.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=self._folder)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            os.write(descriptor, "".join(f"{digest}\n" for digest in digests).encode())
            yield
        finally:
            Path(name).unlink(missing_ok=True)
            os.close(descriptor)

    def all(self) -> set[str]:
        """What is held by anybody. Files of holders that are gone are removed on the way."""
        found: set[str] = set()
        for path in self._folder.iterdir() if self._folder.is_dir() else ():
            try:
                descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            except OSError:
                continue
            with os.fdopen(descriptor) as file:
                if _is_abandoned(descriptor):
                    path.unlink(missing_ok=True)
                else:
                    found.update(file.read().split())
        return found


def _is_abandoned(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # somebody has it, or this file system has no locks
        return False
    return True
