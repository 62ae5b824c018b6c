"""The Litestar application: mounts the frontends, answers what no frontend does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
from litestar import Litestar, Response, Router
from litestar.exceptions import MethodNotAllowedException, NotFoundException

from corectl import trace
from corectl.errors import Busy, CorectlError
from corectl.server.body import AnyRequest
from corectl.server.failures import Failure, error_handlers
from corectl.server.loopwatch import watched_loop
from corectl.server.mounting import mount
from corectl.server.openapi import documents_route
from corectl.server.services import Services


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
            route_handlers=[*routers, documents_route()],
            lifespan=[lifespan],
            # Ours are made of what routes say of themselves: see `corectl.server.openapi`.
            openapi_config=None,
            logging_config=None,
            exception_handlers={
                NotFoundException: _not_found,
                MethodNotAllowedException: _not_allowed,
                **error_handlers(error_reply),
            },
        )

    return mount(services, make)


def error_reply(request: AnyRequest, exc: CorectlError) -> Response[bytes]:
    """An error as `{"error": "..."}`, with its status; the form that most clients know."""
    trace.current().outcome = exc.code
    headers = {"retry-after": str(exc.retry_after)} if isinstance(exc, Busy) else {}
    return Response(
        msgspec.json.encode(Failure(exc.message)),
        status_code=exc.status,
        media_type="application/json; charset=utf-8",
        headers=headers,
    )


def _not_found(_: AnyRequest, exc: Exception) -> Response[str]:
    return Response("404 page not found", status_code=404, media_type="text/plain")


def _not_allowed(_: AnyRequest, exc: MethodNotAllowedException) -> Response[str]:
    allowed = [name for name in (exc.headers or {}).get("allow", "").split(", ") if name != "OPTIONS"]
    # HEAD stands first, where there is one, as in the replies that clients know.
    headers: dict[str, Any] = {"allow": ", ".join(sorted(allowed, key=lambda name: name != "HEAD"))}
    return Response("405 method not allowed", status_code=405, media_type="text/plain", headers=headers)
