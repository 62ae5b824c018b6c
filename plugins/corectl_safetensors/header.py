"""Reads the header of a safetensors file as if it were hostile: each number is checked before it is believed."""

from __future__ import annotations

import math
from pathlib import Path

import msgspec

from corectl.errors import BadModelFile

MAX_HEADER = 100 << 20
"""Bytes. The format's own limit."""

MAX_TENSORS = 1 << 20

_BITS = {
    **dict.fromkeys(("F64", "I64", "U64", "C64"), 64),
    **dict.fromkeys(("F32", "I32", "U32"), 32),
    **dict.fromkeys(("F16", "BF16", "I16", "U16"), 16),
    **dict.fromkeys(("BOOL", "I8", "U8", "F8_E4M3", "F8_E5M2", "F8_E8M0"), 8),
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
    "F4": 4,
}


class Tensor(msgspec.Struct, frozen=True):
    """A tensor's name, the type of its values, and how many there are."""

    name: str
    type: str
    count: int


class _Entry(msgspec.Struct, frozen=True):
    dtype: str
    shape: tuple[int, ...]
    data_offsets: tuple[int, int]


def read_header(path: Path) -> list[Tensor]:
    """All tensors of a file, whose data must fill it without gaps. Raises `BadModelFile` and `OSError`."""
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        length = int.from_bytes(start, "little")
        if len(start) < 8 or not 2 <= length <= min(MAX_HEADER, size - 8):
            raise BadModelFile("the file is no safetensors file, or was cut off in its header")
        data = file.read(length)
    try:
        raw = msgspec.json.decode(data, type=dict[str, msgspec.Raw])
        raw.pop("__metadata__", None)
        if len(raw) > MAX_TENSORS:
            raise BadModelFile(f"the safetensors file has {len(raw)} tensors; at most {MAX_TENSORS} are read")
        entries = {name: msgspec.json.decode(value, type=_Entry) for name, value in raw.items()}
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise BadModelFile(f"the header of the safetensors file is damaged: {exc}") from exc
    _check(entries, size - 8 - length)
    return [Tensor(name, entry.dtype, math.prod(entry.shape)) for name, entry in entries.items()]


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
