"""Reads the header of a safetensors file as if it were hostile: each number is checked before it is believed."""

from __future__ import annotations

import math
import os
import stat
from collections.abc import Iterable
from pathlib import Path

import msgspec

from corectl.errors import BadModelFile

MAX_HEADER = 100 << 20
"""Bytes. The format's own limit."""

MAX_HEADERS = 128 << 20
"""Bytes of all headers of a model."""

MAX_TENSORS = 1 << 19
"""Of all files of a model. The largest models that are published have a fifth of it."""

_BITS = {
    **dict.fromkeys(("F64", "I64", "U64", "C64"), 64),
    **dict.fromkeys(("F32", "I32", "U32"), 32),
    **dict.fromkeys(("F16", "BF16", "I16", "U16"), 16),
    **dict.fromkeys(("BOOL", "I8", "U8", "F8_E4M3", "F8_E5M2", "F8_E8M0"), 8),
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
    "F4": 4,
}


class Tensor(msgspec.Struct, frozen=True):
    """A tensor's name, the type of its values, and its dimensions, the slowest first."""

    name: str
    type: str
    shape: tuple[int, ...]

    @property
    def count(self) -> int:
        """How many values there are."""
        return math.prod(self.shape)


class _Entry(msgspec.Struct, frozen=True):
    dtype: str
    shape: tuple[int, ...]
    data_offsets: tuple[int, int]


def read_headers(paths: Iterable[Path]) -> list[Tensor]:
    """All tensors of the files of a model. Raises `BadModelFile` and `OSError`."""
    tensors: list[Tensor] = []
    left = MAX_HEADERS
    for path in paths:
        found, length = _read(path, left, MAX_TENSORS - len(tensors))
        tensors += found
        left -= length
    return tensors


def read_header(path: Path) -> list[Tensor]:
    """All tensors of a file, whose data must fill it without gaps. Raises `BadModelFile` and `OSError`."""
    return read_headers([path])


def _read(path: Path, most_bytes: int, most_tensors: int) -> tuple[list[Tensor], int]:
    """The tensors of a file, and the bytes of its header."""
    data, size = _header(path, most_bytes)
    try:
        raw = msgspec.json.decode(data, type=dict[str, msgspec.Raw])
        raw.pop("__metadata__", None)
        if len(raw) > most_tensors:
            raise BadModelFile(f"the safetensors files have more than {MAX_TENSORS} tensors")
        entries = {name: msgspec.json.decode(value, type=_Entry) for name, value in raw.items()}
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise BadModelFile(f"the header of the safetensors file is damaged: {exc}") from exc
    _check(entries, size - 8 - len(data))
    return [Tensor(name, entry.dtype, entry.shape) for name, entry in entries.items()], len(data)


def _header(path: Path, most: int) -> tuple[bytes, int]:
    """The bytes of the header, and how many the whole file has."""
    # Without O_NONBLOCK the opening of a FIFO would wait for a writer.
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        start = file.read(8) if stat.S_ISREG(status.st_mode) else b""
        length = int.from_bytes(start, "little")
        if len(start) < 8 or not 2 <= length <= min(MAX_HEADER, status.st_size - 8):
            raise BadModelFile("the file is no safetensors file, or was cut off in its header")
        if length > most:
            raise BadModelFile(
                f"the headers of the safetensors files are longer than {MAX_HEADERS >> 20} MiB"
            )
        return file.read(length), status.st_size


def _check(entries: dict[str, _Entry], size: int) -> None:
    end = 0
    for name, entry in sorted(entries.items(), key=lambda item: item[1].data_offsets):
        bits = _BITS.get(entry.dtype)
        if bits is None:
            raise BadModelFile(f"tensor {name[:200]!r} has a type that is not known: {entry.dtype[:32]!r}")
        if any(not 0 <= length < 2**40 for length in entry.shape) or len(entry.shape) > 16:
            raise BadModelFile(f"tensor {name[:200]!r} has a shape that cannot be")
        first, last = entry.data_offsets
        if first != end or (last - first) * 8 != math.prod(entry.shape) * bits or last > size:
            raise BadModelFile(f"the data of tensor {name[:200]!r} does not lie where the header says")
        end = last
    if end != size:
        raise BadModelFile(f"the safetensors file is {size - end} bytes longer than its tensors")
