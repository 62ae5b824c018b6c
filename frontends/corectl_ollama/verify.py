"""POST /api/verify, an addition of ours: whether the blobs of the store still have their bytes."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any

import msgspec
from litestar import Response
from litestar.response import Stream

from corectl.errors import Canceled, CorectlError, from_os_error
from corectl.model.name import ModelName
from corectl.progress import Progress
from corectl.server.body import AnyRequest
from corectl.server.failures import Failure
from corectl.server.operation import NDJSON
from corectl.server.services import Services
from corectl.server.watch import while_connected
from corectl.store.verify import Problem, Verified, verify
from corectl_ollama.replies import line, reply
from corectl_ollama.schema import VerifyRequest
from corectl_ollama.steps import WireProgress

Event = Progress | Verified


class VerifyReply(msgspec.Struct, kw_only=True):
    """The last line, or the whole reply: `status` is `success`, or `damaged` where there are problems."""

    status: str
    blobs: int
    bytes: int
    problems: tuple[Problem, ...]


async def verify_store(request: AnyRequest, services: Services, body: VerifyRequest) -> Response[Any]:
    """A line for every blob, and more for large ones; then what was found. It ends when the client leaves."""
    events = _events(services, [ModelName.parse(name) for name in body.models])
    if body.stream:
        first = await anext(events)
        return Stream(_lines(first, events), media_type=NDJSON, status_code=200)
    return reply(_wire(await while_connected(request, _last(events))), media_type="application/json")


async def _events(services: Services, names: list[ModelName]) -> AsyncGenerator[Event, None]:
    """Verifies on a worker thread; yields its steps as they come, then the result, and raises what it raises."""
    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[Event | None] = asyncio.Queue()
    left = threading.Event()

    def report(step: Progress) -> None:
        if left.is_set():
            raise Canceled("request canceled")
        loop.call_soon_threadsafe(queue.put_nowait, step)

    def work() -> None:
        try:
            loop.call_soon_threadsafe(queue.put_nowait, verify(services.catalog, names, report))
        finally:
            loop.call_soon_threadsafe(queue.put_nowait, None)

    task = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        while (event := await queue.get()) is not None:
            yield event
        await task
    finally:
        left.set()


async def _last(events: AsyncGenerator[Event, None]) -> Event:
    async with aclosing(events):
        return [event async for event in events][-1]


async def _lines(first: Event, rest: AsyncGenerator[Event, None]) -> AsyncIterator[bytes]:
    async with aclosing(rest):
        try:
            yield line(_wire(first))
            async for event in rest:
                yield line(_wire(event))
        except CorectlError as exc:
            yield line(Failure(exc.message))
        except OSError as exc:
            yield line(Failure(from_os_error(exc).message))


def _wire(event: Event) -> WireProgress | VerifyReply:
    if isinstance(event, Progress):
        return WireProgress(event.status, event.digest, event.total, event.completed)
    status = "damaged" if event.problems else "success"
    return VerifyReply(status=status, blobs=event.blobs, bytes=event.bytes, problems=event.problems)
