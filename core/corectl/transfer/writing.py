"""Bytes on their way from a connection into the file of a download, while the next ones arrive."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from contextlib import aclosing, suppress
from typing import TypeVar

import httpx

from corectl.transfer.body import pieces
from corectl.transfer.partial import PartialFile
from corectl.transfer.parts import Part
from corectl.transfer.rules import Rules

T = TypeVar("T")


class Workers:
    """Blocking work of one download. It is never left behind: a file must not be closed under a write."""

    def __init__(self, pool: Executor) -> None:
        self._pool = pool
        self._jobs: set[asyncio.Future[object]] = set()

    def start(self, work: Callable[[], T]) -> asyncio.Future[T]:
        future = asyncio.get_running_loop().run_in_executor(self._pool, work)
        self._jobs.add(future)  # type: ignore[arg-type]
        future.add_done_callback(self._jobs.discard)
        # What goes wrong is of no interest once nobody waits for it.
        future.add_done_callback(lambda done: done.cancelled() or done.exception())
        return future

    async def run(self, work: Callable[[], T]) -> T:
        """Its result. Who is cancelled leaves at once; the work does not."""
        return await asyncio.shield(self.start(work))

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


class Writer:
    """Writes one body into the parts that it covers. `advanced` is called after each write."""

    def __init__(
        self, file: PartialFile, workers: Workers, rules: Rules, advanced: Callable[[], None]
    ) -> None:
        self._file = file
        self._workers = workers
        self._rules = rules
        self._advanced = advanced
        self._held: list[memoryview] = []
        self._bytes = 0
        self._position = 0
        self._next = 0
        self._writing: asyncio.Future[int] | None = None

    async def take(self, response: httpx.Response, position: int, parts: Sequence[Part]) -> None:
        """Reads a body that begins at `position` of the blob, to the end of the last of `parts` and not beyond.

        Bytes that are in the file already are passed over. Raises `httpx.HTTPError`, `OSError`; what came before is
        written in any case.
        """
        left = [part for part in parts if not part.done]
        try:
            async with aclosing(pieces(response, self._rules)) as body:
                async for piece in body:
                    await self._spread(memoryview(piece), position, left)
                    position += len(piece)
                    if not left:
                        return
        finally:
            if left:
                await self._flush(left[0])
            await self._written()

    async def _spread(self, view: memoryview, position: int, left: list[Part]) -> None:
        """Bytes of the body into the parts that want them; a part that has all of its own leaves `left`."""
        while view and left:
            part = left[0]
            wanted = max(self._next, part.front)
            if position < wanted:
                known = view[: wanted - position]
                view, position = view[len(known) :], position + len(known)
                continue
            taken = view[: part.end - position]
            await self._add(taken, part, position)
            view, position = view[len(taken) :], position + len(taken)
            self._next = position
            if position == part.end:
                await self._flush(part)
                left.pop(0)

    async def _add(self, data: memoryview, part: Part, position: int) -> None:
        if not self._held:
            self._position = position
        self._held.append(data)
        self._bytes += len(data)
        if self._bytes >= self._rules.piece:
            await self._flush(part)

    async def _flush(self, part: Part) -> None:
        """Begins to write what is held, as soon as the write before is done."""
        await self._written()
        if self._held:
            held, position = self._held, self._position
            self._held, self._bytes = [], 0
            self._writing = self._workers.start(lambda: self._file.write(held, position))
            self._writing.add_done_callback(lambda done: self._count(done, part))

    def _count(self, done: asyncio.Future[int], part: Part) -> None:
        with suppress(OSError, asyncio.CancelledError):
            part.completed += done.result()
            self._advanced()

    async def _written(self) -> None:
        if self._writing is not None:
            await asyncio.shield(self._writing)
            self._writing = None
