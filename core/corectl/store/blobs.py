"""The blobs of a model store: files named by the SHA-256 of their bytes, written once and never changed."""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import re
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType

import msgspec

from corectl.errors import BadRequest
from corectl.store.disk import clone, sync_directory
from corectl.store.local_file import LocalFile
from corectl.store.lock import claim
from corectl.store.references import Reference, References

_log = logging.getLogger(__name__)

_DIGEST = re.compile(r"sha256[:-]([0-9a-f]{64})")
_LEGACY = re.compile(r"sha256:[0-9a-f]{64}(-partial(-\d+)?)?")
_TEMPORARY = "tmp-"
_PARTIAL = re.compile(r"sha256-[0-9a-f]{64}-partial(-\d+)?")
_UNCLAIMED_S = 60.0
"""Seconds after which a scratch folder that nobody has locked was left behind: by a create that was killed, for one."""
_NO_LINK = frozenset((errno.EXDEV, errno.EPERM, errno.EACCES, errno.EMLINK, errno.ENOTSUP, errno.ENOSYS))
"""Why a hard link is not made where a copy can be: another file system, or one that has none, or not ours to link."""


class StoredBlob(msgspec.Struct, frozen=True):
    """A blob in the store. `digest` is `sha256:<hex>`; `created` is False if it was there before."""

    digest: str
    size: int
    created: bool


@contextmanager
def _claimed(folder: Path) -> Iterator[bool]:
    """Locks a folder for this process, for as long as it lives; False if another one has done so. See `claim`."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield claim(descriptor)
    finally:
        os.close(descriptor)


class BlobWriter:
    """Writes one new blob: `with store.writer() as out: out.write(...); out.commit(None)`.

    Nothing is visible before `commit`; leaving the block without it removes what was written.
    """

    def __init__(self, folder: Path, exists: Callable[[str], bool]) -> None:
        descriptor, name = tempfile.mkstemp(prefix=_TEMPORARY, dir=folder)
        self._file = os.fdopen(descriptor, "wb")
        self._folder = folder
        self._exists = exists
        self._path = Path(name)
        self._hash = hashlib.sha256()
        self._size = 0
        self.created = False

    def __enter__(self) -> BlobWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """What leaving the block does; a large file takes a moment to be removed."""
        try:
            # On a full disk closing fails as well: it writes what is left.
            self._file.close()
        finally:
            self._path.unlink(missing_ok=True)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Append `data`. Raises `OSError`, for one when the disk is full."""
        self._file.write(data)
        self._hash.update(data)
        self._size += len(data)

    def commit(self, expected: str | None) -> tuple[str, int]:
        """Put the blob in its place and return its digest and size; `created` says whether it is new.

        Raises `BadRequest` if the bytes do not have the digest `expected`.
        """
        digest = f"sha256:{self._hash.hexdigest()}"
        if expected is not None and expected.replace("-", ":", 1) != digest:
            raise BadRequest(f'digest mismatch, expected "{expected}", got "{digest}"')
        if not self._exists(digest):
            self._file.flush()
            self._publish(digest)
        return digest, self._size

    def adopt(self, file: LocalFile, digest: str) -> bool:
        """Put the blob in its place as a copy of an open file that takes no room, with a digest that is trusted.

        False where the file system cannot do that. To be called instead of `write` and `commit`.
        """
        if not clone(file.descriptor, self._file.fileno()):
            return False
        file.check()
        self._publish(digest)
        return True

    def _publish(self, digest: str) -> None:
        os.fchmod(self._file.fileno(), 0o644)
        os.fsync(self._file.fileno())
        self._path.replace(self._folder / digest.replace(":", "-"))
        sync_directory(self._folder)
        self.created = True


