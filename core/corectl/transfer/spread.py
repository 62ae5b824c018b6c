"""The bytes of one body, in their order, into the parts of a download that want them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from corectl.transfer.partial import PartialFile
from corectl.transfer.parts import Part


class Spread:
    """Where a body has come to. One thread at a time may use it.

    The body begins at `position` of the blob; `parts` are those that it covers, in their order; how far they
    are is said by them, after each write.
    """

    def __init__(self, file: PartialFile, parts: Sequence[Part], position: int) -> None:
        self._file = file
        self._left = [part for part in parts if not part.done]
        self._position = position

    def put(self, pieces: Iterable[memoryview]) -> None:
        """Writes what comes next. Bytes that are in the file already are passed over, as those behind the last part.

        Raises `OSError`.
        """
        taken: list[memoryview] = []
        for piece in pieces:
            view = piece
            while view and self._left:
                part = self._left[0]
                if self._position < part.front:
                    view = self._skip(view, part.front - self._position)
                    continue
                taken.append(view[: part.end - self._position])
                view = self._skip(view, part.end - self._position)
                if self._position == part.end:
                    self._write(taken)
                    taken = []
                    self._left.pop(0)
        if taken:
            self._write(taken)

    def _skip(self, view: memoryview, count: int) -> memoryview:
        self._position += min(count, len(view))
        return view[count:]

    def _write(self, taken: Sequence[memoryview]) -> None:
        part = self._left[0]
        part.completed += self._file.write(taken, part.front)
