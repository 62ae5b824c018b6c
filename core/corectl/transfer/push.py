"""Pushes one model: the blobs that the registry does not have, and then the manifest."""

from __future__ import annotations

import asyncio

from corectl.errors import BadRequest, NotSupported
from corectl.model.manifest import Layer
from corectl.model.name import ModelName
from corectl.progress import Progress, Report
from corectl.registry.remote import PushSession, RegistrySession
from corectl.store.catalog import Catalog
from corectl.store.manifests import StoredManifest
from corectl.transfer.offered import blobs_of
from corectl.transfer.pull import SHOWN
from corectl.transfer.rules import Rules


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
        for blob in blobs_of(self._model.manifest):
            await self._bring(blob)
        self._report(Progress("pushing manifest"))
        await self._session.publish(self._model.data)
        self._report(Progress("success"))

    async def _bring(self, blob: Layer) -> None:
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
            path = self._catalog.blobs.path_of(blob.digest)
            await self._session.upload(blob, path, sent)
        self._report(Progress(status, blob.digest, blob.size, blob.size))


def pushable(session: RegistrySession, registry: str) -> PushSession:
    """Raises `NotSupported` for a registry that models are only pulled from."""
    if not isinstance(session, PushSession):
        raise NotSupported(f"models cannot be pushed there: {registry} is only pulled from")
    return session


def stored_model(catalog: Catalog, name: ModelName) -> StoredManifest:
    """What is to be pushed. It blocks. Raises `NotFound`, `BadModelFile`, `BadRequest` for what has no weights here."""
    stored = catalog.manifests.read(name)
    record = catalog.find(name)
    if record is not None and record.config.remote_host:
        raise BadRequest(f"model '{name.short}' runs on {record.config.remote_host} and cannot be pushed")
    return stored
