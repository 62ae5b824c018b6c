"""Reads files from before GGUF as if they were hostile: each number is checked before it is believed.

The library believes all of it. It loads a file that was cut off, with whatever was in memory for what is missing; so a
file is only given to it if all of its tensors are there, in their shapes, and nothing else.
"""

from __future__ import annotations

import math
import stat
import struct
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

import msgspec

from corectl.errors import BadModelFile
from corectl.model.ggml import TENSOR_TYPES
from corectl_ctransformers.layouts import FILE_TYPES, FRACTIONS, LAYOUTS, QUANTIZATION, Layout, Shape, Sizes

MAGICS: Mapping[bytes, tuple[str, tuple[int, ...]]] = {
    b"lmgg": ("ggml", ()),
    b"fmgg": ("ggmf", (1,)),
    b"tjgg": ("ggjt", (1, 2, 3)),
    b"ccgg": ("ggcc", (10,)),
}
"""How files begin -> what people call them, and the versions that the library knows (none: they have no version)."""

F32 = 0
_MATRIX_TYPES = frozenset((0, 1, 2, 3, 6, 7, 8, 10, 11, 12, 13, 14))
_CHANGED = frozenset((2, 3, 8))
"""Types whose blocks are others since version 3 of `ggjt`."""

MAX_TOKEN, MAX_NAME = 1024, 128
"""Bytes."""

MAX_VALUES = 1 << 31
"""The library multiplies as 32-bit numbers what a matrix has, and what memory for keys and values has, but in MPT."""

PADDING = 32
"""Where data begins in `ggjt` and `ggcc`: at a multiple of so many bytes."""


class Tensor(msgspec.Struct, frozen=True):
    """A tensor's name, the number of its type, and its shape as the file has it."""

    name: str
    type: int
    shape: Shape

    @property
    def bytes(self) -> int:
        _, block, size = TENSOR_TYPES[self.type]
        return math.prod(self.shape) // block * size


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """What a file says of its model. `vocabulary` is where that begins, in bytes; `version` is 0 for files without."""

    family: str
    layout: Layout
    version: int
    sizes: Sizes
    tensors: tuple[Tensor, ...]
    vocabulary: int

    @property
    def quantization(self) -> str:
        """The type that most weights have, such as `Q4_0`."""
        counts: dict[int, int] = {}
        for tensor in self.tensors:
            counts[tensor.type] = counts.get(tensor.type, 0) + math.prod(tensor.shape)
        return TENSOR_TYPES[max(counts, key=counts.__getitem__)][0]

    @property
    def kind(self) -> str:
        """For people: what kind of file this is."""
        return f"{self.layout.magic} {self.version}" if self.version else self.layout.magic


class Vocabulary(msgspec.Struct, frozen=True):
    """The bytes of each token, and its score where files have them (else 0)."""

    tokens: list[bytes]
    scores: list[float]


class _Reader:
    """Reads forward, never past the end of the file."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file, self._size = file, size
        self.at = 0

    @property
    def left(self) -> int:
        return self._size - self.at

    def take(self, count: int, what: str) -> bytes:
        data = self._file.read(count) if count <= self.left else b""
        if len(data) < count:
            raise BadModelFile(f"the file was cut off: it ends inside {what}")
        self.at += count
        return data

    def number(self, what: str) -> int:
        return int.from_bytes(self.take(4, what), "little", signed=True)

    def text(self, most: int, what: str) -> bytes:
        length = self.number(what)
        if not 0 <= length <= most:
            raise BadModelFile(f"the file is damaged: {what} has {length} bytes, at most {most} are believed")
        return self.take(length, what)

    def skip(self, count: int, what: str) -> None:
        if count > self.left:
            raise BadModelFile(f"the file was cut off: it ends inside {what}")
        self.at += count
        self._file.seek(self.at)


def magic_of(path: Path) -> str:
    """What the first bytes of a file say: a name of `MAGICS`, or nothing. Raises `OSError`."""
    with path.open("rb") as file:
        return MAGICS.get(file.read(4), ("", ()))[0]


def legacy_files(weights: Path, named: Mapping[str, Path]) -> list[Path]:
    """Those of a model's files that begin like one from before GGUF: a README beside it may come first by its name."""
    found = []
    for path in dict.fromkeys((weights, *named.values())):
        try:
            # Reading from anything but a file, such as a pipe, might never end.
            if path.is_file() and magic_of(path):
                found.append(path)
        except OSError:
            continue
    return found


def weights_of(weights: Path, named: Mapping[str, Path]) -> Path:
    """The file of a model that has its weights; the one that was named so, if none looks like it."""
    return next(iter(legacy_files(weights, named)), weights)


