"""The thread of the transfers: an event loop of its own, so that bytes by the gigabyte delay no other reply."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from concurrent.futures import Future
from typing import Any

import uvloop

from corectl.errors import Canceled
from corectl.progress import Progress, Report

Job = Callable[[Report], Coroutine[Any, Any, None]]


class TransferLoop:
    """Started when it is first needed. `stream` belongs to the caller's loop; what the job does, to this one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._closed = False
        self._jobs: set[asyncio.Task[None]] = set()

    async def stream(self, job: Job) -> AsyncGenerator[Progress, None]:
        """What a job reports, until it ends; its error is raised here. To leave is to cancel it."""
        relay = _Relay(asyncio.get_running_loop())
        loop = self._running()
        future = asyncio.run_coroutine_threadsafe(self._tracked(job, relay.put), loop)
        future.add_done_callback(relay.end)
        try:
            async for progress in relay:
                yield progress
            if future.cancelled():
                raise Canceled("the transfer was cancelled: the server is closing")
            if (error := future.exception()) is not None:
                raise error
        finally:
            future.cancel()

    async def close(self, last: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Cancels what runs, awaits `last` in the loop of the transfers, and ends the thread."""
        with self._lock:
            self._closed = True
            loop, thread = self._loop, self._thread
            self._loop = self._thread = None
        if loop is None or thread is None:
            return
        ending = asyncio.run_coroutine_threadsafe(self._end(last), loop)
        try:
            await asyncio.wrap_future(ending)
        finally:
            loop.call_soon_threadsafe(loop.stop)
            await asyncio.to_thread(thread.join)

    async def _tracked(self, job: Job, report: Report) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._jobs.add(task)
        try:
            await job(report)
        finally:
            self._jobs.discard(task)

    async def _end(self, last: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Cancels the jobs, and only those: what they have begun they end themselves."""
        jobs = set(self._jobs)
        for job in jobs:
            job.cancel()
        await asyncio.gather(*jobs, return_exceptions=True)
        await last()
        await asyncio.get_running_loop().shutdown_asyncgens()
        await asyncio.get_running_loop().shutdown_default_executor()

    def _running(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._closed:
                raise Canceled("the server is closing")
            if self._loop is None:
                self._loop = uvloop.new_event_loop()
                self._thread = threading.Thread(
                    target=_run, args=(self._loop,), name="transfers", daemon=True
                )
                self._thread.start()
            return self._loop


def _run(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
    finally:
        loop.close()


class _Relay:
    """Progress on its way from the transfers' thread to a reader. Who reads slowly misses steps of the same blob."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._lock = threading.Lock()
        self._items: deque[Progress] = deque()
        self._news = asyncio.Event()
        self._ended = False

    def put(self, progress: Progress) -> None:
        with self._lock:
            last = self._items[-1] if self._items else None
            # The first step of a blob, which says how large it is, is never left out.
            if (
                last is not None
                and last.completed
                and (last.status, last.digest)
                == (
                    progress.status,
                    progress.digest,
                )
            ):
                self._items.pop()
            self._items.append(progress)
        self._wake()

    def end(self, _: Future[None]) -> None:
        self._ended = True
        self._wake()

    def _wake(self) -> None:
        try:
            self._loop.call_soon_threadsafe(self._news.set)
        except RuntimeError:  # the reader's loop is closed
            return

    async def __aiter__(self) -> AsyncIterator[Progress]:
        while True:
            # Read before the items: what is put before the end is not missed.
            ended = self._ended
            with self._lock:
                items = list(self._items)
                self._items.clear()
            for item in items:
                yield item
            if ended and not items:
                return
            if not items:
                await self._news.wait()
            self._news.clear()
