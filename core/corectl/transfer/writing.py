"""Bytes on their way from a connection into the file of a download, while the next ones arrive."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from contextlib import aclosing, suppress

import httpx

from corectl.transfer.body import large_length, pieces
from corectl.transfer.direct import connection_of, is_bare, receive
from corectl.transfer.partial import PartialFile
from corectl.transfer.parts import Part
from corectl.transfer.rules import Rules
from corectl.transfer.spread import Spread
from corectl.transfer.workers import Workers


class Writer:
    """Writes one body into the parts that it covers."""

    def __init__(self, file: PartialFile, workers: Workers, rules: Rules) -> None:
        self._file = file
        self._workers = workers
        self._rules = rules
        self._held: list[memoryview] = []
        self._bytes = 0
        self._writing: asyncio.Future[None] | None = None

    async def take(self, response: httpx.Response, position: int, parts: Sequence[Part]) -> None:
        """Reads a body that begins at `position` of the blob, to the end of the last of `parts` and not beyond.

        Bytes that are in the file already are passed over. Raises `httpx.HTTPError`, `OSError`; what came before is
        written in any case.
        """
        spread = Spread(self._file, parts, position)
        length, wanted, came = large_length(response, self._rules), parts[-1].end - position, 0
        try:
            async with aclosing(pieces(response, self._rules)) as body:
                async for piece in body:
                    came += len(piece)
                    await self._add(memoryview(piece), spread)
                    if came >= wanted:
                        return
                    if length and await self._receive(response, spread, min(length, wanted) - came):
                        return
        finally:
            await self._flush(spread)
            await self._written()

    async def _receive(self, response: httpx.Response, spread: Spread, count: int) -> bool:
        """Has a thread take the rest of a body; False where that cannot be, or not yet."""
        if not self._workers.free or not is_bare(response):
            return False
        await self._flush(spread)
        await self._written()
        if not self._workers.free:
            return False
        try:
            connection = connection_of(response)
        except OSError:
            # It has been reset, which the library will say; or no descriptor is left, and the library goes on.
            return False
        connection.settimeout(self._rules.stall)
        try:
            future = self._workers.start_body(
                lambda: receive(connection, spread, count, self._rules.buffer, response.request)
            )
        except RuntimeError:
            # No thread can be started. If one comes free, it finds the connection closed, and writes nothing.
            connection.close()
            return False
        future.add_done_callback(lambda _: connection.close())
        try:
            await asyncio.shield(future)
        finally:
            if not future.done():
                # It wakes up, and writes what it has.
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
                await asyncio.wait({future})
        return True

    async def _add(self, data: memoryview, spread: Spread) -> None:
        self._held.append(data)
        self._bytes += len(data)
        if self._bytes >= self._rules.piece:
            await self._flush(spread)

    async def _flush(self, spread: Spread) -> None:
        """Begins to write what is held, as soon as the write before is done."""
        await self._written()
        if self._held:
            held = self._held
            self._held, self._bytes = [], 0
            self._writing = self._workers.start(lambda: spread.put(held))

    async def _written(self) -> None:
        if self._writing is not None:
            await asyncio.shield(self._writing)
            self._writing = None
