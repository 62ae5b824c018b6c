"""Pulls one model: what the registry offers, the blobs that are missing, and then the manifest."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path

from corectl.errors import BadModelFile, BadRequest, CorectlError, NotFound
from corectl.model.manifest import Layer
from corectl.model.name import ModelName
from corectl.progress import Progress, Report
from corectl.registry.remote import Offer, RegistrySession
from corectl.store.catalog import Catalog
from corectl.transfer.body import DigestMismatch
from corectl.transfer.offered import blobs_of, checked_manifest
from corectl.transfer.partial import PartialFile
from corectl.transfer.room import check_room
from corectl.transfer.sharing import Downloads

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

    async def run(self) -> None:
        """Returns when the model is there. Raises `CorectlError`, `OSError`; what has come of it is kept."""
        offer, blobs = await self._offer()
        with ExitStack() as stack:
            holding = self._catalog.holding(blob.digest for blob in blobs)
            # From now on no server removes a blob of these with another model.
            await asyncio.to_thread(stack.enter_context, holding)
            await self._fill(offer, blobs)
        self._report(Progress("success"))

    async def _offer(self) -> tuple[Offer, list[Layer]]:
        try:
            offer = await self._session.offer()
            return offer, blobs_of(checked_manifest(offer.manifest))
        except CorectlError as exc:
            exc.message = f"pull model manifest: {exc.message}"
            raise

    async def _fill(self, offer: Offer, blobs: list[Layer]) -> None:
        for left in reversed(range(ROUNDS)):
            await asyncio.to_thread(self._check_space, offer, blobs)
            for blob in blobs:
                await self._bring(blob, offer)
            self._report(Progress("verifying sha256 digest"))
            self._report(Progress("writing manifest"))
            try:
                unused = await asyncio.to_thread(self._install, offer.manifest, blobs)
            except BadRequest:
                if not left or not await asyncio.to_thread(self._missing, blobs):
                    raise
            else:
                if unused:
                    self._report(Progress("removing unused layers"))
                return

    def _missing(self, blobs: Iterable[Layer]) -> list[Layer]:
        return [blob for blob in blobs if not self._catalog.blobs.exists(blob.digest)]

    def _check_space(self, offer: Offer, blobs: Iterable[Layer]) -> None:
        """Raises `CorectlError` with status 507 if the disk has no room for all that is missing."""
        store = self._catalog.blobs
        missing = [blob for blob in self._missing(blobs) if blob.digest not in offer.here]
        needed = sum(
            max(blob.size - PartialFile(store.path_of(blob.digest)).allocated, 0) for blob in missing
        )
        check_room(store.folder, needed, self._name.short)

    async def _bring(self, blob: Layer, offer: Offer) -> None:
        """One blob into the store, if it is not there."""
        status = f"pulling {blob.digest.partition(':')[2][:SHOWN]}"

        def count(completed: int, total: int) -> None:
            self._report(Progress(status, blob.digest, total or blob.size, completed))

        if await asyncio.to_thread(self._catalog.blobs.exists, blob.digest):
            count(blob.size, blob.size)
        elif (here := offer.here.get(blob.digest)) is not None:
            count(0, blob.size)
            await asyncio.to_thread(self._take, blob, here)
            count(blob.size, blob.size)
        else:
            count(0, blob.size)
            try:
                await self._downloads.fetch(blob, self._session, count)
            except DigestMismatch:
                self._report(Progress("verifying sha256 digest"))
                raise

    def _take(self, blob: Layer, here: bytes | Path) -> None:
        store = self._catalog.blobs
        if not isinstance(here, bytes):
            store.link_or_copy(here, blob.digest)
            return
        found = f"sha256:{hashlib.sha256(here).hexdigest()}"
        if found != blob.digest:
            raise DigestMismatch(blob.digest, found)
        store.put(here)

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
