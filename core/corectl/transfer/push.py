"""Pushes one model: the blobs that the registry does not have, and then the manifest."""

from __future__ import annotations

import asyncio
import logging
from contextlib import ExitStack
from pathlib import Path

from corectl.model.manifest import Layer
from corectl.progress import Progress, Report
from corectl.registry.remote import PushSession
from corectl.store.catalog import Catalog
from corectl.store.manifests import StoredManifest
from corectl.transfer.offered import blobs_of
from corectl.transfer.pull import SHOWN
from corectl.transfer.rules import Rules

log = logging.getLogger("corectl.transfer")


class Push:
    """One push, in the loop of the transfers."""

    def __init__(
        self, model: StoredManifest, session: PushSession, catalog: Catalog, rules: Rules, report: Report
    ) -> None:
        self._model = model
        self._session = session
        self._catalog = catalog
        self._rules = rules
        self._report = report

    async def run(self) -> None:
        """Returns when the registry offers the model. Raises `CorectlError`, `OSError`."""
        blobs = blobs_of(self._model.manifest)
        with ExitStack() as stack:
            paths = await asyncio.to_thread(self._take, stack, blobs)
            for blob, path in zip(blobs, paths, strict=True):
                await self._bring(blob, path)
            self._report(Progress("pushing manifest"))
            await self._session.publish(self._model.data)
        self._report(Progress("success"))

    def _take(self, stack: ExitStack, blobs: list[Layer]) -> list[Path]:
        """The files, which stay when the model is removed or replaced meanwhile."""
        try:
            stack.enter_context(self._catalog.holding(blob.digest for blob in blobs))
        except OSError as exc:
            # A store that cannot be written to can be pushed from as well.
            log.warning(
                "nothing keeps the blobs of %s while they are pushed: %s", self._model.name.short, exc
            )
        return [self._catalog.blobs.require(blob.digest) for blob in blobs]

    async def _bring(self, blob: Layer, path: Path) -> None:
        status = f"pushing {blob.digest.partition(':')[2][:SHOWN]}"
        loop = asyncio.get_running_loop()
        told = loop.time()

        def sent(completed: int) -> None:
            nonlocal told
            if loop.time() - told >= self._rules.tick:
                told = loop.time()
                self._report(Progress(status, blob.digest, blob.size, completed))

        if not await self._session.has(blob):
            self._report(Progress(status, blob.digest, blob.size))
            await self._session.upload(blob, path, sent)
        self._report(Progress(status, blob.digest, blob.size, blob.size))
