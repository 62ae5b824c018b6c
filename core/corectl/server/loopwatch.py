"""Notices code that holds up the event loop, and says whose it is.

It cannot be ended: nothing else runs meanwhile, and whoever runs the server has to know which plugin to switch off.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

from corectl.plugins.owner import culprit

log = logging.getLogger(__name__)

EVERY: Final = 5.0
"""Seconds between two questions to the event loop."""
PATIENCE: Final = 5.0
"""Seconds that it may take to answer."""


@contextmanager
def watched_loop() -> Iterator[None]:
    """Watches the running event loop meanwhile, from a thread of its own."""
    stop, loop, thread_id = threading.Event(), asyncio.get_running_loop(), threading.get_ident()
    watcher = threading.Thread(target=_watch, args=(loop, thread_id, stop), name="loop watch", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        stop.set()


def _watch(loop: asyncio.AbstractEventLoop, thread_id: int, stop: threading.Event) -> None:
    while not stop.wait(EVERY):
        answered = threading.Event()
        # It may have been closed meanwhile.
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(answered.set)
            if answered.wait(PATIENCE) or stop.is_set():
                continue
            whose = culprit(sys._current_frames().get(thread_id))
            log.error("nothing is answered: the event loop is held up by %s", whose)
            while not answered.wait(EVERY) and not stop.is_set():
                pass
            log.warning("the event loop goes on")
