"""Blobs that somebody is about to need: no server that shares the store removes them.

Each holder has a file with its digests in `corectl/holds` under the models folder, which it keeps locked. The lock ends
with the process, however that ends.
"""

from __future__ import annotations

import errno
import fcntl
import os
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from corectl.store.lock import claim

_GUESS_S = 7 * 86400.0
"""Seconds after which a hold counts as left behind on a file system that has no locks."""


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
            # A server of somebody else who shares the store must see it.
            os.fchmod(descriptor, 0o664)
            claim(descriptor)
            os.write(descriptor, "".join(f"{digest}\n" for digest in digests).encode())
            yield
        finally:
            Path(name).unlink(missing_ok=True)
            os.close(descriptor)

    def all(self) -> set[str]:
        """What is held by anybody. Files of holders that are gone are removed on the way.

        Raises `OSError` for one that cannot be read.
        """
        found: set[str] = set()
        for path in self._folder.iterdir() if self._folder.is_dir() else ():
            try:
                descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            except FileNotFoundError:  # given up meanwhile
                continue
            with os.fdopen(descriptor) as file:
                if _is_abandoned(file):
                    path.unlink(missing_ok=True)
                else:
                    found.update(file.read().split())
        return found


def _is_abandoned(file: TextIO) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        # Where there are no locks one can only guess.
        held = error.errno in (errno.EWOULDBLOCK, errno.EACCES)
        return not held and os.fstat(file.fileno()).st_mtime < time.time() - _GUESS_S
    return True