def read_header(path: Path) -> Header:
    """Raises `BadModelFile` for a file that the library cannot load, and `OSError`."""
    status = path.stat()
    # Reading from anything but a file, such as a pipe, might never end.
    if not stat.S_ISREG(status.st_mode):
        raise BadModelFile(f"{path.name} is no file")
    return _read_header(path, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=16)
def _read_header(path: Path, size: int, changed: int) -> Header:
    with path.open("rb") as file:
        reader = _Reader(file, size)
        magic, version = _read_magic(reader)
        layout, sizes = _find_layout(reader, file, magic)
        start = reader.at
        family = layout.family
        for token, _ in _tokens(reader, layout, sizes):
            family = layout.also.get(token, family)
        if layout.merges:
            _skip_merges(reader, sizes)
        tensors = _read_tensors(reader, layout, sizes, padded=magic in ("ggjt", "ggcc"))
    sizes = _with_groups(sizes, tensors)
    _check_tensors(layout, sizes, tensors, version)
    return Header(
        family=family,
        layout=layout,
        version=version,
        sizes=sizes,
        tensors=tuple(tensors.values()),
        vocabulary=start,
    )


def read_vocabulary(path: Path, header: Header) -> Vocabulary:
    """The tokens of a file whose header was read. Raises as `read_header`."""
    with path.open("rb") as file:
        reader = _Reader(file, path.stat().st_size)
        reader.skip(header.vocabulary, "its header")
        found = list(_tokens(reader, header.layout, header.sizes))
    return Vocabulary([token for token, _ in found], [score for _, score in found])


def _read_magic(reader: _Reader) -> tuple[str, int]:
    start = reader.take(4, "its first bytes")
    name, versions = MAGICS.get(start, ("", ()))
    if not name:
        raise BadModelFile("the file does not begin like one from before GGUF")
    version = reader.number("its version") if versions else 0
    if versions and version not in versions:
        known = ", ".join(map(str, versions))
        raise BadModelFile(f"the file is {name} of version {version}; known: {known}")
    return name, version


def _find_layout(reader: _Reader, file: BinaryIO, magic: str) -> tuple[Layout, Sizes]:
    """The family whose numbers these can be. Leaves the reader behind them."""
    start = reader.at
    for layout in LAYOUTS:
        if layout.magic != magic:
            continue
        sizes = _numbers(reader, layout)
        if sizes is not None:
            return layout, sizes
        reader.at = start
        file.seek(start)
    families = [layout.family for layout in LAYOUTS if layout.magic == magic]
    hint = "; llama files as old as that are not read any more: convert the model again, best to GGUF"
    raise BadModelFile(
        f"the numbers in the header of this {magic} file are not those of a model ({', '.join(families)})"
        f"{hint if magic == 'ggml' else ''}"
    )


def _numbers(reader: _Reader, layout: Layout) -> Sizes | None:
    found: dict[str, int] = {}
    for name in layout.numbers.split():
        value = reader.number("its header")
        if found.setdefault(name, value) != value or (name in FRACTIONS and not _is_fraction(value)):
            return None
    sizes = Sizes(**{name: value for name, value in found.items() if name in Sizes.__struct_fields__})
    return sizes if sizes.plausible and _belongs(layout, sizes) else None


def _is_fraction(bits: int) -> bool:
    """Whether these are the bits of a fraction that somebody may have written, and not those of a whole number."""
    (value,) = struct.unpack("<f", struct.pack("<i", bits))
    return bool(value == 0 or 1e-3 < value < 1e6)


def _belongs(layout: Layout, sizes: Sizes) -> bool:
    names = layout.numbers.split()
    if "rotary" in names and not sizes.rotary:
        return False
    if layout.uniform:
        return sizes.type >= 0 and sizes.type % QUANTIZATION in FILE_TYPES and sizes.context > 0
    if layout.family == "llama":
        return sizes.rotary == sizes.head and sizes.multiple > 0
    kind = {32: 7, 60: 40}.get(sizes.layers, sizes.kind)
    return sizes.key_heads > 0 and sizes.kind in (7, 40) and sizes.kind == kind


def _tokens(reader: _Reader, layout: Layout, sizes: Sizes) -> Iterator[tuple[bytes, float]]:
    for _ in range(sizes.vocabulary):
        token, score = reader.text(MAX_TOKEN, "a token of its vocabulary"), 0.0
        if layout.text == "scored":
            (score,) = struct.unpack("<f", reader.take(4, "its vocabulary"))
        elif layout.text == "latin":
            token = _from_latin(token)
        yield token, score


