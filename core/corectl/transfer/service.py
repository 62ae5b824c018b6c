"""Pulls and pushes, for the server's event loop."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing

import httpx

from corectl.config import Settings
from corectl.errors import BadRequest, CorectlError, NotFound, RemoteError
from corectl.model.name import ModelName, parse_reference, split_scheme
from corectl.progress import Progress, Report
from corectl.registry.remote import Origin, RegistrySession, RemoteRegistry
from corectl.store.catalog import Catalog
from corectl.transfer.client import make_client
from corectl.transfer.loop import Job, TransferLoop
from corectl.transfer.pull import Pull
from corectl.transfer.push import Push, pushable, stored_model
from corectl.transfer.rules import Rules
from corectl.transfer.sharing import Downloads

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
        self._http: httpx.AsyncClient | None = None
        self._downloads: Downloads | None = None

    async def pull(self, text: str, *, insecure: bool = False) -> AsyncGenerator[Progress, None]:
        """Brings a model into the store; what it yields last is `success`.

        `text` is a name, in front of which may stand `http://`, which needs `insecure`; that means no encryption.
        Raises `BadRequest` before the first step for what is no name, and `CorectlError` or `OSError` later.
        """
        name = _pullable(text)
        yield Progress("pulling manifest")
        origin = _origin(text, name, insecure)

        async def job(report: Report) -> None:
            http, downloads = self._tools()
            await Pull(name, self._session(origin, http), self._catalog, downloads, report).run()

        async with aclosing(self._loop.stream(self._guarded(job))) as steps:
            async for progress in steps:
                yield progress

    async def push(self, text: str, *, insecure: bool = False) -> AsyncGenerator[Progress, None]:
        """Sends a model of the store to the registry that its name says; what it yields last is `success`.

        Raises `NotFound` for a model that is not in the store, and what `pull` does.
        """
        yield Progress("retrieving manifest")
        try:
            name = parse_reference(text).name
            model = await asyncio.to_thread(stored_model, self._catalog, name)
        except (NotFound, BadRequest):
            yield Progress("couldn't retrieve manifest")
            raise
        origin = _origin(text, name, insecure)

        async def job(report: Report) -> None:
            http, _ = self._tools()
            session = pushable(self._session(origin, http), self._registry(name).name)
            await Push(model, session, self._catalog, self._rules, report).run()

        async with aclosing(self._loop.stream(self._guarded(job))) as steps:
            async for progress in steps:
                yield progress

    async def close(self) -> None:
        """Ends all transfers, and the thread that they run on."""
        await self._loop.close(self._end)

    async def _end(self) -> None:
        if self._downloads is not None:
            self._downloads.close()
        if self._http is not None:
            await self._http.aclose()

    def _tools(self) -> tuple[httpx.AsyncClient, Downloads]:
        """Made when they are first needed, in the loop that they belong to."""
        if self._http is None or self._downloads is None:
            self._http = make_client()
            self._downloads = Downloads(self._catalog.blobs, self._http, self._rules)
        return self._http, self._downloads

    def _registry(self, name: ModelName) -> RemoteRegistry:
        """The first by name that has the host among its own, else the first that speaks to all others."""
        host, every = name.host.casefold(), self._registries.values()
        own = (item for item in every if host in (known.casefold() for known in item.hosts))
        general = (item for item in every if not item.hosts)
        found = next(own, None) or next(general, None)
        if found is None:
            raise BadRequest(f"no plugin speaks to the registry {name.host}; see 'corectl plugins'")
        return found

    def _session(self, origin: Origin, http: httpx.AsyncClient) -> RegistrySession:
        return self._registry(origin.name).session(origin, http)

    def _guarded(self, job: Job) -> Job:
        """A job whose errors are those that a client may see, whatever a plugin does."""

        async def run(report: Report) -> None:
            try:
                await job(report)
            except (CorectlError, OSError):
                raise
            except Exception as exc:
                log.exception("a transfer failed")
                raise RemoteError(
                    f"the transfer failed: {type(exc).__name__}; the server's log says more", 500
                ) from exc

        return run


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
