"""POST /api/create."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

from litestar import Response

from corectl.errors import BadRequest, NotSupported
from corectl.model.name import own_name
from corectl.progress import Progress
from corectl.prompt.render import check_template
from corectl.server.body import AnyRequest
from corectl.server.services import Services
from corectl.store.create import CreateSpec, create
from corectl.store.imports import Imports
from corectl_ollama.base import with_base
from corectl_ollama.schema import CreateRequest
from corectl_ollama.steps import Steps, steps_reply


async def create_model(request: AnyRequest, services: Services, body: CreateRequest) -> Response[Any]:
    """Streams what is done; an error before the first of that gets its own status. It goes on if the client leaves."""
    spec = _spec(body)
    own_name(spec.model)
    steps = with_base(services, spec, _steps(services, spec, in_place=body.in_place))
    return await steps_reply(request, steps, stream=body.stream)


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


async def _steps(services: Services, spec: CreateSpec, *, in_place: bool) -> Steps:
    """Creates on a thread of the workshop; yields what it reports, and raises what it raises."""
    loop = asyncio.get_running_loop()
    feed = _Feed()

    def report(step: Progress) -> None:
        services.workshop.check()
        loop.call_soon_threadsafe(feed.put, step)

    def work() -> None:
        imports = Imports(services.catalog, services.settings.import_folders)
        try:
            taken = imports.take(spec, report, in_place=in_place)
            create(services.catalog, taken, report, importer=services.workshop, check_template=check_template)
        except BaseException:
            services.catalog.discard(imports.created)
            raise
        finally:
            loop.call_soon_threadsafe(feed.put, None)

    task = asyncio.wrap_future(services.workshop.submit(work))
    while (step := await feed.get()) is not None:
        yield step
    await task


class _Feed:
    """Steps between a thread and a client. Of those about one digest only the last is kept, if the client is slow."""

    def __init__(self) -> None:
        self._steps: deque[Progress | None] = deque()
        self._some = asyncio.Event()

    def put(self, step: Progress | None) -> None:
        last = self._steps[-1] if self._steps else None
        if last is not None and step is not None and last.digest and last.digest == step.digest:
            self._steps.pop()
        self._steps.append(step)
        self._some.set()

    async def get(self) -> Progress | None:
        """The next step; None at the end."""
        await self._some.wait()
        step = self._steps.popleft()
        if not self._steps:
            self._some.clear()
        return step
