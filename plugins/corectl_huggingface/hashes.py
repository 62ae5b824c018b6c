"""SHA-256 of files that are not named by it, without making anybody wait for gigabytes."""

from __future__ import annotations

import hashlib
import logging
import threading
from collections import OrderedDict
from pathlib import Path

from corectl.errors import Busy

log = logging.getLogger(__name__)

AT_ONCE = 64 << 20
"""Bytes of a file that is hashed while its asker waits: a fraction of a second."""

_REMEMBERED = 4096

Key = tuple[Path, int, int]


class Hashes:
    """Remembers the hashes of files for as long as these keep their size and time of change.

    Large files are hashed one after the other on a thread of their own, which ends when none is left.
    """

    def __init__(self, at_once: int = AT_ONCE) -> None:
        self._at_once = at_once
        self._lock = threading.Lock()
        self._known: OrderedDict[Key, str] = OrderedDict()
        self._waiting: OrderedDict[Key, None] = OrderedDict()
        self._thread: threading.Thread | None = None

    def sha256(self, path: Path) -> str:
        """In hex. Raises `Busy` for a large file whose hash is not known yet, `OSError` as reading does."""
        status = path.stat()
        key = (path, status.st_size, status.st_mtime_ns)
        with self._lock:
            if key in self._known:
                self._known.move_to_end(key)
                return self._known[key]
            if status.st_size > self._at_once:
                self._waiting[key] = None
                self._start()
                raise Busy(f"{path.name} is being read for the first time; try again in a while")
        return self._hash(key)

    def _start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="hub cache hashes", daemon=True)
            self._thread.start()

    def _work(self) -> None:
        while (key := self._next()) is not None:
            try:
                self._hash(key)
            except OSError as exc:
                log.warning("%s of the Hugging Face cache cannot be read: %s", key[0].name, exc)
            with self._lock:
                self._waiting.pop(key, None)

    def _next(self) -> Key | None:
        with self._lock:
            key = next(iter(self._waiting), None)
            if key is None:
                self._thread = None
            return key

    def _hash(self, key: Key) -> str:
        with key[0].open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        with self._lock:
            self._known[key] = found
            while len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)
        return found
