"""Tells one plugin of events, without waiting for it."""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
import time
from collections.abc import Callable
from typing import Final

from corectl import deadline
from corectl.deadline import Deadline, Overdue

log = logging.getLogger(__name__)

ROOM: Final = 1000
"""Events that may wait for one plugin."""

Event = tuple[str, Callable[[], object]]
"""A hook's name, and the call with its arguments."""


class Mailbox:
    """Events for one plugin, in their order, on threads of its own. `put` and `close` may be called from any thread."""

    def __init__(self, plugin: str) -> None:
        self._plugin = plugin
        self._events: queue.Queue[Event | None] = queue.Queue(ROOM)
        self._deadline = Deadline(f"plugin {plugin}")
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._behind = False
        self._missed = 0

    def put(self, event: str, call: Callable[[], object]) -> None:
        """Never waits: an event that there is no room for is missed."""
        with self._lock:
            if self._thread is None:
                name = f"events of {self._plugin}"
                self._thread = threading.Thread(target=self._deliver, name=name, daemon=True)
                self._thread.start()
        try:
            self._events.put_nowait((event, call))
        except queue.Full:
            self._fall_behind(f"{ROOM} events wait for it")
            self._miss()

    def close(self, until: float) -> None:
        """Waits for what has been put, but not longer than `until`, a time of `time.monotonic`."""
        if self._thread is None:
            return
        with contextlib.suppress(queue.Full):
            self._events.put_nowait(None)
        self._thread.join(max(0.0, until - time.monotonic()))
        if self._thread.is_alive():
            log.warning("plugin %s still has an event to answer; nobody waits for it", self._plugin)

    def _deliver(self) -> None:
        while (item := self._events.get()) is not None:
            event, call = item
            try:
                self._deadline.call(call)
            except Overdue:
                if not self._fall_behind(f"{event} did not return within {deadline.SECONDS:g} seconds"):
                    self._miss()
                continue
            except Exception:
                log.exception("plugin %s failed in %s", self._plugin, event)
            self._catch_up()

    def _fall_behind(self, why: str) -> bool:
        """Says so, the first time; whether it is."""
        with self._lock:
            first, self._behind = not self._behind, True
        if first:
            log.error("plugin %s: %s; until it has caught up it misses events", self._plugin, why)
        return first

    def _miss(self) -> None:
        with self._lock:
            self._missed += 1

    def _catch_up(self) -> None:
        with self._lock:
            behind, self._behind = self._behind, False
            missed, self._missed = self._missed, 0
        if behind:
            log.warning("plugin %s has caught up; it has missed %d events", self._plugin, missed)
