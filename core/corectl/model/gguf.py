"""Reads the header of a GGUF file as if it were hostile: every number is checked before it is believed.

A header costs at most a second and a few dozen megabytes, whatever the file says. It is read in pieces rather
than mapped, because a mapped file that another process cuts short would kill this one.
"""

from __future__ import annotations

import math
import os
import stat
import struct
import threading
from collections import OrderedDict
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from corectl.errors import BadModelFile
from corectl.model.cursor import Cursor, damaged, truncated
from corectl.model.ggml import SCALAR_FORMATS, TENSOR_TYPES

NOT_GGUF = "supplied file was not in GGUF format"

_STRING, _ARRAY = 8, 9
# Ceilings, each far above what any published model has.
_MAX_KEYS = 8192
_MAX_TENSORS = 65536
_MAX_KEY_BYTES = 1024
_MAX_TENSOR_NAME = 64
_MAX_TEXT = 8 << 20  # bytes of all scalar strings together, and of any one array element
_MAX_STRINGS = 2 << 20  # elements of all string arrays together
_MAX_LOADED_BYTES = 32 << 20  # bytes of one string array
_MAX_LOADED = 1 << 20  # array elements that `arrays=True` turns into Python values
_MAX_LAYERS = 1024  # elements of an array of numbers that may say something for each layer
_MAX_LAYER_KEYS = 64
_MAX_ALIGNMENT = 1 << 20

_RANK_POOLING = 4

_U64 = struct.Struct("<Q")


class TensorInfo(msgspec.Struct, frozen=True):
    """One tensor. `offset` is in bytes from the start of data, `shape` has the fastest dimension first."""

    name: str
    type_name: str
    shape: tuple[int, ...]
    offset: int
    size_bytes: int

    @property
    def elements(self) -> int:
        return math.prod(self.shape)


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """A checked header. Array values are None unless asked for; `array_lengths` has their lengths.

    `by_layer` has the arrays of numbers that are short enough to say something for each layer, in any case.
    `data_offset` and `file_size` are in bytes; every tensor lies between them.
    """

    version: int
    metadata: dict[str, Any]
    array_lengths: dict[str, int]
    by_layer: dict[str, tuple[Any, ...]]
    tensors: tuple[TensorInfo, ...]
    alignment: int
    data_offset: int
    file_size: int
    parameter_count: int

    @property
    def architecture(self) -> str:
        """`general.architecture`, empty in a later part of a split model."""
        return str(self.metadata.get("general.architecture", ""))

    def of_architecture(self, key: str) -> Any:
        """The value of `<architecture>.<key>`, or None."""
        return self.metadata.get(f"{self.architecture}.{key}")

    @property
    def pooled(self) -> str:
        """What a model that pools its tokens is for: `embedding`, or `rerank` if it scores pairs; else empty."""
        pooling = self.of_architecture("pooling_type")
        if pooling is None:
            return ""
        return "rerank" if pooling == _RANK_POOLING else "embedding"

    def number(self, key: str) -> int:
        """The value of `<architecture>.<key>` if it is a whole number, else 0."""
        value = self.of_architecture(key)
        return value if type(value) is int else 0


