"""A file of this machine that is to become a blob."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType

from corectl.errors import BadRequest

_PIECE = 4 << 20
_READ_ONLY = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)


class LocalFile:
    """A regular file that is opened once, so that what is hashed is what is linked, whoever renames files meanwhile.

    `path` is absolute and free of links. Use it in a `with` block.
    """

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self.descriptor = descriptor
        self.status = os.fstat(descriptor)

    @classmethod
    def open(cls, path: Path) -> LocalFile:
        """Raises `BadRequest` for what is no regular file, and `OSError`."""
        real = path.resolve(strict=True)
        # Asked before opening as well: opening a device can itself do something.
        if not stat.S_ISREG(real.stat().st_mode):
            raise BadRequest(f"{path} is not a regular file")
        return cls._checked(real, os.open(real, _READ_ONLY))

    @classmethod
    def open_inside(cls, folder: Path, path: Path) -> LocalFile:
        """As `open`, for a resolved `path` inside the resolved `folder`, from where no link is followed any more."""
        *folders, name = path.relative_to(folder).parts
        at = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            for part in folders:
                inner = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=at)
                os.close(at)
                at = inner
            if not stat.S_ISREG(os.stat(name, dir_fd=at, follow_symlinks=False).st_mode):
                raise BadRequest(f"{path} is not a regular file")
            return cls._checked(path, os.open(name, _READ_ONLY | os.O_NOFOLLOW, dir_fd=at))
        finally:
            os.close(at)

    @classmethod
    def _checked(cls, path: Path, descriptor: int) -> LocalFile:
        file = cls(path, descriptor)
        if not stat.S_ISREG(file.status.st_mode):
            os.close(descriptor)
            raise BadRequest(f"{path} is not a regular file")
        return file

    def __enter__(self) -> LocalFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self.descriptor)

    @property
    def size(self) -> int:
        """Bytes that the file had when it was opened."""
        return self.status.st_size

    def digest(self, read: Callable[[int], None] = lambda count: None) -> str:
        """The digest of all bytes; `read` is told how many have been read. Raises `BadRequest` if they change."""
        found = hashlib.sha256()
        for piece in self.pieces():
            found.update(piece)
            read(os.lseek(self.descriptor, 0, os.SEEK_CUR))
        self.check()
        return f"sha256:{found.hexdigest()}"

    def pieces(self) -> Iterator[memoryview]:
        """All bytes from the start. Each piece is only valid until the next one."""
        os.lseek(self.descriptor, 0, os.SEEK_SET)
        buffer = bytearray(_PIECE)
        with open(self.descriptor, "rb", buffering=0, closefd=False) as file:
            while count := file.readinto(buffer):
                yield memoryview(buffer)[:count]

    def check(self) -> None:
        """Raises `BadRequest` if the file has changed since it was opened."""
        now = os.fstat(self.descriptor)
        before = self.status
        if (now.st_size, now.st_mtime_ns) != (before.st_size, before.st_mtime_ns):
            raise BadRequest(f"{self.path} has changed while it was read; try again")
