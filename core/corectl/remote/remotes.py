"""All servers that models may run on, and the way from a model's record to its server."""

from __future__ import annotations

import asyncio
import re
import secrets
import threading
from collections.abc import Mapping
from concurrent.futures import CancelledError
from contextlib import suppress
from functools import partial

from corectl.config import Settings
from corectl.errors import CorectlError, NotSupported, RemoteError
from corectl.model.record import ModelRecord
from corectl.remote.backend import RemoteBackend, RemoteServer
from corectl.remote.late import LateHost
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

    def at_hand(self, record: ModelRecord) -> bool:
        """Whether `model` takes no time for a record: its server is known already, or it has none."""
        url = record.config.remote_host
        return not url or url in self._by_url or url in self._unnamed

    def model(self, record: ModelRecord) -> RemoteModel:
        """The model of a record that has a `remote_host`. For worker threads; for an event loop if it is `at_hand`.

        Raises `BadRequest` if it may not run there, `NotSupported` if no plugin can speak to its server, and
        `RemoteError` if the plugin that could gives no way to it.
        """
        url = record.config.remote_host
        watched = self._by_url.get(url) or self._remembered(url)
        if watched is None:
            server = unnamed_server(url, self._hosts)
            name, backend = self._backend_for(server)
            # Others go on meanwhile. Two who come first make two ways, of which one is used.
            watched = self._remembered(url, WatchedServer(server, name, backend.connect(server)))
        assert watched is not None
        return RemoteModel(record=record, server=watched)

    def _remembered(self, url: str, new: WatchedServer | None = None) -> WatchedServer | None:
        """The server of a stub, if it is known; else the new one, which is so from now on."""
        with self._lock:
            watched = self._unnamed.pop(url, None) or new
            if watched is not None:
                # The one that was used last comes last.
                self._unnamed[url] = watched
                while len(self._unnamed) > MAX_UNNAMED:
                    del self._unnamed[next(iter(self._unnamed))]
            return watched

    async def described(self, record: ModelRecord) -> ModelRecord:
        """A record with what its server says of the model; as it is, if the server says nothing."""
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                at_hand = self.at_hand(record)
                model = self.model(record) if at_hand else await asyncio.to_thread(self.model, record)
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

    def wake(self, watched: WatchedServer) -> None:
        """Has a server checked soon, without waiting for it. For any thread."""
        if self._loop is not None:
            # A loop that has ended checks nothing any more.
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(watched.wake)

    def _watched(self, server: RemoteServer) -> WatchedServer:
        name, backend = self._backend_for(server)
        try:
            host = backend.connect(server)
        except CorectlError as exc:
            host = LateHost(partial(backend.connect, server), exc)
        return WatchedServer(server, name, host)

    def _backend_for(self, server: RemoteServer) -> tuple[str, RemoteBackend]:
        scheme = server.url.partition("://")[0]
        for name, backend in self._backends.items():
            if scheme in backend.schemes:
                return name, backend
        raise NotSupported(f"no plugin here speaks to {scheme}:// servers; see 'corectl plugins'")


def forwarded(current: Trace) -> dict[str, str]:
    """Headers for a request that is passed on: its id, so that both logs have the same, and where it has come through.

    Raises `RemoteError` for one that has been here before: models that lead to one another would pass it on for ever.
    """
    hops = _INSTANCES.findall(current.via)
    if _INSTANCE in hops or len(hops) >= MAX_HOPS:
        raise RemoteError("the request has come in a circle: remote models must not lead back here", 508)
    return {"x-request-id": current.id, "via": ", ".join(f"1.1 {hop}" for hop in [*hops, _INSTANCE])}
