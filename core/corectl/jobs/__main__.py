"""`python -m corectl.jobs`: one job, which comes on standard input. Progress and the end go to standard output."""

from __future__ import annotations

import logging
import os
import sys
import time
from typing import BinaryIO

from corectl.errors import CorectlError, from_os_error
from corectl.jobs.messages import Failed, Made, Step, decode_job, encode
from corectl.jobs.work import perform
from corectl.parent import end_with, end_with_parent

PAUSE = 0.1
"""Seconds between two lines of progress; the first and the last are always written."""


def main() -> int:
    """The exit status is 0 if the job was done."""
    lines = _own_output()
    end_with_parent()
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    job = decode_job(sys.stdin.buffer.readline())
    end_with(sys.stdin.fileno())
    result: Made | Failed
    try:
        result = perform(job, _Steps(lines))
    except CorectlError as exc:
        result = Failed(exc.code, exc.message)
    except OSError as exc:
        result = Failed(CorectlError.code, from_os_error(exc).message)
    lines.write(encode(result))
    return 0 if isinstance(result, Made) else 1


def _own_output() -> BinaryIO:
    """Standard output, for this program alone: what libraries print there goes where errors go."""
    own = os.dup(sys.stdout.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return os.fdopen(own, "wb", buffering=0)


class _Steps:
    """Writes how far the job has come, but not too often."""

    def __init__(self, lines: BinaryIO) -> None:
        self._lines = lines
        self._next = 0.0

    def __call__(self, completed: int, total: int) -> None:
        now = time.monotonic()
        if now >= self._next or completed >= total:
            self._next = now + PAUSE
            self._lines.write(encode(Step(completed, total)))


if __name__ == "__main__":
    sys.exit(main())
