"""One remote server: its protocol is found out when it is first needed, and again after it was gone."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextvars import Context

from corectl.errors import CorectlError
from corectl.messages import LoadOptions
from corectl.remote.backend import RemoteEntry, RemoteServer
from corectl.runner.model_runner import ModelRunner
from corectl_remote.detect import detect
from corectl_remote.http import HttpClient
from corectl_remote.runner import RemoteRunner
from corectl_remote.wire import Api, Target, Wire


class Host:
    """See `corectl.remote.backend.RemoteHost`."""

    def __init__(self, server: RemoteServer) -> None:
        self.api = Api(server, HttpClient(server))
        self._wire: Wire | None = None
        self._detecting: asyncio.Task[Wire] | None = None

    @property
    def protocol(self) -> str:
        return self._wire.name if self._wire is not None else ""

    async def wire(self) -> Wire:
        """The protocol that the server speaks. Raises `RemoteUnreachable`, `RemoteError`."""
        if self._wire is not None:
            return self._wire
        if self._detecting is None or self._detecting.done():
            # It is nobody's request: neither its id nor where it came through goes along.
            self._detecting = asyncio.get_running_loop().create_task(detect(self.api), context=Context())
            # If it fails and nobody waits any more, nobody needs to know.
            self._detecting.add_done_callback(lambda task: task.cancelled() or task.exception())
        # All who need it now wait together, and one who leaves does not take the answer away from the others.
        self._wire = await asyncio.shield(self._detecting)
        return self._wire

    def gone(self) -> None:
        """The server cannot be reached, or no longer speaks as it did: another one may stand in its place."""
        self._wire = None

    async def models(self) -> Sequence[RemoteEntry]:
        try:
            return await (await self.wire()).models()
        except (CorectlError, asyncio.CancelledError):
            # The latter when the time for the check is up. What a protocol has no answer to may be another's.
            self.gone()
            raise

    async def describe(self, model: str) -> RemoteEntry:
        return await (await self.wire()).describe(model)

    def runner(self, model: str, options: LoadOptions, keep_alive: float | None) -> ModelRunner:
        return RemoteRunner(self, Target(model, options, keep_alive))

    async def unload(self, model: str) -> None:
        await (await self.wire()).unload(model)

    async def close(self) -> None:
        await self.api.http.close()
