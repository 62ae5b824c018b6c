"""All servers that models may run on, and the way from a model's record to its server."""

from __future__ import annotations

import asyncio
import re
import secrets
import threading
from collections.abc import Mapping
from concurrent.futures import CancelledError
from contextlib import suppress

from corectl.config import Settings
from corectl.errors import CorectlError, NotSupported, RemoteError
from corectl.model.record import ModelRecord
from corectl.remote.backend import RemoteBackend, RemoteServer
from corectl.remote.model import RemoteModel
from corectl.remote.records import described
from corectl.remote.servers import named_servers, unnamed_server
from corectl.remote.watch import CHECK_SECONDS, WatchedServer
from corectl.trace import Trace

MAX_UNNAMED = 64
"""Servers of stubs, which no setting names, that are remembered."""

WAIT_SECONDS = 2.0
"""How long somebody who wants to know the models of a server may be kept waiting."""

MAX_HOPS = 8
"""Servers of this kind that one request may come through."""

_INSTANCE = f"corectl-{secrets.token_hex(8)}"
"""This process among them."""
_INSTANCES = re.compile(r"\bcorectl-[0-9a-f]{16}\b")


class Remotes:
    """The servers of one corectl. Made on any thread; started and closed in the event loop."""

    def __init__(self, settings: Settings, backends: Mapping[str, RemoteBackend]) -> None:
        """Raises `BadRequest` for settings that are wrong; nothing is asked yet."""
        self._backends = dict(sorted(backends.items()))
        self._hosts = settings.remote_hosts
        schemes = {scheme for backend in backends.values() for scheme in backend.schemes}
        servers = named_servers(settings, schemes)
        self.named = {server.name.lower(): self._watched(server) for server in servers}
        """Those that the settings name, by their names in lower case."""
        self._by_url = {watched.server.url: watched for watched in self.named.values()}
        self._unnamed: dict[str, WatchedServer] = {}
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """From now on the servers are watched."""
        self._loop = asyncio.get_running_loop()
        self._tasks = [self._loop.create_task(watched.watch()) for watched in self.named.values()]

    async def close(self) -> None:
        """Ends all connections."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        with self._lock:
            every = [*self.named.values(), *self._unnamed.values()]
        await asyncio.gather(*(watched.host.close() for watched in every), return_exceptions=True)

    def model(self, record: ModelRecord) -> RemoteModel:
        """The model of a record that has a `remote_host`. For any thread.

        Raises `BadRequest` if it may not run there, and `NotSupported` if no plugin can speak to its server.
        """
        url = record.config.remote_host
        watched = self._by_url.get(url)
        if watched is None:
            with self._lock:
                watched = self._unnamed.pop(url, None) or self._watched(unnamed_server(url, self._hosts))
                # The one that was used last comes last.
                self._unnamed[url] = watched
                while len(self._unnamed) > MAX_UNNAMED:
                    del self._unnamed[next(iter(self._unnamed))]
        return RemoteModel(record=record, server=watched)

    async def described(self, record: ModelRecord) -> ModelRecord:
        """A record with what its server says of the model; as it is, if the server says nothing."""
        try:
            model = self.model(record)
            async with asyncio.timeout(WAIT_SECONDS):
                return described(record, await model.server.host.describe(model.id))
        except (CorectlError, TimeoutError):
            return record

    def refresh(self, watched: WatchedServer) -> None:
        """Asks a server for its models, and waits for the answer, but not for long. For worker threads."""
        if self._loop is None or self._loop.is_closed():
            return
        asked = asyncio.run_coroutine_threadsafe(watched.refresh(), self._loop)
        with suppress(TimeoutError, CancelledError):
            asked.result(CHECK_SECONDS)

    def _watched(self, server: RemoteServer) -> WatchedServer:
        scheme = server.url.partition("://")[0]
        for name, backend in self._backends.items():
            if scheme in backend.schemes:
                return WatchedServer(server, name, backend.connect(server))
        raise NotSupported(f"no plugin here speaks to {scheme}:// servers; see 'corectl plugins'")


def forwarded(current: Trace) -> dict[str, str]:
    """Headers for a request that is passed on: its id, so that both logs have the same, and where it has come through.

    Raises `RemoteError` for one that has been here before: models that lead to one another would pass it on for ever.
    """
    hops = _INSTANCES.findall(current.via)
    if _INSTANCE in hops or len(hops) >= MAX_HOPS:
        raise RemoteError("the request has come in a circle: remote models must not lead back here", 508)
    return {"x-request-id": current.id, "via": ", ".join(f"1.1 {hop}" for hop in [*hops, _INSTANCE])}