def _from_latin(token: bytes) -> bytes:
    try:
        return bytes(ord(letter) & 0xFF for letter in token.decode())
    except UnicodeDecodeError as exc:
        raise BadModelFile(
            f"the file is damaged: a token of its vocabulary is no text: {exc.reason}"
        ) from exc


def _skip_merges(reader: _Reader, sizes: Sizes) -> None:
    count = reader.number("its merges")
    if count != sizes.merges:
        raise BadModelFile(f"the file is damaged: it has {count} merges, its header says {sizes.merges}")
    for _ in range(2 * count):
        reader.text(MAX_TOKEN, "one of its merges")


def _read_tensors(reader: _Reader, layout: Layout, sizes: Sizes, *, padded: bool) -> dict[str, Tensor]:
    known, found = layout.expected(sizes).keys(), dict[str, Tensor]()
    while reader.left:
        dimensions, length, type = (reader.number("the header of a tensor") for _ in range(3))
        if not 1 <= dimensions <= 2 or not 0 < length <= MAX_NAME or type not in _MATRIX_TYPES:
            raise BadModelFile(_not_a_tensor(found, layout))
        shape = tuple(reader.number("the header of a tensor") for _ in range(dimensions))
        name = reader.take(length, "the name of a tensor").decode("utf-8", "replace")
        _, block, _ = TENSOR_TYPES[type]
        if min(shape) < 1 or math.prod(shape) >= MAX_VALUES or shape[0] % block:
            raise BadModelFile(f"the file is damaged: tensor {name!r} has the shape {shape}")
        if name not in known:
            raise BadModelFile(f"tensor {name!r} does not belong to a {layout.family} model")
        if name in found:
            raise BadModelFile(f"the file is damaged: it has two tensors {name!r}")
        found[name] = Tensor(name, type, shape)
        if padded:
            reader.skip(-reader.at % PADDING, f"tensor {name!r}")
        reader.skip(found[name].bytes, f"tensor {name!r}")
    return found


def _not_a_tensor(found: dict[str, Tensor], layout: Layout) -> str:
    after = f"after tensor {next(reversed(found))!r}" if found else "after its vocabulary"
    return (
        f"the file is damaged, or was quantised by a version whose blocks had another size: no tensor of a "
        f"{layout.family} model comes {after}"
    )


def _with_groups(sizes: Sizes, tensors: dict[str, Tensor]) -> Sizes:
    """With how many queries share a key, which only a tensor's shape tells."""
    keys = tensors.get("layers.0.attention.wk.weight")
    shared = keys is not None and len(keys.shape) == 2 and keys.shape[1] * 8 == sizes.width
    return msgspec.structs.replace(sizes, groups=8) if shared and sizes.heads % 8 == 0 else sizes


def _check_tensors(layout: Layout, sizes: Sizes, tensors: dict[str, Tensor], version: int) -> None:
    expected = layout.expected(sizes)
    for name, tensor in tensors.items():
        if tensor.shape != expected[name]:
            raise BadModelFile(f"tensor {name!r} has the shape {tensor.shape} instead of {expected[name]}")
        _check_type(layout, sizes, tensor, version)
    missing = [name for name in expected if name not in tensors and name not in layout.optional]
    if missing:
        raise BadModelFile(
            f"the file was cut off: tensor {missing[0]!r} and {len(missing) - 1} others are missing"
        )
    if layout.family != "mpt" and sizes.context * sizes.width * sizes.layers >= MAX_VALUES:
        raise BadModelFile("the numbers in the file's header are too large for the library")


def _check_type(layout: Layout, sizes: Sizes, tensor: Tensor, version: int) -> None:
    if len(tensor.shape) == 1 or tensor.name == "model/wpe":
        wanted = F32
    elif layout.uniform:
        wanted = FILE_TYPES[sizes.type % QUANTIZATION]
    else:
        wanted = tensor.type
    if tensor.type != wanted:
        names = [TENSOR_TYPES[type][0] for type in (tensor.type, wanted)]
        raise BadModelFile(f"tensor {tensor.name!r} is {names[0]} instead of {names[1]}")
    if wanted > 1 and _is_old(layout, sizes, wanted, version):
        raise BadModelFile(
            f"the file was quantised to {TENSOR_TYPES[wanted][0]} by an older version, which is not read any more: "
            "quantise the model again, best to GGUF"
        )


def _is_old(layout: Layout, sizes: Sizes, type: int, version: int) -> bool:
    if layout.uniform:
        return sizes.type // QUANTIZATION < 2
    return version < 2 or (version < 3 and type in _CHANGED)
