"""One blob on its way into the store: in parts, through breaks, and with its digest."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Any

import httpx

from corectl.errors import RemoteError, RemoteUnreachable
from corectl.model.manifest import Layer
from corectl.registry.remote import Location
from corectl.transfer.body import Broken, DigestMismatch, Expired, NoRanges, check, length_of, range_of
from corectl.transfer.client import unreachable
from corectl.transfer.following import opened
from corectl.transfer.partial import PartialFile
from corectl.transfer.parts import Part, front_of, next_run, span_of
from corectl.transfer.room import check_room
from corectl.transfer.rules import Rules
from corectl.transfer.workers import Threads, Workers
from corectl.transfer.writing import Writer

log = logging.getLogger("corectl.transfer")

Job = Coroutine[Any, Any, None]

HASH_STEP = 2**23
"""Bytes that are worth a turn of the digest."""

HASH_TURN = 2**26
"""Bytes that one turn takes at most: to cancel is to wait for it."""

FLUSH_STEP = 2**26
"""Bytes that are worth a flush while others still come."""

MAX_EXPIRED = 3
"""Addresses in a row that are refused."""

MAX_UNTOLD = 2**26
"""Bytes of a blob whose size nobody has said."""

WAIT_SECONDS = 0.5
"""Between two looks at a download that another process does."""


class Source:
    """Where a blob comes from. `locate` is asked again after a try that has failed, once for all parts."""

    def __init__(self, http: httpx.AsyncClient, locate: Callable[[], Awaitable[Location]]) -> None:
        self.http = http
        self._locate = locate
        self._location: Location | None = None
        self._lock = asyncio.Lock()

    async def location(self) -> Location:
        """Raises `Broken` where the registry fails to say it, which it may do the next time."""
        async with self._lock:
            if self._location is None:
                try:
                    self._location = await self._locate()
                except RemoteError as exc:
                    raise Broken(exc.message) from exc
            return self._location

    def expire(self, location: Location) -> None:
        if self._location is location:
            self._location = None


class Download:
    """Fetches one blob. `report` is told how many bytes are noted as being there, and of how many.

    `exists` says whether the store has the blob by now, and may block.
    """

    def __init__(
        self,
        layer: Layer,
        blob: PartialFile,
        exists: Callable[[], bool],
        source: Source,
        rules: Rules,
        threads: Threads,
        report: Callable[[int, int], None],
    ) -> None:
        self._layer = layer
        self._file = blob
        self._exists = exists
        self._source = source
        self._rules = rules
        self._report = report
        self._workers = Workers(threads)
        self._size = layer.size
        self._parts: list[Part] = []
        self._reported = -1
        self._over = False

    async def run(self) -> None:
        """Returns when the blob is in the store.

        Raises `DigestMismatch` (nothing is left then), `NotFound`, `RemoteError`, `OSError`; what has come is kept.
        """
        try:
            if not await self._take():
                return
            await self._begin()
            await _together([self._note(), self._flush()], [self._bring(), self._hash()])
            await self._finish()
        finally:
            try:
                await self._workers.settled()
            finally:
                self._leave()

    async def _take(self) -> bool:
        """Waits for the file if another process has it; False if that one has made it a blob."""
        while not await self._workers.run(self._file.open):
            parts = await self._workers.run(lambda: self._file.notes.read(self._size)) or []
            self._tell(sum(part.completed for part in parts))
            await asyncio.sleep(WAIT_SECONDS)
        if not await self._workers.run(self._exists):
            return True
        self._file.discard()
        self._file.close()
        self._tell(self._size)
        return False

    async def _begin(self) -> None:
        if not self._size:
            await self._tries(self._ask_size, ())
            await self._workers.run(self._check_room)
        if self._size:
            self._parts = await self._workers.run(lambda: self._file.parts(self._size, self._rules))
        else:
            await self._workers.run(self._file.restart)
            self._parts = [Part(0, 0, MAX_UNTOLD)]
        self._tell(self._completed)

    async def _ask_size(self, location: Location) -> None:
        async with self._opened(location, {}) as response:
            await check(response, 0, None, location)
            self._size = length_of(response)

    def _check_room(self) -> None:
        """The pull has counted what the manifest says, which was nothing."""
        needed = self._size - self._file.allocated
        check_room(self._file.path.parent, needed, f"a blob of {self._size} bytes")

    def _opened(
        self, location: Location, headers: Mapping[str, str]
    ) -> AbstractAsyncContextManager[httpx.Response]:
        return opened(self._source.http, location, headers, read_seconds=self._rules.stall)

    async def _bring(self) -> None:
        """Fetches it, and has the disk take the last of it while the digest catches up."""
        await self._fetch()
        if self._size >= FLUSH_STEP:
            await self._workers.run(self._file.flush)

    async def _fetch(self) -> None:
        if self._size:
            if len(self._parts) == 1 and not self._parts[0].completed and await self._at_once():
                return
            try:
                await self._fetch_parts()
                return
            except NoRanges:
                log.info("the registry of %s gives no ranges", self._layer.digest)
        await self._tries(self._whole, self._parts)

    async def _at_once(self) -> bool:
        """One try at a blob of one part, without a range; False if it broke: then only what is missing is asked for."""
        location = None
        try:
            location = await self._source.location()
            await self._whole(location)
        except (Broken, httpx.HTTPError, RemoteUnreachable) as exc:
            if location is not None:
                self._source.expire(location)
            log.info("the download of %s broke: %s", self._layer.digest, self._said(exc, location))
            return False
        return True

    async def _fetch_parts(self) -> None:
        """All that is missing, on more and more connections while that may help."""
        loop = asyncio.get_running_loop()
        waiting = deque(part for part in self._parts if not part.done)
        running: set[asyncio.Task[None]] = set()
        done: set[asyncio.Task[None]] = set()
        wanted, since, before, rate = 1, loop.time(), self._completed, 0.0
        try:
            while waiting or running:
                while waiting and len(running) < wanted:
                    # Where one connection is enough, the time between two requests is what it loses.
                    worth = int(rate * self._rules.request) if wanted == 1 else 0
                    running.add(loop.create_task(self._fetch_run(next_run(waiting, worth))))
                done, running = await asyncio.wait(
                    running, timeout=self._rules.ramp, return_when=asyncio.FIRST_COMPLETED
                )
                for task in done:
                    task.result()
                seconds = max(loop.time() - since, self._rules.look)
                rate = (self._completed - before) / seconds
                if seconds >= self._rules.ramp:
                    if rate < self._rules.plenty:
                        wanted = min(2 * wanted, self._rules.parts)
                    since, before = loop.time(), self._completed
        finally:
            # Several may have failed at once, and all must be heard.
            await _cancel(running | done)

    async def _fetch_run(self, parts: Sequence[Part]) -> None:
        async def attempt(location: Location) -> None:
            left = [part for part in parts if not part.done]
            span = span_of(left)
            async with self._opened(location, range_of(span)) as response:
                await check(response, self._size, span, location)
                await self._writer().take(response, span.front, left)
            if not all(part.done for part in parts):
                raise Broken("the connection ended early")

        await self._tries(attempt, parts)

    async def _whole(self, location: Location) -> None:
        """One body for all parts, from its start; what is there already is passed over."""
        async with self._opened(location, {}) as response:
            await check(response, self._size, None, location)
            await self._writer().take(response, 0, self._parts)
        if not self._size:
            if self._parts[0].done:
                raise RemoteError(f"the registry sends {MAX_UNTOLD} bytes or more, and has not said how many")
            self._size = self._parts[0].size = self._parts[0].completed
        if self._completed < self._size:
            raise Broken("the connection ended early")

    def _writer(self) -> Writer:
        return Writer(self._file, self._workers, self._rules)

    async def _tries(self, attempt: Callable[[Location], Awaitable[None]], parts: Sequence[Part]) -> None:
        """Until it succeeds, or has failed too often. Each try after one that failed asks where the blob is now."""
        tries = stalls = 0
        while True:
            before, location = sum(part.completed for part in parts), None
            try:
                location = await self._source.location()
                return await attempt(location)
            except (Broken, httpx.HTTPError, RemoteUnreachable) as exc:
                failure: Exception = exc
            if location is not None:
                self._source.expire(location)
            gained = sum(part.completed for part in parts) - before
            stalls = 0 if gained else stalls
            if isinstance(failure, httpx.ReadTimeout) and stalls < self._rules.stalls:
                stalls += 1
                log.info("a part of %s has stalled, and is asked for again", self._layer.digest)
                continue
            tries = 1 if gained >= self._rules.progress else tries + 1
            if tries >= (MAX_EXPIRED if isinstance(failure, Expired) else self._rules.tries):
                raise RemoteError(f"max retries exceeded: {self._said(failure, location)}")
            log.info("a part of %s failed: %s", self._layer.digest, self._said(failure, location))
            if tries > 1 or not isinstance(failure, Expired):
                await asyncio.sleep(self._rules.backoff * 2 ** (tries - 1))

    def _said(self, failure: Exception, location: Location | None) -> str:
        if isinstance(failure, httpx.HTTPError) and location is not None:
            return unreachable("GET", location.url, failure).message
        return str(failure)

    async def _hash(self) -> None:
        """Follows the front of what is written, and reads it back: it is in the machine's memory still."""
        while not (all(part.done for part in self._parts) and self._file.hashed == self._size):
            front = min(front_of(self._parts), self._file.hashed + HASH_TURN)
            if front - self._file.hashed >= HASH_STEP or (front == self._size and front > self._file.hashed):
                await self._workers.run(partial(self._file.hash_to, front))
            else:
                # Not called for each piece: that was half of what the loop did.
                await asyncio.sleep(self._rules.look)

    async def _flush(self) -> None:
        """Again and again has the disk take what is there, so that the end need not wait for all of it."""
        flushed = self._completed
        while True:
            await asyncio.sleep(self._rules.tick)
            if self._completed - flushed >= FLUSH_STEP:
                flushed = self._completed
                await self._workers.run(self._file.flush)

    async def _note(self) -> None:
        """Again and again notes how far the parts are, and only then says so."""
        while True:
            await asyncio.sleep(self._rules.tick)
            completed = self._completed
            if completed != self._reported and self._noted:
                states = [(part, part.completed) for part in self._parts]
                await self._workers.run(partial(self._file.notes.write, states))
            self._tell(completed)

    @property
    def _completed(self) -> int:
        return sum(part.completed for part in self._parts)

    @property
    def _noted(self) -> bool:
        """Whether it is worth to go on with later: not where nobody knows the size."""
        return bool(self._parts) and self._size > 0

    def _tell(self, completed: int) -> None:
        if completed > self._reported:
            self._reported = completed
            self._report(completed, self._size)

    async def _finish(self) -> None:
        wanted, got = self._layer.digest, self._file.digest
        self._over = True
        # Notes that are being written would come back after they were removed.
        await self._workers.settled()
        if got != wanted:
            await self._workers.run(self._file.discard)
            raise DigestMismatch(wanted, got)
        await self._workers.run(self._file.adopt)
        self._tell(self._size)

    def _leave(self) -> None:
        """What has come is noted one last time, and somebody else may have the file."""
        try:
            if not self._over and self._noted:
                self._file.notes.write([(part, part.completed) for part in self._parts])
        except OSError as exc:
            log.warning("how far %s is could not be noted: %s", self._layer.digest, exc)
        finally:
            self._file.close()


async def _together(helpers: Sequence[Job], work: Sequence[Job]) -> None:
    """Until all of the work is done; the first error ends everything, and is raised. The helpers are ended then."""
    helping = {asyncio.ensure_future(job) for job in helpers}
    working = {asyncio.ensure_future(job) for job in work}
    pending = set(working)
    try:
        while pending:
            done, _ = await asyncio.wait(helping | pending, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
            pending -= done
    finally:
        await _cancel(helping | working)


async def _cancel(tasks: Iterable[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
