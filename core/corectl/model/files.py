"""The files of a model, which somebody else may have made."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

import msgspec

from corectl.errors import BadModelFile


class ModelFiles(msgspec.Struct, frozen=True, kw_only=True):
    """Where a model's weights lie: one file, or several that belong into one folder.

    `weights` is the file with the weights, or the first of them. Formats that are folders have all of their files in
    `named`, by their names in that folder (with `/` between its parts); for the others it is empty.
    """

    weights: Path
    named: dict[str, Path] = {}

    def read(self, name: str, limit: int) -> bytes:
        """One file of the folder, of at most `limit` bytes. Raises `BadModelFile`, also if there is none."""
        path = self.named.get(name)
        if path is None:
            raise BadModelFile(f"the model has no file {name}")
        try:
            return read_small(path, limit)
        except OSError as exc:
            raise BadModelFile(f"{name} cannot be read: {exc.strerror}") from exc


@contextmanager
def folder_of(files: ModelFiles, *, instead: Mapping[str, bytes] | None = None) -> Iterator[Path]:
    """A folder in which the files have their own names, for libraries that want one. For the runner process.

    It is the folder where they lie, if they lie together; else one of links, which is gone afterwards. That is so too
    with `instead`: files that are written there in the place of those of these names. Raises `BadModelFile` for a name
    that would lie outside.
    """
    written = instead or {}
    roots = {_root(name, path) for name, path in files.named.items()}
    if not written and len(roots) == 1 and (root := roots.pop()) is not None:
        yield root
        return
    with tempfile.TemporaryDirectory(prefix="corectl-") as folder:
        for name in (*files.named, *written):
            check_file_name(name)
            Path(folder, name).parent.mkdir(parents=True, exist_ok=True)
        for name, path in files.named.items():
            if name not in written:
                Path(folder, name).symlink_to(path.resolve())
        for name, data in written.items():
            Path(folder, name).write_bytes(data)
        yield Path(folder)


def _root(name: str, path: Path) -> Path | None:
    """The folder in which `path` has this name; None if it is called otherwise."""
    parts = PurePosixPath(name).parts
    return Path(*path.parts[: -len(parts)]) if path.parts[-len(parts) :] == parts else None


def check_file_name(name: str) -> None:
    """Raises `BadModelFile` for the name of a file that would not lie inside its folder."""
    path = PurePosixPath(name.replace("\\", "/"))
    drive = len(name) > 1 and name[1] == ":"
    if not path.parts or path.is_absolute() or ".." in path.parts or drive or "\0" in name:
        raise BadModelFile("file path must be relative")


def read_small(path: Path, limit: int) -> bytes:
    """The whole file, of at most `limit` bytes. Raises `BadModelFile` for a larger one, `OSError` as `open` does.

    Anything but a regular file is refused without being read: a FIFO would never end, a device neither.
    """
    # Without O_NONBLOCK the opening of a FIFO would wait for a writer.
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise BadModelFile("a file of the model is no regular file")
        data = file.read(limit + 1)
    if len(data) > limit:
        raise BadModelFile(f"a file of the model is larger than {limit} bytes")
    return data
