"""One request's events, between the runner's connection and the one who reads them. In the server's event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from corectl.errors import CorectlError
from corectl.messages import Delta, Event, Started

Sink = Callable[[Event | CorectlError], None]


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

    def put(self, event: Event | CorectlError) -> None:
        """Adds an event; an error is the last, as is everything but `Started` and `Delta`."""
        self._ended = type(event) is not Delta and type(event) is not Started
        if self._sink is not None:
            self._sink(event)
            return
        if isinstance(event, CorectlError):
            self._error = event
        else:
            self._events.append(event)
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
        """From now on `sink` is called with each event as it arrives, and at once with those that wait.

        It is called where the runner's frames are read, and must neither wait nor raise.
        """
        self._sink = sink
        events, self._events = self._events, []
        for event in events:
            sink(event)
        if self._error is not None:
            sink(self._error)

    def close(self) -> None:
        """Ends the reading; work that is not done yet is cancelled. May be called more than once."""
        if self._open:
            self._open = False
            self._on_close(self.id, not self._ended)
