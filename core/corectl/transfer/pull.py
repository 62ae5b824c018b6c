"""Pulls one model: what the registry offers, the blobs that are missing, and then the manifest."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path

from corectl.errors import BadModelFile, BadRequest, Canceled, CorectlError, NotFound
from corectl.model.manifest import Layer
from corectl.model.name import ModelName
from corectl.progress import Progress, Report
from corectl.registry.remote import Offer, RegistrySession
from corectl.store.catalog import Catalog
from corectl.transfer.body import DigestMismatch
from corectl.transfer.offered import blobs_of, checked_manifest
from corectl.transfer.partial import PartialFile
from corectl.transfer.room import check_room
from corectl.transfer.sharing import Count, Downloads
from corectl.transfer.taking import take_bytes, take_file

SHOWN = 12
"""Digits of a digest that people see."""

ROUNDS = 3
"""How often blobs are fetched again that a program without our locks has removed meanwhile."""


class Pull:
    """One pull, in the loop of the transfers."""

    def __init__(
        self,
        name: ModelName,
        session: RegistrySession,
        catalog: Catalog,
        downloads: Downloads,
        report: Report,
    ) -> None:
        self._name = name
        self._session = session
        self._catalog = catalog
        self._downloads = downloads
        self._report = report

        self._here: dict[str, bytes | Path] = {}
        """What needs no download, as far as is known."""

    async def run(self) -> None:
        """Returns when the model is there. Raises `CorectlError`, `OSError`; what has come of it is kept."""
        offer, blobs = await self._offer()
        with ExitStack() as stack:
            holding = self._catalog.holding(blob.digest for blob in blobs)
            # From now on no server removes a blob of these with another model.
            await asyncio.to_thread(stack.enter_context, holding)
            await self._fill(offer.manifest, blobs)
        self._report(Progress("success"))

    async def _offer(self) -> tuple[Offer, list[Layer]]:
        try:
            offer = await self._session.offer()
            self._here = dict(offer.here)
            return offer, blobs_of(checked_manifest(offer.manifest))
        except CorectlError as exc:
            exc.message = f"pull model manifest: {exc.message}"
            raise

    async def _fill(self, manifest: bytes, blobs: list[Layer]) -> None:
        for left in reversed(range(ROUNDS)):
            await asyncio.to_thread(self._check_space, blobs)
            for blob in blobs:
                await self._bring(blob)
            self._report(Progress("verifying sha256 digest"))
            self._report(Progress("writing manifest"))
            try:
                unused = await asyncio.to_thread(self._install, manifest, blobs)
            except BadRequest:
                if not left or not await asyncio.to_thread(self._missing, blobs):
                    raise
            else:
                if unused:
                    self._report(Progress("removing unused layers"))
                return

    def _missing(self, blobs: Iterable[Layer]) -> list[Layer]:
        return [blob for blob in blobs if not self._catalog.blobs.exists(blob.digest)]

    def _check_space(self, blobs: Iterable[Layer]) -> None:
        """Raises `CorectlError` with status 507 if the disk has no room for all that is missing."""
        folder = self._catalog.blobs.folder
        folder.mkdir(parents=True, exist_ok=True)
        device = folder.stat().st_dev
        needed = sum(self._room(blob, device) for blob in self._missing(blobs))
        check_room(folder, needed, self._name.short)

    def _room(self, blob: Layer, device: int) -> int:
        """Bytes that a missing blob will need on the file system of the store."""
        here = self._here.get(blob.digest)
        if here is None:
            partial = PartialFile(self._catalog.blobs.path_of(blob.digest))
            return max(blob.size - partial.allocated, 0)
        # Bytes are few, and a file of the same file system becomes a clone or a link.
        return 0 if isinstance(here, bytes) or _device_of(here) == device else blob.size

    async def _bring(self, blob: Layer) -> None:
        """One blob into the store, if it is not there."""
        status = f"pulling {blob.digest.partition(':')[2][:SHOWN]}"

        def count(completed: int, total: int) -> None:
            self._report(Progress(status, blob.digest, total or blob.size, completed))

        if await asyncio.to_thread(self._catalog.blobs.exists, blob.digest):
            count(blob.size, blob.size)
            return
        count(0, blob.size)
        if await self._take(blob, count):
            count(blob.size, blob.size)
            return
        try:
            await self._downloads.fetch(blob, self._session, count)
        except DigestMismatch:
            self._report(Progress("verifying sha256 digest"))
            raise

    async def _take(self, blob: Layer, count: Count) -> bool:
        """Whether the blob needed no download."""
        here, store = self._here.get(blob.digest), self._catalog.blobs
        if here is None:
            return False
        if isinstance(here, bytes):
            await asyncio.to_thread(take_bytes, store, here, blob.digest)
            return True

        left, reached = threading.Event(), 0

        def read(size: int) -> None:
            nonlocal reached
            if left.is_set():
                raise Canceled("the transfer was cancelled")
            reached = max(reached, size)
            count(reached, blob.size)

        try:
            if await asyncio.to_thread(take_file, store, here, blob.digest, read):
                return True
        finally:
            # Who is cancelled leaves at once, and the server cannot end while a thread goes on.
            left.set()
        # Now it counts among what is to come.
        del self._here[blob.digest]
        await asyncio.to_thread(self._check_space, [blob])
        return False

    def _install(self, manifest: bytes, blobs: Iterable[Layer]) -> bool:
        """Whether the model that had the name before has left something behind."""
        with self._catalog.lock:
            try:
                before = set(self._catalog.manifests.read(self._name).digests)
            except (NotFound, BadModelFile):
                before = set()
            self._catalog.install(self._name, manifest)
            gone = before - {blob.digest for blob in blobs}
            return any(not self._catalog.blobs.exists(digest) for digest in gone)


def _device_of(path: Path) -> int | None:
    try:
        return path.stat().st_dev
    except OSError:
        return None
