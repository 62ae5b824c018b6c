"""A server's application with one frontend, asked without a socket."""

from __future__ import annotations

import asyncio
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from corectl.config import Settings
from corectl.plugins import PluginHost
from corectl.server.frontend import Frontend

if TYPE_CHECKING:
    from litestar import Litestar

SECONDS = 30.0
"""After so long a request has failed."""


class Answer(msgspec.Struct, frozen=True):
    """A whole reply. Header names are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes


class Mounted:
    """One frontend in an application of its own, with all other kinds of plugins that are installed."""

    def __init__(self, frontend: Frontend, folder: Path, max_body: int) -> None:
        # Litestar is imported by those who serve.
        from corectl.server.app import build_app
        from corectl.server.serve import build_services

        settings = Settings(models=folder / "models", max_body=max_body)
        services = build_services(settings)
        services.plugins.frontends = {frontend.name: frontend}
        self.name = frontend.name
        self.plugins: PluginHost = services.plugins
        with warnings.catch_warnings():
            # What a later version of the web framework will not do any more is no reason to leave out a frontend.
            warnings.simplefilter("ignore", DeprecationWarning)
            self.app: Litestar = build_app(services)

    def routes(self) -> list[tuple[str, str]]:
        """Method and path of each route of the frontend; parameters of paths stand in braces."""
        from litestar.routes import HTTPRoute

        return sorted(
            (method, route.path_format)
            for route in self.app.routes
            if isinstance(route, HTTPRoute)
            for handler in route.route_handlers
            if "frontend" in handler.opt
            for method in handler.http_methods
            if method != "OPTIONS"
        )

    def document(self) -> dict[str, Any]:
        """What its routes say of themselves, as OpenAPI."""
        from corectl.server.openapi import declared, document

        return document(self.name, declared(self.app).get(self.name, []))

    def ask(
        self, method: str, path: str, body: bytes = b"", *, leaves: bool = False, **headers: str
    ) -> Answer:
        """The answer to one request. Fails if the application raises. A client that `leaves` does so at once."""
        return asyncio.run(self._ask(method, path, body, leaves, headers))

    async def _ask(
        self, method: str, path: str, body: bytes, leaves: bool, headers: dict[str, str]
    ) -> Answer:
        sent: list[Any] = []
        gone = asyncio.Event()
        asked = 0

        async def send(message: Any) -> None:
            sent.append(message)
            if message["type"] == "http.response.body" and not message.get("more_body", False):
                gone.set()

        async def receive() -> Any:
            nonlocal asked
            asked += 1
            if asked == 1 and not leaves:
                return {"type": "http.request", "body": body, "more_body": False}
            if not leaves:
                await gone.wait()
            return {"type": "http.disconnect"}

        async with asyncio.timeout(SECONDS):
            await self.app(_scope(method, path, headers), receive, send)
        if not sent:
            return Answer(0, {}, b"")
        names = {name.decode().lower(): value.decode() for name, value in sent[0]["headers"]}
        return Answer(sent[0]["status"], names, b"".join(part.get("body", b"") for part in sent[1:]))


def _scope(method: str, path: str, headers: dict[str, str]) -> Any:
    given = {"host": "localhost", "content-type": "application/json", **headers}
    return {
        "type": "http",
        "http_version": "1.1",
        "scheme": "http",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": b"",
        "asgi": {"version": "3.0"},
        "headers": [(name.encode(), value.encode()) for name, value in given.items()],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 2),
    }
