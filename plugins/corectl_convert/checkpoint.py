"""The tensors of a checkpoint: which there are, and their rows, a few at a time. For the process that converts."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
from safetensors import SafetensorError, safe_open

from corectl.errors import BadModelFile
from corectl.model.files import ModelFiles, check_file_name
from corectl.model.hf import config_of
from corectl_convert.tensors import Array

SUFFIX = ".safetensors"
INDEX = "model.safetensors.index.json"

MAX_INDEX = 64 << 20
MAX_HEADER = 32 << 20
"""Bytes. The largest that is known, of a model with thousands of experts, has about ten megabytes."""

MAX_TENSORS = 1 << 18
CHUNK = 8 << 20
"""Bytes of a tensor that are in memory at once, unless one row is longer."""

TYPES = ("F32", "F16", "BF16")


class Stored(msgspec.Struct, frozen=True):
    """One tensor. `file` is the name of the file that it lies in."""

    file: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """In bytes."""
        return math.prod(self.shape) * (4 if self.dtype == "F32" else 2)


class Checkpoint:
    """All tensors of the safetensors files of a folder. Raises `BadModelFile` where they are damaged."""

    def __init__(self, files: ModelFiles, names: tuple[str, ...] = ()) -> None:
        """Of the files that are named, or else of those that hold the weights of a model."""
        self._files = files
        self.tensors: dict[str, Stored] = {}
        for name in names or _weight_files(files):
            self._add(name)
        if not self.tensors:
            raise BadModelFile("the safetensors files hold no tensors")

    def rows(self, name: str, first: int = 0, *, multiple: int = 1) -> Iterator[Array]:
        """A tensor from its row `first` on, in pieces of some rows, a `multiple` each.

        Anything but a matrix counts as one row.
        """
        stored = self.tensors[name]
        count = stored.shape[0] if len(stored.shape) > 1 else 1
        step = max(CHUNK // max(stored.size // max(count, 1), 1) // multiple, 1) * multiple
        with self._open(stored.file) as file:
            if len(stored.shape) < 2:
                yield file.get_tensor(name)
                return
            piece = file.get_slice(name)
            for start in range(first, count, step):
                yield piece[start : min(start + step, count)]

    def _add(self, name: str) -> None:
        with self._open(name) as file:
            keys = file.keys()
            if len(keys) + len(self.tensors) > MAX_TENSORS:
                raise BadModelFile(f"{name} and others hold more than {MAX_TENSORS} tensors")
            for key in keys:
                if key in self.tensors:
                    raise BadModelFile(
                        f"{name}: the tensor {key!r:.200} is in {self.tensors[key].file} as well"
                    )
                piece = file.get_slice(key)
                self.tensors[key] = Stored(name, piece.get_dtype(), tuple(piece.get_shape()))

    def _open(self, name: str) -> Any:
        path = self._files.named[name]
        try:
            _check_header(name, path)
            return safe_open(path, framework="np")
        except (SafetensorError, OSError, RuntimeError, ValueError) as exc:
            raise BadModelFile(f"{name} is damaged: {exc!s:.200}") from exc


def _check_header(name: str, path: Path) -> None:
    """The library's own limit is three times that, which takes gigabytes to read."""
    if not path.is_file():
        raise BadModelFile(f"{name} is no regular file")
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
    if length > MAX_HEADER:
        raise BadModelFile(
            f"{name} is damaged: its header claims {length} bytes, at most {MAX_HEADER} are read"
        )


def _weight_files(files: ModelFiles) -> list[str]:
    """By the index, if there is one; else all that lie at the top and are no second form of the same weights."""
    if INDEX in files.named:
        parts = config_of(files, INDEX, MAX_INDEX).get("weight_map")
        if not isinstance(parts, dict) or not all(isinstance(part, str) for part in parts.values()):
            raise BadModelFile(f"{INDEX}: weight_map is missing or not a map from tensors to files")
        found = sorted(set(parts.values()))
        for name in found:
            check_file_name(name)
            if name not in files.named or not name.endswith(SUFFIX):
                raise BadModelFile(f"{INDEX}: weight_map names the file {name!r:.200}, which is not there")
        return found
    top = sorted(name for name in files.named if name.endswith(SUFFIX) and "/" not in name)
    return [name for name in top if not name.startswith("consolidated")] or top
