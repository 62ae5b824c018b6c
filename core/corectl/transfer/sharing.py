"""Downloads that several want: each blob is fetched once, for as long as somebody waits for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

import httpx

from corectl.errors import CorectlError
from corectl.model.manifest import Layer
from corectl.registry.remote import RegistrySession
from corectl.store.blobs import BlobStore
from corectl.transfer.download import Download, Source
from corectl.transfer.partial import PartialFile
from corectl.transfer.rules import Rules
from corectl.transfer.workers import Threads

Count = Callable[[int, int], None]
"""Is told how many bytes of how many are there."""


class _Shared:
    """A download that runs, and who is told of it."""

    def __init__(self) -> None:
        self.waiting: list[Count] = []
        self.task: asyncio.Task[None]
        self._last: tuple[int, int] | None = None

    def tell(self, completed: int, total: int) -> None:
        self._last = (completed, total)
        for count in self.waiting:
            count(completed, total)

    def join(self, count: Count) -> None:
        self.waiting.append(count)
        if self._last is not None:
            count(*self._last)


class Downloads:
    """All downloads into one store. For the loop of the transfers only."""

    def __init__(self, blobs: BlobStore, http: httpx.AsyncClient, rules: Rules) -> None:
        self._blobs = blobs
        self._http = http
        self._rules = rules
        self._running: dict[str, _Shared] = {}
        self._threads = Threads()

    async def fetch(self, layer: Layer, session: RegistrySession, count: Count) -> None:
        """Until the blob is in the store. Raises `CorectlError`, `OSError`."""
        while (shared := self._running.get(layer.digest)) is not None:
            try:
                return await self._wait(layer.digest, shared, count)
            except CorectlError:
                # That was somebody else's registry; one's own may have the blob.
                await asyncio.sleep(0)
        shared = self._running[layer.digest] = _Shared()
        shared.task = asyncio.create_task(self._download(layer, session, shared))
        await self._wait(layer.digest, shared, count)

    async def _wait(self, digest: str, shared: _Shared, count: Count) -> None:
        shared.join(count)
        try:
            await asyncio.shield(shared.task)
        finally:
            shared.waiting.remove(count)
            if not shared.waiting and not shared.task.done():
                # Who comes now begins anew, and waits for the file.
                self._forget(digest, shared)
                shared.task.cancel()
                await asyncio.gather(shared.task, return_exceptions=True)

    async def _download(self, layer: Layer, session: RegistrySession, shared: _Shared) -> None:
        try:
            source = Source(self._http, lambda: session.locate(layer))
            file = PartialFile(self._blobs.path_of(layer.digest))
            exists = partial(self._blobs.exists, layer.digest)
            await Download(layer, file, exists, source, self._rules, self._threads, shared.tell).run()
        finally:
            self._forget(layer.digest, shared)

    def _forget(self, digest: str, shared: _Shared) -> None:
        if self._running.get(digest) is shared:
            del self._running[digest]

    def close(self) -> None:
        """There is nothing left to do; the threads end."""
        self._threads.close()
