"""Counts lines, so that nobody drowns a log."""

from __future__ import annotations

import time
from typing import Final

LINES: Final = 200
SECONDS: Final = 10.0
"""So many lines of one source are written in so much time."""


class Flood:
    """The lines of one source. `name` is what the log calls it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._end = 0.0
        self._lines = 0

    def admits(self) -> bool:
        """Whether one more line may be written. Ask `left_out` before that."""
        now = time.monotonic()
        if now >= self._end:
            self._end, self._lines = now + SECONDS, 0
        self._lines += 1
        return self._lines <= LINES

    @property
    def begins(self) -> bool:
        """Whether the last line was the first that may not be written."""
        return self._lines == LINES + 1

    def left_out(self) -> int:
        """How many lines were not written in a time that is over. Says so once."""
        if self._lines <= LINES or time.monotonic() < self._end:
            return 0
        count, self._lines = self._lines - LINES, 0
        return count


BEGINS: Final = "%s writes more than %d lines in %g seconds; the rest is left out"
ENDS: Final = "%d lines of %s were left out"
