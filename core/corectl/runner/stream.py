"""One request's events, between the runner's connection and the one who reads them. In the server's event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from corectl.errors import CorectlError
from corectl.messages import Delta, Event, Started

_ONGOING = (Started, Delta)
"""Events that others follow."""

Sink = Callable[[Sequence[Event] | CorectlError], None]


class EventStream:
    """What a runner answers to one request, for one reader, who takes it (`take`) or is told (`flow`)."""

    def __init__(self, id: int, on_close: Callable[[int, bool], None]) -> None:
        self.id = id
        self._on_close = on_close
        self._events: list[Event] = []
        self._error: CorectlError | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._sink: Sink | None = None
        self._open = True
        self._ended = False

    def put(self, events: Sequence[Event] | CorectlError) -> None:
        """Adds what came at once, at least one event; an error is the last, as is all but `Started` and `Delta`."""
        self._ended = isinstance(events, CorectlError) or not isinstance(events[-1], _ONGOING)
        if self._sink is not None:
            self._sink(events)
            return
        if isinstance(events, CorectlError):
            self._error = events
        else:
            self._events += events
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def take(self) -> list[Event]:
        """Waits for events; all that have come, at least one. Raises the runner's error, or `RunnerDied`."""
        while not self._events:
            if self._error is not None:
                raise self._error
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        events, self._events = self._events, []
        return events

    def flow(self, sink: Sink) -> None:
        """From now on `sink` is called with events as they arrive, and at once with those that wait.

        It is called where the runner's frames are read, and must neither wait nor raise.
        """
        self._sink = sink
        events, self._events = self._events, []
        if events:
            sink(events)
        if self._error is not None:
            sink(self._error)

    def close(self) -> None:
        """Ends the reading; work that is not done yet is cancelled. May be called more than once."""
        if self._open:
            self._open = False
            self._on_close(self.id, not self._ended)
