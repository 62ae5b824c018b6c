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
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

import msgspec

from corectl.errors import BadRequest

_log = logging.getLogger(__name__)

_DIGEST = re.compile(r"sha256[:-]([0-9a-f]{64})")
_LEGACY = re.compile(r"sha256:[0-9a-f]{64}(-partial(-\d+)?)?")
_TEMPORARY = "tmp-"
_PARTIAL = re.compile(r"sha256-[0-9a-f]{64}-partial(-\d+)?")
_CHUNK = 1 << 20


class StoredBlob(msgspec.Struct, frozen=True):
    """A blob in the store. `digest` is `sha256:<hex>`; `created` is False if it was there before."""

    digest: str
    size: int
    created: bool


def sync_directory(path: Path) -> None:
    """Make renames in the directory survive a power failure, where the platform can."""
    if os.name == "nt":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class BlobWriter:
    """Writes one new blob: `with store.writer() as out: out.write(...); out.commit(None)`.

    Nothing is visible before `commit`; leaving the block without it removes what was written.
    """

    def __init__(self, folder: Path) -> None:
        descriptor, name = tempfile.mkstemp(prefix=_TEMPORARY, dir=folder)
        self._file = os.fdopen(descriptor, "wb")
        self._folder = folder
        self._path = Path(name)
        self._hash = hashlib.sha256()
        self._size = 0
        self.created = False

    def __enter__(self) -> BlobWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
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
        target = self._folder / digest.replace(":", "-")
        if not target.exists():
            self._file.flush()
            os.fchmod(self._file.fileno(), 0o644)
            os.fsync(self._file.fileno())
            self._path.replace(target)
            sync_directory(self._folder)
            self.created = True
        return digest, self._size


class BlobStore:
    """The folder `blobs` under the models folder `root`. Digests are `sha256:<hex>` or `sha256-<hex>`."""

    def __init__(self, root: Path) -> None:
        self.folder = root / "blobs"

    def path_of(self, digest: str) -> Path:
        """Where the blob lies or would lie. Raises `BadRequest` unless `digest` is well formed."""
        found = _DIGEST.fullmatch(digest)
        if found is None:
            raise BadRequest("invalid digest format")
        return self.folder / f"sha256-{found[1]}"

    def exists(self, digest: str) -> bool:
        """Whether the blob is complete and here. Raises `BadRequest`."""
        return self.path_of(digest).is_file()

    def writer(self) -> BlobWriter:
        """A writer for a new blob. Raises `OSError`."""
        self.folder.mkdir(parents=True, exist_ok=True)
        return BlobWriter(self.folder)

    def put(self, data: bytes) -> StoredBlob:
        """Store `data` unless it is there. Raises `OSError`."""
        with self.writer() as out:
            out.write(data)
            digest, size = out.commit(None)
            return StoredBlob(digest, size, out.created)

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """An empty folder beside the blobs, whose files can be linked into the store; it is gone afterwards."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=_TEMPORARY, dir=self.folder) as folder:
            yield Path(folder)

    def link_or_copy(self, path: Path, digest: str) -> StoredBlob:
        """Store a file that lies elsewhere: as a hard link where possible, else as a copy that is checked.

        A link trusts `digest`. Raises `BadRequest` for a bad digest or what is no file, and `OSError`.
        """
        target = self.path_of(digest)
        source = path.resolve(strict=True)
        status = source.stat()
        if not stat.S_ISREG(status.st_mode):
            raise BadRequest(f"the file for {digest} is not a regular file")
        if target.is_file():
            return StoredBlob(digest, status.st_size, False)
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            target.hardlink_to(source)
        except FileExistsError:
            return StoredBlob(digest, status.st_size, False)
        except OSError as error:
            if error.errno not in (errno.EXDEV, errno.EPERM, errno.EACCES, errno.EMLINK, errno.ENOTSUP):
                raise
            return self._copy(source, digest)
        sync_directory(self.folder)
        return StoredBlob(digest, status.st_size, True)

    def _copy(self, source: Path, digest: str) -> StoredBlob:
        with self.writer() as out, source.open("rb") as file:
            while piece := file.read(_CHUNK):
                out.write(piece)
            found, size = out.commit(digest)
            return StoredBlob(found, size, out.created)

    def remove_unreferenced(self, digests: Iterable[str], referenced: Collection[str]) -> list[str]:
        """Remove the blobs of `digests` that are not in `referenced`; returns those that were removed."""
        removed = []
        for digest in dict.fromkeys(digests):
            if digest in referenced or not _DIGEST.fullmatch(digest):
                continue
            path = self.path_of(digest)
            if path.is_file():
                path.unlink(missing_ok=True)
                removed.append(digest)
        return removed

    def digests(self, *, older_than_s: float = 0.0) -> list[str]:
        """All complete blobs that were last written at least `older_than_s` seconds ago."""
        names = [path.name for path in self._entries(older_than_s) if _DIGEST.fullmatch(path.name)]
        return [name.replace("-", ":", 1) for name in names]

    def remove_leftovers(self, *, older_than_s: float) -> None:
        """Remove temporary files and folders, and partial downloads, that nobody has written to for that long."""
        for path in self._entries(older_than_s):
            if path.name.startswith(_TEMPORARY) or _PARTIAL.fullmatch(path.name):
                path.unlink(missing_ok=True)
        for folder in self.folder.glob(f"{_TEMPORARY}*/"):
            if not folder.is_symlink() and folder.stat().st_mtime <= time.time() - older_than_s:
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
            status = path.lstat()
            if stat.S_ISREG(status.st_mode) and (not older_than_s or status.st_mtime <= newest):
                found.append(path)
        return found
