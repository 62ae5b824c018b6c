"""Runs jobs in processes of their own: they take engines, minutes, and much memory, and may end badly."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO

import msgspec

from corectl.errors import Canceled, LoadFailed, from_code
from corectl.jobs.messages import Event, Failed, Job, Made, Step, decode_event, encode

TAIL = 2000
"""Bytes of what a process has said that are kept, for the case that it breaks off."""

MOST_LINE = 16 << 20
"""Bytes. A model has thousands of files at most, and each has one entry in the last line."""

STOPPING = "the server is stopping"


class Jobs:
    """The jobs of one server, one at a time: each of them takes all cores. Methods are for worker threads."""

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._state = threading.Lock()
        self._running: subprocess.Popen[bytes] | None = None
        self._closed = False

    def run(
        self,
        job: Job,
        done: Callable[[int, int], None],
        waiting: Callable[[], None] = lambda: None,
    ) -> Made:
        """Does a job and waits for its end; `done` hears how many bytes of how many are done.

        `waiting` is called if other jobs come first. Raises what the plugin has raised, `LoadFailed` for a process that
        broke off, and `Canceled` when the server stops.
        """
        if not self._turn.acquire(blocking=False):
            waiting()
            self._turn.acquire()
        try:
            return self._run(job, done)
        finally:
            self._turn.release()

    def close(self) -> None:
        """Ends the job that runs, and takes no other. For any thread; returns at once."""
        with self._state:
            self._closed = True
            if self._running is not None:
                self._running.kill()

    def _run(self, job: Job, done: Callable[[int, int], None]) -> Made:
        with self._started() as process:
            said = _Tail(process.stderr)
            last = self._follow(process, job, done)
            process.wait()
            said.join()
        if isinstance(last, Made):
            return last
        if isinstance(last, Failed):
            raise from_code(last.code, last.message)
        if self._closed:
            raise Canceled(STOPPING)
        raise LoadFailed(
            f"the process that {job.verb} broke off ({_ending(process.returncode)}){said.last_line}"
        )

    @contextmanager
    def _started(self) -> Iterator[subprocess.Popen[bytes]]:
        """A new process, which is gone afterwards."""
        with self._state:
            if self._closed:
                raise Canceled(STOPPING)
            # Started by the thread that waits for it: the kernel ends the process when this thread ends.
            process = subprocess.Popen(
                # The folder that the server was started in is no place for modules.
                [sys.executable, "-P", "-m", "corectl.jobs"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
            self._running = process
        try:
            yield process
        finally:
            process.kill()
            # Not by `with process`, which waits for whoever has inherited its output.
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()
            process.wait()
            with self._state:
                self._running = None

    @staticmethod
    def _follow(process: subprocess.Popen[bytes], job: Job, done: Callable[[int, int], None]) -> Event | None:
        """Tells the process its job, and reads what it writes; the last of it, if it came to an end."""
        assert process.stdin is not None and process.stdout is not None
        try:
            # Stays open: the process ends with it.
            process.stdin.write(encode(job))
            process.stdin.flush()
        except BrokenPipeError:
            return None
        while line := process.stdout.readline(MOST_LINE):
            try:
                event: Event = decode_event(line)
            except msgspec.DecodeError:
                return None
            if not isinstance(event, Step):
                return event
            done(event.completed, event.total)
        return None


class _Tail:
    """Reads what a process says, so that it never waits, and keeps the end of it."""

    def __init__(self, source: IO[bytes] | None) -> None:
        assert source is not None
        self._source = source
        self._kept = b""
        self._thread = threading.Thread(target=self._read, name="job-log", daemon=True)
        self._thread.start()

    def _read(self) -> None:
        with self._source as source:
            while piece := source.read1(1 << 16):  # type: ignore[attr-defined]
                self._kept = (self._kept + piece)[-TAIL:]

    def join(self) -> None:
        """Waits for the end. Not for long: a process that the job has started may have the same output."""
        self._thread.join(1)

    @property
    def last_line(self) -> str:
        """`: ` and the last line, if there is one."""
        line = self._kept.decode("utf-8", "replace").strip().rpartition("\n")[2]
        return f": {line}" if line else ""


def _ending(status: int) -> str:
    if status >= 0:
        return f"exit status {status}"
    name = signal.Signals(-status).name
    return f"{name}: there may not have been enough memory" if status == -signal.SIGKILL else name
