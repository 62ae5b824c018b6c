"""The threads of the downloads: what blocks is done by them, and never left behind."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")

SHORT = 8
"""Threads that write, hash and note."""

BODIES = 32
"""Threads that each receive one body, from all downloads together. Further bodies are received by the loop."""


class Threads:
    """For all downloads. For the loop of the transfers only."""

    def __init__(self) -> None:
        self.short = ThreadPoolExecutor(SHORT, thread_name_prefix="transfer-file")
        self.bodies = ThreadPoolExecutor(BODIES, thread_name_prefix="transfer-body")
        self.free = BODIES
        """How many of those have nothing to do."""

    def close(self) -> None:
        """There is nothing left to do; the threads end."""
        self.short.shutdown()
        self.bodies.shutdown()


class Workers:
    """Blocking work of one download. It is waited for: a file must not be closed under a write."""

    def __init__(self, threads: Threads) -> None:
        self._threads = threads
        self._jobs: set[asyncio.Future[object]] = set()

    def start(self, work: Callable[[], T]) -> asyncio.Future[T]:
        return self._start(self._threads.short, work)

    async def run(self, work: Callable[[], T]) -> T:
        """Its result. Who is cancelled leaves at once; the work does not."""
        return await asyncio.shield(self.start(work))

    @property
    def free(self) -> bool:
        """Whether a thread for a body has nothing to do."""
        return self._threads.free > 0

    def start_body(self, work: Callable[[], T]) -> asyncio.Future[T]:
        """Work that takes as long as a body does; only where a thread is free.

        Raises `RuntimeError` where none can be started; the work may be done all the same, later.
        """
        future = self._start(self._threads.bodies, work)
        self._threads.free -= 1
        future.add_done_callback(self._freed)
        return future

    def _freed(self, _: object) -> None:
        self._threads.free += 1

    def _start(self, pool: Executor, work: Callable[[], T]) -> asyncio.Future[T]:
        future = asyncio.get_running_loop().run_in_executor(pool, work)
        self._jobs.add(future)  # type: ignore[arg-type]
        future.add_done_callback(self._jobs.discard)
        # What goes wrong is of no interest once nobody waits for it.
        future.add_done_callback(lambda done: done.cancelled() or done.exception())
        return future

    async def settled(self) -> None:
        """Waits for all of it, also when cancelled."""
        cancelled = False
        while self._jobs:
            try:
                await asyncio.wait(set(self._jobs))
            except asyncio.CancelledError:
                cancelled = True
        if cancelled:
            raise asyncio.CancelledError
