"""One line of the log for each request, and the id that it is found by: an ASGI middleware around everything else."""

from __future__ import annotations

import logging
import re
import uuid
from typing import Any

from litestar.types import ASGIApp, Receive, Send

from corectl import trace
from corectl.trace import Trace

log = logging.getLogger("corectl.request")

HEADER = b"x-request-id"
VIA = b"via"
MAX_VIA = 1024
"""Characters of such a header that are looked at."""
MAX_PATH = 200
"""Characters of a path that are logged."""

_SANE = re.compile(rb"[A-Za-z0-9._:-]{1,64}")
_CLIENT_LEFT = 499
_FAILED = 500


class RequestLog:
    """Gives each request a `Trace`, and writes it down at the end.

    A client may name its request with `X-Request-ID`; anything but 1 to 64 letters, digits and `._:-` is replaced. The
    line never has a prompt, a query, a header or a body; the path is as the client wrote it.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        id, via = _passed_on(scope["headers"])
        current = Trace(id=id or uuid.uuid4().hex, path=scope["path"], via=via)
        trace.begin(current)
        status = 0

        async def send_with_id(message: Any) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], (HEADER, current.id.encode())]
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        except Exception:
            # The server around this says 500 where nothing has been said yet.
            status = status or _FAILED
            raise
        finally:
            _write(scope["method"], current, status or _CLIENT_LEFT)


def _passed_on(headers: list[tuple[bytes, bytes]]) -> tuple[str, str]:
    """The id that a request comes with, and the servers that it has come through; empty if there are none."""
    id = via = ""
    for name, value in headers:
        if name == HEADER and not id and _SANE.fullmatch(value):
            id = value.decode()
        elif name == VIA:
            via = f"{via}, {value.decode('latin-1')[:MAX_VIA]}"
    return id, via


def _write(method: str, current: Trace, status: int) -> None:
    fields: dict[str, Any] = {
        "id": current.id,
        "method": method,
        "path": current.path[:MAX_PATH],
        "status": status,
        "outcome": current.outcome or ("finished" if status < 400 else "refused"),
        "total": round(current.elapsed, 4),
    }
    if current.model:
        fields |= {
            "model": current.model,
            "queued": round(current.queued, 4),
            "load": round(current.load, 4),
        }
    if current.first_token is not None:
        fields |= {"first_token": round(current.first_token, 4), "reason": current.reason}
    if current.usage is not None:
        fields |= {
            "prompt_tokens": current.usage.prompt_tokens,
            "cached_tokens": current.usage.cached_tokens,
            "output_tokens": current.usage.output_tokens,
        }
    if current.notices:
        fields["notices"] = ",".join(current.notices)
    log.info("request", extra={"fields": fields})
