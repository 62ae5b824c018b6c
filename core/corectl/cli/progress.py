"""Progress on stderr: a live block of spinners and bars in a terminal, plain lines anywhere else."""

from __future__ import annotations

import shutil
import sys
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final, Self

import click

from corectl.cli.human import human_bytes, short_duration
from corectl.cli.tables import text_width

_GLYPHS: Final = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
_FRAME_SECONDS: Final = 0.1
_RATE_SAMPLES: Final = 10


@dataclass
class _Line:
    """One line of the block. `total` is 0 for a spinner, otherwise the bytes of a transfer."""

    text: str
    total: int = 0
    completed: int = 0
    done: bool = False
    samples: deque[tuple[float, int]] = field(default_factory=lambda: deque(maxlen=_RATE_SAMPLES))

    def advance(self, completed: int) -> None:
        """Notes how far a transfer is. What was there when it was first seen took no time: it is a sample only."""
        self.completed, now = completed, time.monotonic()
        if not self.samples or now - self.samples[-1][0] >= 1:
            self.samples.append((now, completed))

    @property
    def rate(self) -> float:
        """Bytes per second, over the last few of them."""
        then, completed = self.samples[0]
        return (self.completed - completed) / max(time.monotonic() - then, 0.001)

    def render(self, frame: int, columns: int) -> str:
        if self.total:
            return self._bar(columns)
        return self.text if self.done else f"{self.text} {_GLYPHS[frame % len(_GLYPHS)]}".strip()

    def _bar(self, columns: int) -> str:
        share = min(self.completed / self.total, 1.0)
        left = f"{self.text}: {share:4.0%} ▕"
        if self.completed >= self.total:
            right = f"▏{human_bytes(self.total):>7}"
        else:
            rate = self.rate
            rest = short_duration((self.total - self.completed) / rate) if rate > 0 else ""
            sizes = f"{human_bytes(self.completed):>6}/{human_bytes(self.total)}"
            right = f"▏{sizes} {human_bytes(int(rate)) + '/s':>10} {rest:>8}"
        cells = max(columns - text_width(left) - text_width(right) - 1, 4)
        filled = int(cells * share)
        return f"{left}{'█' * filled}{' ' * (cells - filled)}{right}"


class Progress:
    """Use it as a context manager; the block stays as it is at the end, or vanishes if `transient`.

    Without a terminal each new status is one line, and a transient block prints nothing.
    """

    def __init__(self, *, transient: bool = False) -> None:
        self._transient = transient
        self._terminal = sys.stderr.isatty()
        self._lines: dict[str, _Line] = {}
        self._drawn = 0
        self._frame = 0
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        if self._terminal:
            self._thread = threading.Thread(target=self._animate, daemon=True)
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def status(self, text: str, *, key: str | None = None) -> None:
        """Shows `text` as what is going on. The line with the same `key`, or the same text, is used again."""
        with self._lock:
            known = self._lines.get(key or text)
            if known is None:
                self._finish_spinners()
                self._lines[key or text] = _Line(text)
            else:
                known.text = text
        if not self._terminal and not self._transient and known is None and key is None:
            click.echo(text, err=True)

    def finish(self, key: str) -> None:
        """Ends the line `key`; without a terminal this is when it is printed."""
        with self._lock:
            line = self._lines[key]
            line.done = True
        if not self._terminal and not self._transient:
            click.echo(line.text, err=True)

    def transfer(self, text: str, total: int, completed: int) -> None:
        """Shows a bar for one transfer, in bytes."""
        with self._lock:
            line = self._lines.get(text)
            if line is None:
                self._finish_spinners()
                line = self._lines[text] = _Line(text, total=total)
            was_done = line.done
            line.advance(completed)
            line.done = completed >= total
        if line.done and not was_done and not self._terminal and not self._transient:
            click.echo(f"{text}: 100% {human_bytes(total)}", err=True)

    def stop(self) -> None:
        """Draws the last state (or wipes it) and ends the animation. May be called again."""
        if self._thread is None:
            return
        self._stop.set()
        self._thread.join()
        self._thread = None
        with self._lock:
            self._finish_spinners()
            if self._transient:
                self._lines.clear()
            self._draw(whole=True)
            self._write("\x1b[?25h")

    def _finish_spinners(self) -> None:
        for line in self._lines.values():
            line.done = line.done or not line.total

    def _animate(self) -> None:
        self._write("\x1b[?25l")
        while not self._stop.wait(_FRAME_SECONDS):
            with self._lock:
                self._frame += 1
                self._draw()

    def _draw(self, *, whole: bool = False) -> None:
        """Goes back to the first line of the block and writes it anew. Lines are cut so that none wraps.

        Of more lines than there are rows, the last are shown: there is no way back to what has left the screen. Only
        what is drawn last is the `whole` block.
        """
        columns, rows = shutil.get_terminal_size((80, 24))
        lines = list(self._lines.values())
        shown = lines if whole else lines[-max(1, rows - 1) :]
        text = f"\x1b[{self._drawn}A" if self._drawn else ""
        text += "\r\x1b[J"
        for line in shown:
            text += line.render(self._frame, columns)[: columns - 1] + "\n"
        self._drawn = len(shown)
        self._write(text)

    def _write(self, text: str) -> None:
        click.echo(text, nl=False, err=True, color=True)
