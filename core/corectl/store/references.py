"""Blobs that are files elsewhere, used where they lie.

Such a blob is a symbolic link in `blobs`, which every program that reads the store can follow, and a record beside the
blobs of what the file was when it was hashed. A link without a record of its own is somebody else's; nothing is known
of its file, and nothing is checked.
"""

from __future__ import annotations

import errno
import os
import stat
import tempfile
from pathlib import Path

import msgspec

from corectl.errors import BadModelFile
from corectl.model.files import read_small
from corectl.store.disk import sync_directory

_MAX_RECORD = 1 << 16


class Reference(msgspec.Struct, frozen=True):
    """A file elsewhere as it was when it was hashed: an absolute path, bytes, and the time of its last change."""

    path: str
    size: int
    mtime_ns: int

    @property
    def problem(self) -> str:
        """What is wrong with the file now, and what to do about it; empty if it is as it was."""
        try:
            status = Path(self.path).stat()
        except OSError as exc:
            return (
                f"the file {self.path}, which the model uses where it lies, cannot be read ({exc.strerror}); "
                "put it back, or create the model again"
            )
        if stat.S_ISREG(status.st_mode) and (status.st_size, status.st_mtime_ns) == (
            self.size,
            self.mtime_ns,
        ):
            return ""
        return (
            f"the file {self.path}, which the model uses where it lies, has changed; create the model again, "
            "or type 'corectl verify' if its content is still the same"
        )


class References:
    """The records of a store, in the folder `corectl/references` under the models folder `root`."""

    def __init__(self, root: Path) -> None:
        self._folder = root / "corectl" / "references"

    def find(self, blob: Path) -> Reference | None:
        """What the blob refers to; None for a plain file, and for a link that has no record here. Raises `OSError`."""
        try:
            target = str(blob.readlink())
            found = msgspec.json.decode(read_small(self._folder / blob.name, _MAX_RECORD), type=Reference)
        except (FileNotFoundError, BadModelFile, msgspec.DecodeError, UnicodeDecodeError):
            return None
        except OSError as error:
            if error.errno == errno.EINVAL:  # not a link
                return None
            raise
        return found if found.path == target else None

    def problem(self, blob: Path) -> str:
        """What is wrong with the file that the blob refers to; empty if nothing is, or if it refers to none."""
        reference = self.find(blob)
        return reference.problem if reference is not None else ""

    def write(self, blob: Path, reference: Reference) -> None:
        """Make the blob refer to a file, in one step. Raises `OSError`."""
        self._folder.mkdir(parents=True, exist_ok=True)
        self._write_record(blob.name, msgspec.json.encode(reference))
        # A name that is taken by what was there before cannot be linked to; a rename replaces it.
        with tempfile.TemporaryDirectory(prefix="tmp-", dir=blob.parent) as folder:
            link = Path(folder, blob.name)
            link.symlink_to(reference.path)
            link.replace(blob)
        sync_directory(blob.parent)

    def _write_record(self, name: str, data: bytes) -> None:
        descriptor, temporary = tempfile.mkstemp(prefix=".tmp-", dir=self._folder)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fchmod(descriptor, 0o644)
                os.fsync(descriptor)
            Path(temporary).replace(self._folder / name)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
        sync_directory(self._folder)

    def forget(self, blob: Path) -> None:
        """Remove the record of a blob that is gone."""
        (self._folder / blob.name).unlink(missing_ok=True)

    def tidy(self, blobs: Path) -> None:
        """Remove the records whose blob refers to nothing, or to something else. Raises `OSError`."""
        # The blobs may be on a disk that is not mounted.
        if blobs.is_dir() and self._folder.is_dir():
            for record in self._folder.iterdir():
                if self.find(blobs / record.name) is None:
                    record.unlink(missing_ok=True)