class BlobStore:
    """The folder `blobs` under the models folder `root`. Digests are `sha256:<hex>` or `sha256-<hex>`."""

    def __init__(self, root: Path) -> None:
        self.folder = root / "blobs"
        self.references = References(root)

    def path_of(self, digest: str) -> Path:
        """Where the blob lies or would lie. Raises `BadRequest` unless `digest` is well formed."""
        found = _DIGEST.fullmatch(digest)
        if found is None:
            raise BadRequest("invalid digest format")
        return self.folder / f"sha256-{found[1]}"

    def exists(self, digest: str) -> bool:
        """Whether the blob is complete and here; a file elsewhere that has changed is not. Raises `BadRequest`."""
        path = self.path_of(digest)
        return path.is_file() and not self.references.problem(path)

    def require(self, digest: str) -> Path:
        """Where the blob lies. Raises `BadRequest` if it is not here, or is a file elsewhere that has changed."""
        if not self.exists(digest):
            problem = self.references.problem(self.path_of(digest))
            raise BadRequest(problem or f'blob "{digest}" not found')
        return self.path_of(digest)

    def writer(self) -> BlobWriter:
        """A writer for a new blob. Raises `OSError`."""
        self.folder.mkdir(parents=True, exist_ok=True)
        return BlobWriter(self.folder, self.exists)

    def put(self, data: bytes) -> StoredBlob:
        """Store `data` unless it is there. Raises `OSError`."""
        with self.writer() as out:
            out.write(data)
            digest, size = out.commit(None)
            return StoredBlob(digest, size, out.created)

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """An empty folder beside the blobs, whose files can be moved into the store; it is gone afterwards.

        However long it is in use, no server takes it for something that was left behind.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=_TEMPORARY, dir=self.folder) as name:
            folder = Path(name)
            with _claimed(folder):
                yield folder

    def move(self, path: Path, digest: str) -> bool:
        """Make a file of a scratch folder a blob, unless it is one; False then. It is on the disk, and not written to.

        The digest is trusted. Raises `BadRequest` for a bad digest or what is no file, and `OSError`.
        """
        target = self.path_of(digest)
        if self.exists(digest):
            return False
        if path.is_symlink() or not path.is_file():
            raise BadRequest(f"{path} is not a regular file")
        path.chmod(0o644)
        path.replace(target)
        sync_directory(self.folder)
        return True

    def link_or_copy(self, path: Path, digest: str) -> StoredBlob:
        """Store a file that lies elsewhere: without its bytes being copied where possible, else as a checked copy.

        A link trusts `digest`. Raises `BadRequest` for a bad digest or what is no file, and `OSError`.
        """
        self.path_of(digest)
        with LocalFile.open(path) as file:
            return self.link(file, digest) or self.copy(file, digest)

    def link(self, file: LocalFile, digest: str) -> StoredBlob | None:
        """Store an open file without copying its bytes: as a clone, or else as a hard link, with the digest trusted.

        A hard link is the same file: only one that is the user's own is linked, so that nobody else can write to it.
        None where neither can be done. Raises `BadRequest` for a file that changed, and `OSError`.
        """
        stored = StoredBlob(digest, file.size, False)
        if self.exists(digest):
            return stored
        with self.writer() as out:
            if out.adopt(file, digest) or (file.status.st_uid == os.geteuid() and self._link(file, digest)):
                return msgspec.structs.replace(stored, created=True)
        return None

    def _link(self, file: LocalFile, digest: str) -> bool:
        """Through a name of its own first: a rename replaces what is there, a link does not."""
        with self.scratch() as folder:
            temporary = folder / "link"
            try:
                temporary.hardlink_to(file.path)
            except OSError as error:
                if error.errno in _NO_LINK:
                    return False
                raise
            linked = temporary.stat()
            if (linked.st_dev, linked.st_ino) != (file.status.st_dev, file.status.st_ino):
                raise BadRequest(f"{file.path} has been replaced while it was read; try again")
            file.check()
            # A file that was not written here may not be on the disk yet.
            os.fsync(file.descriptor)
            temporary.replace(self.path_of(digest))
        sync_directory(self.folder)
        return True

    def refer(self, file: LocalFile, digest: str) -> StoredBlob:
        """Make an open file a blob where it lies: nothing is copied, and it is not used any more once it changes.

        The digest is trusted. Raises `BadRequest` for a file that changed, and `OSError`.
        """
        stored = StoredBlob(digest, file.size, False)
        if self.exists(digest):
            return stored
        file.check()
        self.folder.mkdir(parents=True, exist_ok=True)
        self.references.write(
            self.path_of(digest), Reference(str(file.path), file.size, file.status.st_mtime_ns)
        )
        return msgspec.structs.replace(stored, created=True)

    def copy(
        self, file: LocalFile, digest: str, read: Callable[[int], None] = lambda count: None
    ) -> StoredBlob:
        """Store the bytes of an open file, which must have this digest. Raises `BadRequest` and `OSError`.

        `read` is told how many have been read, and may raise to end it.
        """
        with self.writer() as out:
            for piece in file.pieces():
                out.write(piece)
                read(os.lseek(file.descriptor, 0, os.SEEK_CUR))
            found, size = out.commit(digest)
            return StoredBlob(found, size, out.created)

    def remove(self, digest: str) -> bool:
        """Remove a blob, or the reference to a file elsewhere, but never that file; whether there was one."""
        path = self.path_of(digest)
        if not path.is_symlink() and not path.is_file():
            return False
        path.unlink(missing_ok=True)
        self.references.forget(path)
        return True

    def remove_unreferenced(self, digests: Iterable[str], referenced: Collection[str]) -> list[str]:
        """Remove the blobs of `digests` that are not in `referenced`; returns those that were removed."""
        removed = []
        for digest in dict.fromkeys(digests):
            if digest in referenced or not _DIGEST.fullmatch(digest):
                continue
            if self.remove(digest):
                removed.append(digest)
        return removed

    def digests(self, *, older_than_s: float = 0.0) -> list[str]:
        """All complete blobs that were last written at least `older_than_s` seconds ago."""
        names = [path.name for path in self._entries(older_than_s) if _DIGEST.fullmatch(path.name)]
        return [name.replace("-", ":", 1) for name in names]

    def remove_leftovers(self, *, older_than_s: float, partial_s: float) -> None:
        """Remove what nobody has written to for that long: temporary files and folders, and partial downloads."""
        self.references.tidy(self.folder)
        for path in self._entries(older_than_s):
            if path.name.startswith(_TEMPORARY):
                path.unlink(missing_ok=True)
        for path in self._entries(partial_s):
            if _PARTIAL.fullmatch(path.name):
                path.unlink(missing_ok=True)
        unused = time.time() - min(older_than_s, _UNCLAIMED_S)
        for folder in self.folder.glob(f"{_TEMPORARY}*/"):
            # Another server may be done with it in this moment.
            with suppress(FileNotFoundError):
                if folder.is_symlink() or folder.stat().st_mtime > unused:
                    continue
                with _claimed(folder) as free:
                    if free:
                        shutil.rmtree(folder, ignore_errors=True)

    def rename_legacy(self) -> None:
        """Rename files with the old name `sha256:<hex>` to `sha256-<hex>`."""
        for path in self._entries(0.0):
            if not _LEGACY.fullmatch(path.name):
                continue
            target = path.with_name(path.name.replace(":", "-", 1))
            if target.exists():
                path.unlink()
            else:
                path.replace(target)
            _log.info("renamed the blob %s", path.name)

    def _entries(self, older_than_s: float) -> list[Path]:
        if not self.folder.is_dir():
            return []
        newest = time.time() - older_than_s
        found = []
        for path in self.folder.iterdir():
            try:
                status = path.lstat()
            except FileNotFoundError:  # another server was quicker
                continue
            kind = stat.S_IFMT(status.st_mode)
            if kind in (stat.S_IFREG, stat.S_IFLNK) and (not older_than_s or _since(status) <= newest):
                found.append(path)
        return found


def _since(status: os.stat_result) -> float:
    """When a file became what it is in the store. One with several names may be older than its name here."""
    return max(status.st_mtime, status.st_ctime) if status.st_nlink > 1 else status.st_mtime
