"""A named server whose backend gave no way to it when this one started."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextvars import Context

from corectl.errors import CorectlError, RemoteError
from corectl.messages import LoadOptions
from corectl.remote.backend import RemoteEntry, RemoteHost
from corectl.runner.model_runner import ModelRunner


class LateHost:
    """See `corectl.remote.backend.RemoteHost`. Each check of its health asks `connect` again, on a worker thread."""

    def __init__(self, connect: Callable[[], RemoteHost], why: CorectlError) -> None:
        self._connect = connect
        self._why = why.message
        self._host: RemoteHost | None = None
        self._asking: asyncio.Task[RemoteHost] | None = None

    @property
    def protocol(self) -> str:
        return "" if self._host is None else self._host.protocol

    async def models(self) -> Sequence[RemoteEntry]:
        if self._host is None:
            if self._asking is None:
                asking = asyncio.to_thread(self._connect)
                self._asking = asyncio.get_running_loop().create_task(asking, context=Context())
                self._asking.add_done_callback(self._answered)
            # An answer that comes after the time for this check is there for the next one.
            self._host = await asyncio.shield(self._asking)
        return await self._host.models()

    def _answered(self, asking: asyncio.Task[RemoteHost]) -> None:
        self._asking = None
        if asking.cancelled():
            return
        error = asking.exception()
        if error is None:
            self._host = asking.result()
        elif isinstance(error, CorectlError):
            self._why = error.message

    async def describe(self, model: str) -> RemoteEntry:
        return await self._there().describe(model)

    def runner(self, model: str, options: LoadOptions, keep_alive: float | None) -> ModelRunner:
        return self._there().runner(model, options, keep_alive)

    async def unload(self, model: str) -> None:
        await self._there().unload(model)

    async def close(self) -> None:
        if self._host is not None:
            await self._host.close()

    def _there(self) -> RemoteHost:
        if self._host is None:
            raise RemoteError(self._why)
        return self._host
