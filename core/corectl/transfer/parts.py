"""The parts of a download, and the notes of how far each has come: files beside the blob that others can read, too."""

from __future__ import annotations

import os
import re
from collections import deque
from collections.abc import Sequence
from pathlib import Path

import msgspec

from corectl.transfer.rules import Rules

MAX_NOTE = 1024


class Part(msgspec.Struct, rename={"n": "N", "offset": "Offset", "size": "Size", "completed": "Completed"}):
    """A range of a blob. `completed` bytes of it, from its `offset` on, are in the file."""

    n: int
    offset: int
    size: int
    completed: int = 0

    @property
    def front(self) -> int:
        """Where in the blob its next byte goes."""
        return self.offset + self.completed

    @property
    def end(self) -> int:
        return self.offset + self.size

    @property
    def done(self) -> bool:
        return self.completed == self.size


def plan(size: int, rules: Rules) -> list[Part]:
    """The parts of a blob of that size, in order; the last one may be smaller. None for an empty blob."""
    each = min(max(size // rules.parts, rules.min_part), rules.max_part)
    return [Part(n, offset, min(each, size - offset)) for n, offset in enumerate(range(0, size, each))]


def front_of(parts: Sequence[Part]) -> int:
    """How much of the blob is there without a gap."""
    for part in parts:
        if not part.done:
            return part.front
    return parts[-1].end if parts else 0


def next_run(waiting: deque[Part], size: int) -> list[Part]:
    """Takes the next part, and those right behind it, of at most so many bytes together."""
    run = [waiting.popleft()]
    while waiting and waiting[0].front == run[-1].end and waiting[0].end - run[0].front <= size:
        run.append(waiting.popleft())
    return run


def span_of(run: Sequence[Part]) -> Part:
    """What is missing of parts that follow each other, as one part."""
    return Part(run[0].n, run[0].front, run[-1].end - run[0].front)


class Notes:
    """The files `<partial>-<n>`. A note is mostly as long as the one before: one write replaces it whole."""

    def __init__(self, partial: Path) -> None:
        self._partial = partial
        self._written: dict[int, int] = {}

    def read(self, size: int) -> list[Part] | None:
        """The parts that were noted, if together they are the blob."""
        found = [self._part(path) for path in self._paths()]
        parts = sorted((part for part in found if part is not None), key=lambda part: part.n)
        offset = 0
        for n, part in enumerate(parts):
            if part.n != n or part.offset != offset or not 0 <= part.completed <= part.size or not part.size:
                return None
            offset += part.size
        return parts if parts and offset == size else None

    def write(self, parts: Sequence[tuple[Part, int]]) -> None:
        """Notes how many bytes of parts are in the file, where that has changed. Raises `OSError`."""
        for part, completed in parts:
            if self._written.get(part.n) != completed:
                note = msgspec.json.encode(Part(part.n, part.offset, part.size, completed))
                descriptor = os.open(self._path(part.n), os.O_WRONLY | os.O_CREAT, 0o644)
                try:
                    os.pwrite(descriptor, note, 0)
                    os.ftruncate(descriptor, len(note))
                finally:
                    os.close(descriptor)
                self._written[part.n] = completed

    def remove(self) -> None:
        self._written.clear()
        for path in self._paths():
            path.unlink(missing_ok=True)

    def _paths(self) -> list[Path]:
        name = re.compile(re.escape(self._partial.name) + r"-\d{1,6}")
        return [
            path for path in self._partial.parent.glob(f"{self._partial.name}-*") if name.fullmatch(path.name)
        ]

    def _path(self, n: int) -> Path:
        return self._partial.with_name(f"{self._partial.name}-{n}")

    def _part(self, path: Path) -> Part | None:
        try:
            with path.open("rb") as file:
                return msgspec.json.decode(file.read(MAX_NOTE), type=Part)
        except (OSError, msgspec.DecodeError, UnicodeDecodeError):
            return None
