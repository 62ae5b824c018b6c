"""The Litestar application: mounts the frontends, answers what no frontend does."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
from litestar import Litestar, Response, Router
from litestar.exceptions import HTTPException, MethodNotAllowedException, NotFoundException

from corectl import trace
from corectl.errors import Busy, CorectlError, from_os_error
from corectl.server.body import AnyRequest
from corectl.server.loopwatch import watched_loop
from corectl.server.mounting import mount
from corectl.server.services import Services

log = logging.getLogger(__name__)


def build_app(services: Services) -> Litestar:
    """The application without its guard. A frontend that cannot be mounted is logged and left out."""

    @asynccontextmanager
    async def lifespan(_: Litestar) -> AsyncIterator[None]:
        await services.remotes.start()
        services.plugins.emit("corectl_server_started", settings=services.settings)
        try:
            with watched_loop():
                yield
        finally:
            services.plugins.emit("corectl_server_stopping")
            services.workshop.close()
            await services.transfers.close()
            await services.scheduler.shutdown()
            await services.remotes.close()
            await asyncio.to_thread(services.plugins.close)

    def make(routers: list[Router]) -> Litestar:
        return Litestar(
            route_handlers=routers,
            lifespan=[lifespan],
            openapi_config=None,
            logging_config=None,
            exception_handlers={
                NotFoundException: _not_found,
                MethodNotAllowedException: _not_allowed,
                HTTPException: _http_error,
                CorectlError: error_reply,
                OSError: _os_error,
                Exception: _unexpected,
            },
        )

    return mount(services, make)


def error_reply(request: AnyRequest, exc: CorectlError) -> Response[bytes]:
    """An error as `{"error": "..."}`, with its status; the form that most clients know."""
    trace.current().outcome = exc.code
    headers = {"retry-after": str(exc.retry_after)} if isinstance(exc, Busy) else {}
    return Response(
        msgspec.json.encode({"error": exc.message}),
        status_code=exc.status,
        media_type="application/json; charset=utf-8",
        headers=headers,
    )


def _os_error(request: AnyRequest, exc: OSError) -> Response[bytes]:
    log.error("%s %s failed: %s", request.scope["method"], request.scope["path"], exc)
    return error_reply(request, from_os_error(exc))


def _unexpected(request: AnyRequest, exc: Exception) -> Response[bytes]:
    log.error("%s %s failed", request.scope["method"], request.scope["path"], exc_info=exc)
    return error_reply(request, CorectlError("internal error; the server's log says more"))


def _not_found(_: AnyRequest, exc: Exception) -> Response[str]:
    return Response("404 page not found", status_code=404, media_type="text/plain")


def _not_allowed(_: AnyRequest, exc: MethodNotAllowedException) -> Response[str]:
    allowed = [name for name in (exc.headers or {}).get("allow", "").split(", ") if name != "OPTIONS"]
    # HEAD stands first, where there is one, as in the replies that clients know.
    headers: dict[str, Any] = {"allow": ", ".join(sorted(allowed, key=lambda name: name != "HEAD"))}
    return Response("405 method not allowed", status_code=405, media_type="text/plain", headers=headers)


def _http_error(request: AnyRequest, exc: HTTPException) -> Response[bytes]:
    error = CorectlError(exc.detail)
    error.status = exc.status_code
    return error_reply(request, error)
