"""What a converter warns of, for those who asked for its work: the log of a job's process is read by nobody."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from corectl.messages import Notice

MOST = 20
"""Warnings that are passed on. A file with a flaw in each tensor is not told of tensor by tensor."""

LONGEST = 500
"""Characters of one."""


class _Ear(logging.Handler):
    def __init__(self, package: str) -> None:
        super().__init__(logging.WARNING)
        self._package = package
        self.notices: list[Notice] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.name.partition(".")[0] == self._package and len(self.notices) < MOST:
            notice = Notice(code="conversion_warning", message=record.getMessage()[:LONGEST])
            if notice not in self.notices:
                self.notices.append(notice)


@contextmanager
def warnings_of(plugin: object) -> Iterator[list[Notice]]:
    """The warnings that the package of `plugin` logs until the block is left."""
    ear = _Ear(type(plugin).__module__.partition(".")[0])
    logging.getLogger().addHandler(ear)
    try:
        yield ear.notices
    finally:
        logging.getLogger().removeHandler(ear)
