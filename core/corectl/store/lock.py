"""One writer at a time: in this process, and among all servers that share a store."""

from __future__ import annotations

import errno
import fcntl
import os
import threading
from pathlib import Path
from types import TracebackType


def claim(descriptor: int) -> bool:
    """Locks an open file or folder for this process until it is closed; False if another one has done so.

    Where the file system has no locks it counts as free.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in (errno.EWOULDBLOCK, errno.EACCES)
    return True


class StoreLock:
    """A lock that its holder may take again. Other processes wait on a file lock on the store's folder itself.

    Where the folder cannot be made or locked, threads of this process are still kept apart.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._threads = threading.RLock()
        self._depth = 0
        self._descriptor = -1

    def __enter__(self) -> StoreLock:
        self._threads.acquire()
        self._depth += 1
        if self._depth == 1:
            try:
                self._root.mkdir(parents=True, exist_ok=True)
                self._descriptor = os.open(self._root, os.O_RDONLY | os.O_CLOEXEC)
                fcntl.flock(self._descriptor, fcntl.LOCK_EX)
            except OSError:
                self._release_file()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._depth -= 1
        if self._depth == 0:
            self._release_file()
        self._threads.release()

    def _release_file(self) -> None:
        """Closing gives the lock back."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
