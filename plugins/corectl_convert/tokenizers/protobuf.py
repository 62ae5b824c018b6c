"""tokenizer.model: the few fields of SentencePiece's protocol buffer that are needed, read as if it were hostile."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator

import msgspec

from corectl.errors import BadModelFile

NAME = "tokenizer.model"
MAX_FILE = 32 << 20
BPE = 2
"""The kind of a model with merges."""

MAX_PIECES = 1 << 20


class Piece(msgspec.Struct, frozen=True):
    """A token. `kind` has the numbers that GGUF took over."""

    text: str
    score: float
    kind: int


class SentencePieceModel(msgspec.Struct, frozen=True):
    """`prefixed` is whether a space is put before a text, `escapes` whether spaces become blanks."""

    pieces: list[Piece]
    kind: int
    prefixed: bool
    escapes: bool


Field = tuple[int, int | bytes]


def read(data: bytes) -> SentencePieceModel:
    """Raises `BadModelFile`."""
    pieces: list[Piece] = []
    kind, prefixed, escapes = 1, True, True
    for number, value in _fields(data):
        if number == 1:
            pieces.append(_piece(_bytes(value)))
            if len(pieces) > MAX_PIECES:
                raise _damaged(f"it has more than {MAX_PIECES} pieces")
        elif number == 2:
            kind = _last(_bytes(value), 3, kind)
        elif number == 3:
            prefixed = bool(_last(_bytes(value), 3, int(prefixed)))
            escapes = bool(_last(_bytes(value), 5, int(escapes)))
    if not pieces:
        raise _damaged("it has no pieces")
    return SentencePieceModel(pieces, kind, prefixed, escapes)


def _piece(data: bytes) -> Piece:
    text, score, kind = b"", 0.0, 1
    for number, value in _fields(data):
        if number == 1:
            text = _bytes(value)
        elif number == 2:
            raw = _bytes(value)
            score = struct.unpack("<f", raw)[0] if len(raw) == 4 else math.nan
        elif number == 3 and isinstance(value, int):
            kind = value
    if not 1 <= kind <= 6 or not math.isfinite(score):
        raise _damaged("a piece has a type or a score that cannot be")
    try:
        return Piece(text.decode(), score, kind)
    except UnicodeDecodeError:
        raise _damaged("a piece is not UTF-8") from None


def _last(data: bytes, number: int, default: int) -> int:
    """The number that a field has, of several the last one."""
    found = default
    for key, value in _fields(data):
        if key == number and isinstance(value, int):
            found = value
    return found


def _fields(data: bytes) -> Iterator[Field]:
    """All fields of a message: whole numbers, or the bytes of anything else."""
    at = 0
    while at < len(data):
        key, at = _whole(data, at)
        kind = key & 7
        if kind == 0:
            value, at = _whole(data, at)
            yield key >> 3, value
            continue
        if kind == 2:
            length, at = _whole(data, at)
        elif kind in (1, 5):
            length = 8 if kind == 1 else 4
        else:
            raise _damaged("a field has an unknown type")
        if at + length > len(data):
            raise _damaged("it was cut off")
        yield key >> 3, data[at : at + length]
        at += length


def _whole(data: bytes, at: int) -> tuple[int, int]:
    """A number of at most ten bytes, and where the next thing begins."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            raise _damaged("it was cut off")
        value |= (data[at] & 0x7F) << shift
        at += 1
        if data[at - 1] < 0x80:
            return value, at
    raise _damaged("a number has no end")


def _bytes(value: int | bytes) -> bytes:
    if isinstance(value, int):
        raise _damaged("a field has the type of another one")
    return value


def _damaged(what: str) -> BadModelFile:
    return BadModelFile(f"{NAME} is damaged: {what}")
