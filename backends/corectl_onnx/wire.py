"""The protobuf wire format, read in place and in bounds: ONNX files hold nested messages of it, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from mmap import mmap

from corectl.errors import BadModelFile

MAX_FIELDS = 1 << 19
"""Fields of one file that are looked at: a second's work. Graphs of large models have a tenth of that."""

MAX_TEXT = 4096
"""Bytes of a name."""

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5


class Message:
    """A part of a file that is a message. Its fields are found anew at each pass; what they hold is not copied."""

    def __init__(self, data: mmap | bytes, begin: int, end: int, budget: list[int]) -> None:
        """`budget` holds the number of fields that may still be looked at in the whole file."""
        self._data, self.begin, self.end, self._budget = data, begin, end, budget

    @classmethod
    def whole(cls, data: mmap | bytes) -> Message:
        return cls(data, 0, len(data), [MAX_FIELDS])

    @property
    def size(self) -> int:
        return self.end - self.begin

    def fields(self) -> Iterator[tuple[int, int | Message]]:
        """Numbers of fields, and their values: a whole number, or the bytes. Raises `BadModelFile`."""
        at = self.begin
        while at < self.end:
            self._budget[0] -= 1
            if self._budget[0] < 0:
                raise BadModelFile(f"it has more than {MAX_FIELDS} fields")
            key, at = self._varint(at)
            kind = key & 7
            if kind == VARINT:
                value, at = self._varint(at)
                yield key >> 3, value
                continue
            if kind == BYTES:
                size, at = self._varint(at)
            elif kind in (FIXED64, FIXED32):
                size = 8 if kind == FIXED64 else 4
            else:
                raise BadModelFile("it is no ONNX file, or damaged")
            if not 0 <= size <= self.end - at:
                raise BadModelFile("it is damaged, or was cut off")
            yield key >> 3, Message(self._data, at, at + size, self._budget)
            at += size

    def text(self) -> str:
        """What a name says. Raises `BadModelFile` for one that is too long or no text."""
        if self.size > MAX_TEXT:
            raise BadModelFile(f"it has a name of more than {MAX_TEXT} bytes")
        try:
            return self._data[self.begin : self.end].decode()
        except UnicodeDecodeError as exc:
            raise BadModelFile("it has a name that is no text") from exc

    def numbers(self) -> Iterator[int]:
        """The whole numbers of a packed field."""
        at = self.begin
        while at < self.end:
            self._budget[0] -= 1
            if self._budget[0] < 0:
                raise BadModelFile(f"it has more than {MAX_FIELDS} fields")
            value, at = self._varint(at)
            yield value

    def _varint(self, at: int) -> tuple[int, int]:
        """A number, which is signed, and where it ends."""
        value = shift = 0
        while at < self.end and shift < 70:
            byte = self._data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                value &= (1 << 64) - 1
                return (value - (1 << 64) if value >> 63 else value), at
            shift += 7
        raise BadModelFile("it is no ONNX file, or was cut off")
