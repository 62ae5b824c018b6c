"""Keeps plugins from forking this process.

A forked server would have the listening socket and the runners' connections twice, and of its threads only one. Python
tells audit hooks before it forks, and what they raise, `os.fork` raises. New programs are started another way, by
`subprocess` as by the event loop, and go on to be.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from corectl.plugins.owner import culprit

log = logging.getLogger(__name__)

_EVENTS: Final = frozenset(("os.fork", "os.forkpty"))


class _State:
    """An audit hook stays for the life of the process, so there is one, which is on or off."""

    installed = False
    refusing = False


@contextmanager
def forks_refused() -> Iterator[None]:
    """Meanwhile `os.fork` and `os.forkpty` raise PermissionError, and the log names the plugin."""
    if not _State.installed:
        _State.installed = True
        sys.addaudithook(_audit)
    before, _State.refusing = _State.refusing, True
    try:
        yield
    finally:
        _State.refusing = before


def _audit(event: str, _: tuple[Any, ...]) -> None:
    # Python comes here some dozen times for each request.
    if event not in _EVENTS or not _State.refusing:
        return
    log.error("%s was refused: it was asked for by %s", event, culprit(sys._getframe(1)))
    raise PermissionError(
        f"{event} is refused in this process, which has threads; start a program with subprocess, "
        "or use multiprocessing.get_context('spawn')"
    )
