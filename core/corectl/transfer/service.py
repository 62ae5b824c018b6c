"""Pulls and pushes, for the server's event loop."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import TYPE_CHECKING

from corectl.config import Settings
from corectl.errors import BadRequest, CorectlError, NotFound, RemoteError
from corectl.model.name import ModelName, parse_reference, split_scheme
from corectl.progress import Progress, Report
from corectl.registry.remote import Origin, RemoteRegistry
from corectl.store.catalog import Catalog
from corectl.store.manifests import StoredManifest
from corectl.transfer.loop import Job, TransferLoop
from corectl.transfer.rules import Rules

if TYPE_CHECKING:
    from corectl.transfer.work import Work

log = logging.getLogger("corectl.transfer")


class Transfers:
    """All transfers of one server. Made on any thread; used and closed in the server's event loop.

    Leaving an iterator ends that caller's transfer: use `contextlib.aclosing`. What has been fetched is kept, and the
    next pull goes on from there.
    """

    def __init__(
        self,
        settings: Settings,
        registries: Mapping[str, RemoteRegistry],
        catalog: Catalog,
        *,
        rules: Rules | None = None,
    ) -> None:
        self._registries = dict(sorted(registries.items()))
        self._catalog = catalog
        self._rules = rules or Rules()
        self._loop = TransferLoop()
        self._made: Work | None = None

    async def pull(self, text: str, *, insecure: bool = False) -> AsyncGenerator[Progress, None]:
        """Brings a model into the store; what it yields last is `success`.

        `text` is a name, in front of which may stand `http://`, which needs `insecure`; that means no encryption.
        Raises `BadRequest` before the first step for what is no name, and `CorectlError` or `OSError` later.
        """
        name = _pullable(text)
        yield Progress("pulling manifest")
        origin = _origin(text, name, insecure)
        registry = self._registry(name)
        async with aclosing(self._run(lambda report: self._work().pull(registry, origin, report))) as steps:
            async for progress in steps:
                yield progress

    async def push(self, text: str, *, insecure: bool = False) -> AsyncGenerator[Progress, None]:
        """Sends a model of the store to the registry that its name says; what it yields last is `success`.

        Raises `NotFound` for a model that is not in the store, and what `pull` does.
        """
        name = parse_reference(text).name
        yield Progress("retrieving manifest")
        try:
            model = await asyncio.to_thread(_stored, self._catalog, name)
        except (NotFound, BadRequest):
            yield Progress("couldn't retrieve manifest")
            raise
        origin = _origin(text, name, insecure)
        registry = self._registry(name)
        async with aclosing(
            self._run(lambda report: self._work().push(registry, origin, model, report))
        ) as steps:
            async for progress in steps:
                yield progress

    async def close(self) -> None:
        """Ends all transfers, and the thread that they run on."""
        await self._loop.close(self._end)

    async def _end(self) -> None:
        if self._made is not None:
            await self._made.close()

    def _work(self) -> Work:
        """Made when it is first needed, in the loop that it belongs to: what it imports takes a while."""
        if self._made is None:
            from corectl.transfer.work import Work

            self._made = Work(self._catalog, self._rules)
        return self._made

    def _registry(self, name: ModelName) -> RemoteRegistry:
        """The first by name that has the host among its own, else the first that speaks to all others."""
        host, every = name.host.casefold(), self._registries.values()
        own = (item for item in every if host in (known.casefold() for known in item.hosts))
        general = (item for item in every if not item.hosts)
        found = next(own, None) or next(general, None)
        if found is None:
            raise BadRequest(f"no plugin speaks to the registry {name.host}; see 'corectl plugins'")
        return found

    def _run(self, job: Job) -> AsyncGenerator[Progress, None]:
        """What a job reports; its errors are those that a client may see, whatever a plugin does."""

        async def guarded(report: Report) -> None:
            try:
                await job(report)
            except (CorectlError, OSError):
                raise
            except Exception as exc:
                log.exception("a transfer failed")
                text = f"the transfer failed: {type(exc).__name__}; the server's log says more"
                raise RemoteError(text, 500) from exc

        return self._loop.stream(guarded)


def _pullable(text: str) -> ModelName:
    reference = parse_reference(text)
    if reference.source == "cloud":
        raise BadRequest(
            f"{text[:100]!r} runs in Ollama's cloud; corectl has no access to it and pulls models that run here"
        )
    return reference.name


def _origin(text: str, name: ModelName, insecure: bool) -> Origin:
    if split_scheme(text)[0] == "http" and not insecure:
        raise BadRequest("insecure protocol http")
    return Origin(name, insecure)


def _stored(catalog: Catalog, name: ModelName) -> StoredManifest:
    """What is to be pushed. It blocks. Raises `NotFound`, `BadModelFile`, and `BadRequest` for what runs elsewhere."""
    stored = catalog.manifests.read(name)
    record = catalog.find(name)
    if record is not None and record.config.remote_host:
        raise BadRequest(f"model '{name.short}' runs on {record.config.remote_host}, and cannot be pushed")
    return stored
