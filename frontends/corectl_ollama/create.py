"""POST /api/create."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from litestar import Response
from litestar.response import Stream

from corectl.errors import BadRequest, CorectlError, NotSupported, from_os_error
from corectl.model.name import ModelName
from corectl.prompt.render import check_template
from corectl.server.services import Services
from corectl.store.create import CreateSpec, create
from corectl_ollama.replies import NDJSON, line, reply
from corectl_ollama.schema import CreateRequest


async def create_model(services: Services, body: CreateRequest) -> Response[Any]:
    """Streams statuses; an error before the first of them gets its own status. It goes on if the client leaves."""
    spec = _spec(body)
    ModelName.parse(spec.model)
    statuses = _statuses(services, spec)
    if body.stream:
        first = await anext(statuses)
        return Stream(_lines(first, statuses), media_type=NDJSON, status_code=200)
    every = [status async for status in statuses]
    return reply({"status": every[-1]}, media_type="application/json")


def _spec(body: CreateRequest) -> CreateSpec:
    if body.draft_files or body.draft_quantize:
        raise NotSupported("draft models are not supported by this version; leave out DRAFT")
    for name in (*(body.files or ()), *(body.adapters or ())):
        if name.startswith("/") or ".." in name.split("/"):
            raise BadRequest("file path must be relative")
    return CreateSpec(
        model=body.model or body.name,
        from_=body.from_,
        files=body.files,
        adapters=body.adapters,
        template=body.template,
        system=body.system,
        license=body.license,
        parameters=body.parameters,
        messages=tuple(message.message() for message in body.messages),
        quantize=body.quantize or body.quantization,
        renderer=body.renderer,
        parser=body.parser,
        requires=body.requires,
        info=body.info,
        remote_host=body.remote_host,
    )


async def _statuses(services: Services, spec: CreateSpec) -> AsyncIterator[str]:
    """Creates on a worker thread; yields its statuses as they come, and raises what it raises."""
    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[str | None] = asyncio.Queue()

    def report(status: str) -> None:
        loop.call_soon_threadsafe(queue.put_nowait, status)

    def work() -> None:
        try:
            create(
                services.catalog,
                spec,
                report,
                check_template=check_template,
                importer=services,
            )
        finally:
            loop.call_soon_threadsafe(queue.put_nowait, None)

    task = asyncio.ensure_future(asyncio.to_thread(work))
    while (status := await queue.get()) is not None:
        yield status
    await task


async def _lines(first: str, rest: AsyncIterator[str]) -> AsyncIterator[bytes]:
    yield line({"status": first})
    try:
        async for status in rest:
            yield line({"status": status})
    except CorectlError as exc:
        yield line({"error": exc.message})
    except OSError as exc:
        yield line({"error": from_os_error(exc).message})
