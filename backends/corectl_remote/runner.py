"""Answers requests for one model by asking its server."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

from corectl import trace
from corectl.errors import CorectlError, RemoteError, RemoteUnreachable
from corectl.messages import (
    Completion,
    Detokenize,
    Embedding,
    Rendered,
    Rerank,
    Scores,
    Text,
    Tokenize,
    Tokens,
    Vectors,
)
from corectl.runner.stream import EventStream
from corectl_remote.wire import Target, Wire

if TYPE_CHECKING:
    from corectl_remote.host import Host

log = logging.getLogger("corectl.remote")

A = TypeVar("A")


class RemoteRunner:
    """See `corectl.runner.model_runner.ModelRunner`."""

    def __init__(self, host: Host, target: Target) -> None:
        self._host = host
        self._target = target

    async def ready(self) -> None:
        await self._ask(lambda wire: wire.load(self._target))

    def complete(self, request: Completion) -> EventStream:
        def closed(_: int, cancel: bool) -> None:
            if cancel:
                task.cancel()

        stream = EventStream(0, closed)
        task = asyncio.get_running_loop().create_task(self._complete(stream, request))
        return stream

    async def _complete(self, stream: EventStream, request: Completion) -> None:
        async def work(wire: Wire) -> None:
            await self._host.api.stream(
                wire.complete(self._target, request), lambda event: stream.put([event])
            )

        try:
            await self._ask(work)
        except CorectlError as exc:
            stream.put(exc)
        except Exception as exc:
            log.exception("a reply of remote server %s could not be read", self._host.api.server.label)
            stream.put(RemoteError(f"the reply of the remote server could not be read: {type(exc).__name__}"))

    async def render(self, request: Completion) -> Rendered:
        return await self._ask(lambda wire: wire.render(self._target, request))

    async def embed(self, request: Embedding) -> Vectors:
        found = await self._ask(lambda wire: wire.embed(self._target, request))
        trace.current().answered(found.prompt_tokens, found.dropped_tokens)
        return found

    async def rerank(self, request: Rerank) -> Scores:
        found = await self._ask(lambda wire: wire.rerank(self._target, request))
        trace.current().answered(found.prompt_tokens, found.dropped_tokens)
        return found

    async def tokenize(self, request: Tokenize) -> Tokens:
        return await self._ask(lambda wire: wire.tokenize(self._target, request))

    async def detokenize(self, request: Detokenize) -> Text:
        return await self._ask(lambda wire: wire.detokenize(self._target, request))

    async def _ask(self, question: Callable[[Wire], Awaitable[A]]) -> A:
        try:
            return await question(await self._host.wire())
        except RemoteUnreachable:
            self._host.gone()
            raise
