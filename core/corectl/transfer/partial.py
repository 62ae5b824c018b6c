"""A blob that is not complete yet: its file, what is written to it, and its digest so far. All of it blocks."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from corectl.store.disk import sync_directory
from corectl.store.lock import claim
from corectl.transfer.parts import Notes, Part, plan
from corectl.transfer.rules import Rules

BLOCK = 2**18
"""Bytes that are read back and hashed at once: few enough for the cache of a processor."""


STEP = 2**19
"""Bytes that are written at once. For more the file system takes blocks of memory so large that a virtual machine has
often given them back to its host: to get them again takes several times as long as the copying."""


class PartialFile:
    """The file `<blob>-partial`. Only one process and one download has it at a time; see `open`."""

    def __init__(self, blob: Path) -> None:
        self.blob = blob
        self.path = blob.with_name(f"{blob.name}-partial")
        self.notes = Notes(self.path)
        self.hashed = 0
        """Bytes from the start that are in the digest."""
        self._descriptor = -1
        self._digest = hashlib.sha256()
        self._buffer = bytearray(0)

    @property
    def allocated(self) -> int:
        """Bytes of the disk that it has already, whoever has it."""
        try:
            return self.path.stat().st_blocks * 512
        except OSError:
            return 0

    def open(self) -> bool:
        """Takes the file for this download; False while another process has it. Raises `OSError`."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            # Whoever had it may have made it a blob, or removed it, since it was opened.
            if claim(descriptor) and os.path.samestat(os.fstat(descriptor), self.path.stat()):
                self._descriptor = descriptor
        except FileNotFoundError:
            return False
        finally:
            if self._descriptor != descriptor:
                os.close(descriptor)
        return self._descriptor == descriptor

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def parts(self, size: int, rules: Rules) -> list[Part]:
        """Where to go on; from the start, where nothing usable is there. Makes the file as long as the blob."""
        there = os.fstat(self._descriptor).st_size
        parts = self.notes.read(size) if there <= size else None
        if parts is None:
            self.notes.remove()
            os.ftruncate(self._descriptor, 0)
            parts = plan(size, rules)
        os.ftruncate(self._descriptor, size)
        for part in parts:
            # A power failure may have left the notes and taken the bytes: then there is a hole.
            part.completed = max(min(part.completed, self._filled(part.offset, there) - part.offset), 0)
        return parts

    def _filled(self, offset: int, size: int) -> int:
        """Where the bytes end that begin at `offset`, as far as the file system knows."""
        if offset >= size:
            return 0
        return os.lseek(self._descriptor, offset, os.SEEK_HOLE) if hasattr(os, "SEEK_HOLE") else size

    def restart(self) -> None:
        """Forgets all of it."""
        self.notes.remove()
        os.ftruncate(self._descriptor, 0)
        self.hashed, self._digest = 0, hashlib.sha256()

    def write(self, pieces: Sequence[bytes | memoryview], offset: int) -> int:
        """Writes all of the pieces, one behind the other; returns how many bytes. Raises `OSError`."""
        return sum(self._write(batch, offset + begin) for begin, batch in _batches(pieces))

    def _write(self, left: list[memoryview], offset: int) -> int:
        total = 0
        while left:
            wrote = os.pwritev(self._descriptor, left[:64], offset + total)
            total += wrote
            while left and wrote >= len(left[0]):
                wrote -= len(left.pop(0))
            if left:
                left[0] = left[0][wrote:]
        return total

    def hash_to(self, front: int) -> None:
        """Takes what is in the file before `front` into the digest."""
        if not self._buffer:
            self._buffer = bytearray(BLOCK)
        view = memoryview(self._buffer)
        while self.hashed < front:
            count = os.preadv(self._descriptor, [view[: front - self.hashed]], self.hashed)
            if count <= 0:
                raise OSError("the file of a download has become shorter")
            self._digest.update(view[:count])
            self.hashed += count

    @property
    def digest(self) -> str:
        return f"sha256:{self._digest.hexdigest()}"

    def flush(self) -> None:
        """Waits until the disk has what was written before. Raises `OSError`."""
        os.fsync(self._descriptor)

    def adopt(self) -> None:
        """Makes the file the blob. Raises `OSError`."""
        os.fchmod(self._descriptor, 0o644)
        os.fsync(self._descriptor)
        # In this order: notes without a file are started over, a file without notes as well.
        self.path.replace(self.blob)
        self.notes.remove()
        sync_directory(self.blob.parent)

    def discard(self) -> None:
        """Removes the file and its notes."""
        self.path.unlink(missing_ok=True)
        self.notes.remove()


def _batches(pieces: Iterable[bytes | memoryview]) -> Iterator[tuple[int, list[memoryview]]]:
    """The same bytes in lists of at most `STEP` bytes, each with its distance from the first byte."""
    begin, size, batch = 0, 0, list[memoryview]()
    for piece in pieces:
        view = memoryview(piece)
        while view:
            taken, view = view[: STEP - size], view[STEP - size :]
            batch.append(taken)
            size += len(taken)
            if size == STEP:
                yield begin, batch
                begin, size, batch = begin + size, 0, []
    if batch:
        yield begin, batch
