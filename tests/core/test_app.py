"""The application around the frontends: what it answers itself, and its life."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import threading
from collections.abc import Sequence
from typing import Any, cast

import pytest
from litestar import Router, get, head, post
from litestar.exceptions import PermissionDeniedException

from corectl import deadline
from corectl.config import Settings
from corectl.errors import Busy, CorectlError, NotFound, TooLarge
from corectl.plugins import PluginHost
from corectl.server.app import build_app
from corectl.server.body import AnyRequest, read_body
from corectl.server.services import Services
from corectl.transfer.service import Transfers


class Frontend:
    """Routes that fail in every way."""

    name = "test"

    def routers(self, services: Services) -> Sequence[Router]:
        @get("/fine")
        async def fine() -> str:
            return "fine"

        @head("/fine")
        async def fine_head() -> None:
            return None

        @get("/fail/{what:str}")
        async def fail(request: AnyRequest) -> None:
            raise {
                "busy": Busy("try later"),
                "missing": NotFound("no such model"),
                "large": TooLarge("too large"),
                "bug": ZeroDivisionError("secret"),
                "denied": PermissionDeniedException("not you"),
            }[request.path_params["what"]]

        @post("/echo")
        async def echo(request: AnyRequest) -> bytes:
            return await read_body(request, 10)

        return [Router("/", route_handlers=[fine, fine_head, fail, echo])]


class BrokenFrontend:
    name = "broken"

    def routers(self, services: Services) -> Sequence[Router]:
        raise OSError("no templates")


class StuckFrontend:
    name = "stuck"

    def routers(self, services: Services) -> Sequence[Router]:
        threading.Event().wait(60)
        raise AssertionError


class ExitingFrontend:
    name = "exiting"

    def routers(self, services: Services) -> Sequence[Router]:
        sys.exit(1)


class GreedyFrontend:
    """Wants a route that is taken, and one that is not."""

    name = "greedy"

    def routers(self, services: Services) -> Sequence[Router]:
        @get("/fine")
        async def fine() -> str:
            return "greedy"

        return [Router("/greedy", route_handlers=[fine]), Router("/", route_handlers=[fine])]


class LateFrontend:
    name = "late"

    def routers(self, services: Services) -> Sequence[Router]:
        @get("/late")
        async def late() -> str:
            return "late"

        return [Router("/", route_handlers=[late])]


class WrongFrontend:
    name = "wrong"

    def routers(self, services: Services) -> Any:
        return ["this is no router"]


class FakeScheduler:
    ended = False

    async def shutdown(self) -> None:
        self.ended = True


class Server:
    def __init__(self, *frontends: Any) -> None:
        self.scheduler = FakeScheduler()
        plugins = PluginHost()
        plugins.frontends = {frontend.name: frontend for frontend in frontends}
        self.events: list[str] = []
        plugins.emit = lambda event, **_: self.events.append(event)  # type: ignore[method-assign]
        unused: Any = None
        self.app = build_app(
            Services(
                settings=Settings(),
                plugins=plugins,
                catalog=unused,
                scheduler=cast(Any, self.scheduler),
                transfers=Transfers(Settings(), {}, unused),
            )
        )

    def ask(self, method: str, path: str, body: bytes = b"") -> tuple[int, dict[str, str], bytes]:
        return asyncio.run(self._ask(method, path, body))

    async def _ask(self, method: str, path: str, body: bytes) -> tuple[int, dict[str, str], bytes]:
        messages: list[Any] = []

        async def send(message: Any) -> None:
            messages.append(message)

        async def receive() -> Any:
            return {"type": "http.request", "body": body, "more_body": False}

        scope: Any = {
            "type": "http",
            "http_version": "1.1",
            "scheme": "http",
            "method": method,
            "path": path,
            "raw_path": path.encode(),
            "root_path": "",
            "query_string": b"",
            "asgi": {"version": "3.0"},
            "headers": [(b"host", b"localhost")],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 2),
        }
        await self.app(scope, receive, send)
        headers = {name.decode(): value.decode() for name, value in messages[0]["headers"]}
        return messages[0]["status"], headers, b"".join(part.get("body", b"") for part in messages[1:])


@pytest.fixture
def server() -> Server:
    return Server(Frontend())


def test_a_frontends_route(server: Server) -> None:
    assert server.ask("GET", "/fine")[::2] == (200, b"fine")


@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS-"])
def test_an_unknown_path(server: Server, method: str) -> None:
    status, headers, body = server.ask(method, "/nowhere")
    assert (status, body) == (404, b"404 page not found")
    assert headers["content-type"].startswith("text/plain")


@pytest.mark.parametrize("method", ["DELETE", "OPTIONS-"])
def test_a_known_path_with_another_method(server: Server, method: str) -> None:
    status, headers, body = server.ask(method, "/fine")
    assert (status, body) == (405, b"405 method not allowed")
    assert headers["allow"] == "HEAD, GET"


@pytest.mark.parametrize(
    ("what", "status", "message"),
    [
        ("busy", 503, "try later"),
        ("missing", 404, "no such model"),
        ("large", 413, "too large"),
        ("denied", 403, "not you"),
        ("bug", 500, "internal error; the server's log says more"),
    ],
)
def test_errors_are_json_with_their_status(server: Server, what: str, status: int, message: str) -> None:
    found, headers, body = server.ask("GET", f"/fail/{what}")
    assert found == status
    assert headers["content-type"] == "application/json; charset=utf-8"
    assert json.loads(body) == {"error": message}
    assert ("retry-after" in headers) == (status == 503)


def test_a_bug_goes_to_the_log_and_not_to_the_client(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR):
        _, _, body = server.ask("GET", "/fail/bug")
    assert b"secret" not in body
    assert "GET /fail/bug failed" in caplog.text and "ZeroDivisionError: secret" in caplog.text


def test_bodies_are_limited(server: Server) -> None:
    assert server.ask("POST", "/echo", b"0123456789")[2] == b"0123456789"
    status, _, body = server.ask("POST", "/echo", b"0123456789x")
    assert status == 413 and b"max_body" in body


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (BrokenFrontend(), "OSError: no templates"),
        (StuckFrontend(), "frontend stuck did not return within 0.2 seconds"),
        (ExitingFrontend(), "RuntimeError: SystemExit: 1"),
        (WrongFrontend(), "Unsupported value"),
        (GreedyFrontend(), "already registered for path '/fine'"),
    ],
)
def test_a_frontend_that_cannot_be_mounted_is_left_out_and_the_others_are_there(
    bad: Any, why: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deadline, "SECONDS", 0.2)
    with caplog.at_level(logging.ERROR):
        server = Server(Frontend(), bad, LateFrontend())
    assert f"frontend {bad.name} is left out" in caplog.text and why in caplog.text
    assert server.ask("GET", "/fine")[::2] == (200, b"fine")
    assert server.ask("GET", "/late")[::2] == (200, b"late")
    assert server.ask("GET", "/greedy/fine")[0] == 404


def test_a_life_from_start_to_end(server: Server) -> None:
    async def story() -> None:
        async with server.app.lifespan():
            assert server.events == ["corectl_server_started"]
            assert not server.scheduler.ended
        assert server.events == ["corectl_server_started", "corectl_server_stopping"]
        assert server.scheduler.ended

    asyncio.run(story())


def test_error_kinds_keep_their_own_status_apart() -> None:
    """The reply to a framework error must not change the class that all errors share."""
    Server(Frontend()).ask("GET", "/fail/denied")
    assert CorectlError.status == 500