class _Reader:
    """Parses one header. The counters of strings and elements run over the whole file."""

    def __init__(self, cursor: Cursor, arrays: bool) -> None:
        self._cursor = cursor
        self._arrays = arrays
        self._text_left = _MAX_TEXT
        self._strings_left = _MAX_STRINGS
        self._loaded_left = _MAX_LOADED
        self.array_lengths: dict[str, int] = {}
        self.by_layer: dict[str, tuple[Any, ...]] = {}

    def metadata(self, count: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for _ in range(count):
            key = _text(self._cursor.string(_MAX_KEY_BYTES, "a metadata key"), "a metadata key")
            if key in found:
                raise damaged(f"duplicate key {key!r}")
            found[key] = self._value(key)
        return found

    def _value(self, key: str) -> Any:
        kind = self._cursor.u32("a value type")
        if kind == _ARRAY:
            return self._array(key)
        if kind == _STRING:
            raw = self._cursor.string(self._text_left, f"the value of {key!r}")
            self._text_left -= len(raw)
            return raw.decode("utf-8", "replace")
        return self._scalar(kind, key)

    def _scalar(self, kind: int, key: str) -> Any:
        code = SCALAR_FORMATS.get(kind)
        if code is None:
            raise damaged(f"{key!r} has the unknown value type {kind}")
        raw = self._cursor.take(struct.calcsize("<" + code), f"the value of {key!r}")
        value = struct.unpack("<" + code, raw)[0]
        return _shortest(value) if code == "f" else value

    def _array(self, key: str) -> list[Any] | None:
        kind = self._cursor.u32("an array type")
        count = self._cursor.u64("an array length")
        self.array_lengths[key] = count
        if kind == _STRING:
            return self._string_array(count, key)
        code = SCALAR_FORMATS.get(kind)
        if code is None:
            problem = "a nested array" if kind == _ARRAY else f"an array of the unknown value type {kind}"
            raise damaged(f"{key!r} is {problem}")
        size = count * struct.calcsize("<" + code)
        loads, short = self._loads(count), count <= _MAX_LAYERS and len(self.by_layer) < _MAX_LAYER_KEYS
        if not loads and not short:
            self._cursor.skip(size, f"the array {key!r}")
            return None
        raw = self._cursor.take(size, f"the array {key!r}")
        values = struct.unpack(f"<{count}{code}", raw)
        if short:
            self.by_layer[key] = values
        return list(values) if loads else None

    def _loads(self, count: int) -> bool:
        """Whether an array of `count` elements is turned into values."""
        if not self._arrays or count > self._loaded_left:
            return False
        self._loaded_left -= count
        return True

    def _string_array(self, count: int, key: str) -> list[str] | None:
        what = f"the array {key!r}"
        if count * 8 > self._cursor.left:
            raise truncated(what)
        if count > self._strings_left:
            raise damaged(f"{what} and others have more than {_MAX_STRINGS} strings")
        self._strings_left -= count
        if self._loads(count):
            return self._load_strings(count, what)
        self._skip_strings(count, what)
        return None

    def _skip_strings(self, count: int, what: str) -> None:
        """Vocabularies hold half a million strings: the walk stays inside one piece for as long as it can."""
        cursor, unpack = self._cursor, _U64.unpack_from
        while count:
            cursor.need(8, what)
            piece, at, last = cursor.piece, cursor.at, len(cursor.piece) - 8
            while count and at <= last:
                at += 8 + unpack(piece, at)[0]
                count -= 1
            cursor.at = at
            if cursor.left < 0:
                raise truncated(what)

    def _load_strings(self, count: int, what: str) -> list[str]:
        cursor, unpack, start = self._cursor, _U64.unpack_from, self._cursor.position
        found: list[str] = []
        while len(found) < count:
            cursor.need(8, what)
            piece, at, end = cursor.piece, cursor.at, len(cursor.piece)
            while len(found) < count and at + 8 <= end and (after := at + 8 + unpack(piece, at)[0]) <= end:
                found.append(piece[at + 8 : after].decode("utf-8", "replace"))
                at = after
            cursor.at = at
            if len(found) < count and at + 8 <= end:  # the end of the piece cuts this one
                found.append(cursor.string(_MAX_TEXT, what).decode("utf-8", "replace"))
            if cursor.position - start > _MAX_LOADED_BYTES:
                raise damaged(f"{what} is longer than {_MAX_LOADED_BYTES >> 20} MiB")
        return found

    def tensors(self, count: int) -> list[TensorInfo]:
        found: dict[str, TensorInfo] = {}
        for _ in range(count):
            tensor = self._tensor()
            if tensor.name in found:
                raise damaged(f"duplicate tensor {tensor.name!r}")
            found[tensor.name] = tensor
        return list(found.values())

    def _tensor(self) -> TensorInfo:
        cursor = self._cursor
        name = _text(cursor.string(_MAX_TENSOR_NAME, "a tensor name"), "a tensor name")
        rank = cursor.u32("a tensor's rank")
        if rank > 4:
            raise damaged(f"tensor {name!r} has {rank} dimensions, at most 4 are allowed")
        raw = cursor.take(8 * rank + 12, f"tensor {name!r}")
        *shape, kind, offset = struct.unpack(f"<{rank}QIQ", raw)
        elements = math.prod(shape)
        if not 0 < elements < 1 << 63:
            raise damaged(f"tensor {name!r} has the shape {shape}")
        if kind not in TENSOR_TYPES:
            raise damaged(f"tensor {name!r} has the unknown type {kind}")
        type_name, block, block_bytes = TENSOR_TYPES[kind]
        if (shape[0] if shape else 1) % block:
            raise damaged(f"rows of {name!r} do not divide into {type_name} blocks")
        return TensorInfo(name, type_name, tuple(shape), offset, elements // block * block_bytes)


def read_header(path: Path, *, arrays: bool = False) -> Header:
    """Read and check the header of the GGUF file (version 2 or 3, little-endian) at `path`.

    With `arrays` the values of arrays are read too, up to a million elements in all; longer ones stay None.
    Raises `BadModelFile`, whose text names what is wrong but never the path, and `OSError`.
    """
    # Asked before opening, which can itself do something to a device, and again of the file that was opened.
    # Without O_NONBLOCK the opening of a FIFO would wait for a writer.
    if not stat.S_ISREG(path.stat().st_mode):
        raise BadModelFile(NOT_GGUF)
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    with os.fdopen(descriptor, "rb", buffering=0) as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise BadModelFile(NOT_GGUF)
        return _parse(file, status.st_size, arrays)


def _parse(file: BinaryIO, size: int, arrays: bool) -> Header:
    cursor = Cursor(file, size)
    if size < 4 or cursor.take(4, "the magic") != b"GGUF":
        raise BadModelFile(NOT_GGUF)
    version = _version(cursor)
    tensor_count = _count(cursor, "tensors", _MAX_TENSORS, least_bytes=24)
    key_count = _count(cursor, "metadata keys", _MAX_KEYS, least_bytes=13)
    reader = _Reader(cursor, arrays)
    metadata = reader.metadata(key_count)
    _check_metadata(metadata)
    tensors = reader.tensors(tensor_count)
    alignment = metadata.get("general.alignment", 32)
    data_offset = -(-cursor.position // alignment) * alignment
    _check_extents(tensors, alignment, size - data_offset)
    return Header(
        version=version,
        metadata=metadata,
        array_lengths=reader.array_lengths,
        by_layer=reader.by_layer,
        tensors=tuple(tensors),
        alignment=alignment,
        data_offset=data_offset,
        file_size=size,
        parameter_count=sum(tensor.elements for tensor in tensors),
    )


def _version(cursor: Cursor) -> int:
    version = cursor.u32("the version")
    if version in (2, 3):
        return version
    if version and version & 0xFFFF == 0:
        raise BadModelFile("big-endian GGUF files are not supported")
    raise BadModelFile(f"GGUF version {version} is not supported: versions 2 and 3 are")


def _count(cursor: Cursor, what: str, most: int, *, least_bytes: int) -> int:
    count = cursor.u64(f"the number of {what}")
    if count > most:
        raise damaged(f"it claims {count} {what}, at most {most} are allowed")
    if count * least_bytes > cursor.left:
        raise BadModelFile(f"GGUF file is truncated: {count} {what} do not fit into it")
    return count


def _check_metadata(metadata: dict[str, Any]) -> None:
    alignment = metadata.get("general.alignment", 32)
    if not _is_count(alignment) or alignment & (alignment - 1) or alignment > _MAX_ALIGNMENT:
        raise damaged(f"general.alignment {alignment!r} is not a power of two")
    architecture = metadata.get("general.architecture")
    if architecture is None and _is_count(metadata.get("split.no")):
        return  # only the first part of a split model describes it
    if not isinstance(architecture, str) or not architecture:
        raise damaged("general.architecture is missing or not a string")
    for key in ("block_count", "context_length", "embedding_length"):
        value = metadata.get(f"{architecture}.{key}")
        if value is not None and (not _is_count(value) or value >= 1 << 31):
            raise damaged(f"{architecture}.{key} {value!r} is not a sensible number")


def _check_extents(tensors: list[TensorInfo], alignment: int, available: int) -> None:
    end = 0
    for tensor in sorted(tensors, key=lambda tensor: tensor.offset):
        if tensor.offset % alignment:
            raise damaged(f"tensor {tensor.name!r} is not aligned to {alignment} bytes")
        if tensor.offset < end:
            raise damaged(f"tensor {tensor.name!r} overlaps another one")
        end = tensor.offset + tensor.size_bytes
        if end > available:
            raise BadModelFile(f"GGUF file is truncated: tensor {tensor.name!r} reaches past its end")


def _is_count(value: object) -> bool:
    return type(value) is int and value > 0


def _text(raw: bytes, what: str) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        raise damaged(f"{what} is not UTF-8") from None


def _shortest(value: float) -> float:
    """The float with the fewest digits that is this 32-bit one: 1e-05 rather than 9.999999747378752e-06."""
    for digits in range(6, 10):
        near = float(f"{value:.{digits}g}")
        try:
            if struct.pack("<f", near) == struct.pack("<f", value):
                return near
        except OverflowError:  # rounded up past the largest 32-bit float
            continue
    return value


_CACHE_ENTRIES, _CACHE_TENSORS = 32, 8192
_cache: OrderedDict[tuple[Path, int, int], Header] = OrderedDict()
_cache_lock = threading.Lock()


def header_of(path: Path) -> Header:
    """As `read_header(path)`, remembered for as long as the file keeps its size and time of change."""
    status = path.stat()
    key = (path, status.st_size, status.st_mtime_ns)
    with _cache_lock:
        if key in _cache:
            _cache.move_to_end(key)
            return _cache[key]
    header = read_header(path)
    # A header with an absurd number of tensors is read again rather than kept.
    if len(header.tensors) <= _CACHE_TENSORS:
        with _cache_lock:
            _cache[key] = header
            while len(_cache) > _CACHE_ENTRIES:
                _cache.popitem(last=False)
    return header
