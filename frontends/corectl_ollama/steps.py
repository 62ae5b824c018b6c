"""The replies of what takes its time (pull, push): a line for each step, or one object for all."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any

import msgspec
from litestar import Response
from litestar.types import Receive, Scope, Send

from corectl import trace
from corectl.errors import Canceled, CorectlError, from_os_error
from corectl.messages import Notice
from corectl.progress import Progress
from corectl.server.body import AnyRequest
from corectl.server.failures import Failure
from corectl.server.operation import NDJSON
from corectl.server.watch import while_connected
from corectl_ollama.replies import line, reply

log = logging.getLogger(__name__)

Steps = AsyncGenerator[Progress, None]


class WireProgress(msgspec.Struct, omit_defaults=True):
    """One step as clients know it: numbers in bytes, and nothing that says nothing. `warnings` are our addition."""

    status: str
    digest: str = ""
    total: int = 0
    completed: int = 0
    warnings: list[Notice] = []


async def steps_reply(request: AnyRequest, steps: Steps, *, stream: bool) -> Response[Any]:
    """All steps as they come, or the last of them; an error before the first gets its own status.

    `steps` is closed when it has ended, and when the client leaves.
    """
    if stream:
        try:
            first = await while_connected(request, anext(steps))
        except BaseException:
            await steps.aclose()
            raise
        return _StreamedSteps(request, first, steps)
    async with aclosing(steps):
        last = await while_connected(request, _last(steps))
    return reply(last, media_type="application/json")


async def with_faults(steps: Steps, *kinds: type[CorectlError]) -> Steps:
    """The same steps. Errors of these kinds are not the client's fault: 500, as clients of this API know them."""
    async with aclosing(steps):
        try:
            async for step in steps:
                yield step
        except kinds as exc:
            exc.status = 500
            raise


class _StreamedSteps(Response[None]):
    """Writes each step as it comes. An error in mid-stream is the last line."""

    def __init__(self, request: AnyRequest, first: Progress, rest: Steps) -> None:
        super().__init__(None)
        self._request = request
        self._first = first
        self._rest = rest

    def to_asgi_response(self, *_: Any, **__: Any) -> Any:
        """Litestar asks for it; nothing but this object is needed to write the reply."""
        return self._respond

    async def _respond(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with aclosing(self._rest):
            headers = [(b"content-type", NDJSON.encode())]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            try:
                await while_connected(self._request, self._write(send))
            except Canceled as exc:
                trace.current().outcome = exc.code

    async def _write(self, send: Send) -> None:
        try:
            await _send(send, line(_wire(self._first)))
            async for step in self._rest:
                await _send(send, line(_wire(step)))
            last = b""
        except (CorectlError, OSError) as exc:
            error = exc if isinstance(exc, CorectlError) else from_os_error(exc)
            if isinstance(exc, OSError):
                log.error("%s failed: %s", trace.current().path, exc)
            trace.current().outcome = error.code
            last = line(Failure(error.message))
        await _send(send, last, more=False)


async def _send(send: Send, body: bytes, *, more: bool = True) -> None:
    await send({"type": "http.response.body", "body": body, "more_body": more})


async def _last(steps: Steps) -> WireProgress:
    """The last step; what was to be said of others goes with it."""
    last, notices = Progress(""), []
    async for step in steps:
        last = step
        notices += [step.notice] if step.notice else []
    return _wire(last, notices)


def _wire(step: Progress, notices: Sequence[Notice] = ()) -> WireProgress:
    said = list(notices) or ([step.notice] if step.notice else [])
    return WireProgress(step.status, step.digest, step.total, step.completed, said)
