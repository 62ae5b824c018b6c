"""Who may talk to the server: origins and host names."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest
from litestar.types import Receive, Scope, Send

from corectl.server.guard import LOCAL_ORIGINS, Guard, is_local_host, matches


class App:
    """Answers 200, and keeps the methods that it was called with."""

    def __init__(self) -> None:
        self.methods: list[str] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.methods.append(str(dict(scope).get("method")))
        headers = [(b"x-app", b"1")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"ok", "more_body": False})


EXPOSED = {
    "access-control-expose-headers": "Retry-After,X-Should-Retry,Request-Id,X-Request-Id,X-Corectl-Context"
}


class Client:
    def __init__(self, *origins: str, loopback: bool = True) -> None:
        self.app = App()
        self._guard = Guard(self.app, origins=origins, loopback=loopback)

    def ask(
        self, method: str = "GET", *, kind: str = "http", **headers: str
    ) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body of the answer."""
        messages: list[Any] = []

        async def send(message: Any) -> None:
            messages.append(message)

        async def receive() -> Any:
            raise AssertionError("the guard reads no body")

        sent = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
        scope = {"type": kind, "method": method, "path": "/", "headers": sent}
        asyncio.run(self._guard(scope, receive, send))
        found = {name.decode(): value.decode("latin-1") for name, value in messages[0]["headers"]}
        return messages[0]["status"], found, b"".join(part["body"] for part in messages[1:])


def test_without_an_origin_nothing_is_added() -> None:
    assert Client().ask(host="localhost:11434") == (200, {"x-app": "1"}, b"ok")


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_the_servers_own_pages_are_no_strangers(scheme: str) -> None:
    client = Client(loopback=False)
    assert client.ask(host="example.com:1", origin=f"{scheme}://example.com:1") == (
        200,
        {"x-app": "1"},
        b"ok",
    )
    assert client.ask(host="example.com:1", origin=f"{scheme}://example.com:2")[0] == 403


@pytest.mark.parametrize(
    "origin",
    [
        *("http://localhost", "https://localhost:3000", "http://127.0.0.1:5", "https://0.0.0.0"),
        *("app://any", "file://", "file:///x", "tauri://localhost", "vscode-webview://1", "vscode-file://a"),
    ],
)
def test_local_origins_are_echoed(origin: str) -> None:
    status, headers, body = Client().ask(host="127.0.0.1:11434", origin=origin)
    assert (status, body) == (200, b"ok")
    assert headers == {"x-app": "1", "access-control-allow-origin": origin, "vary": "Origin"} | EXPOSED


@pytest.mark.parametrize(
    "origin",
    [
        *(
            "http://evil.com",
            "http://localhost.evil.com",
            "http://evil.com/localhost",
            "null",
            "https://127.0.0.2",
        ),
        *(
            "ftp://localhost",
            "chrome-extension://abc",
            "http://localhostx",
            "http://[::1]:80",
            "moz-extension://1",
        ),
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS"])
def test_strangers_get_an_empty_403_and_never_reach_a_handler(origin: str, method: str) -> None:
    client = Client()
    assert client.ask(method, host="localhost", origin=origin) == (403, {"content-length": "0"}, b"")
    assert client.app.methods == []


def test_origins_of_the_operator() -> None:
    client = Client("http://example.com", "http://*.corp.example", "chrome-extension://*")
    for origin in ("http://example.com", "http://a.b.corp.example", "chrome-extension://abc"):
        assert client.ask(host="localhost", origin=origin)[1]["access-control-allow-origin"] == origin
    for origin in ("http://example.com:80", "http://corp.example", "https://a.corp.example"):
        assert client.ask(host="localhost", origin=origin)[0] == 403


def test_everybody() -> None:
    status, headers, _ = Client("*").ask(host="localhost", origin="http://evil.com")
    assert status == 200
    assert headers == {"x-app": "1", "access-control-allow-origin": "*"} | EXPOSED


def test_preflight() -> None:
    client = Client()
    status, headers, body = client.ask("OPTIONS", host="localhost", origin="http://localhost:3000")
    assert (status, body) == (204, b"")
    assert headers["access-control-allow-origin"] == "http://localhost:3000"
    assert headers["access-control-allow-methods"] == "GET,POST,PUT,PATCH,DELETE,HEAD,OPTIONS"
    assert headers["access-control-max-age"] == "43200" and headers["vary"] == "Origin"
    allowed = headers["access-control-allow-headers"].lower().split(",")
    stainless = (
        "helper",
        "lang",
        "package-version",
        "os",
        "arch",
        "retry-count",
        "runtime",
        "runtime-version",
        "async",
    )
    others = ("helper-method", "poll-helper", "custom-poll-interval", "timeout")
    assert sorted(allowed) == sorted(
        ["authorization", "content-type", "user-agent", "accept", "x-requested-with", "openai-beta"]
        + [f"x-stainless-{name}" for name in (*stainless, *others)]
        + ["openai-organization", "openai-project", "x-api-key", "anthropic-version", "anthropic-beta"]
        + ["anthropic-dangerous-direct-browser-access", "idempotency-key"]
        + ["x-corectl-num-ctx", "x-request-id"]
    )
    assert client.app.methods == []


def test_options_that_are_no_preflight_reach_no_route() -> None:
    client = Client()
    client.ask("OPTIONS", host="localhost")
    assert client.app.methods == ["OPTIONS-"]


@pytest.mark.parametrize("origin", ["", "http://localhost"])
def test_foreign_host_names_are_refused_on_a_loopback_address_only(origin: str) -> None:
    headers = {"host": "evil.com", **({"origin": origin} if origin else {})}
    for method in ("GET", "OPTIONS"):
        assert Client().ask(method, **headers)[0] == 403
    assert Client(loopback=False).ask(**headers)[0] == 200


def test_rebinding_with_an_origin_of_the_same_name() -> None:
    assert Client().ask(host="evil.com:11434", origin="http://evil.com:11434")[0] == 403


def test_other_scopes_pass() -> None:
    assert Client().ask(kind="lifespan", host="evil.com")[0] == 200


@pytest.mark.parametrize(
    "header",
    [
        *("", ":80", "localhost", "LOCALHOST:80", "x.localhost", "printer.local", "a.internal:1"),
        *("127.0.0.1", "127.9.9.9:5", "10.1.2.3", "192.168.0.1:80", "172.16.0.1", "0.0.0.0"),
        *("[::1]", "[::1]:80", "::1", "[fd00::1]", "[::]:1"),
        socket.gethostname(),
    ],
)
def test_local_hosts(header: str) -> None:
    assert is_local_host(header)


@pytest.mark.parametrize(
    "header",
    [
        *("evil.com", "evil.com:80", "localhost.evil.com", "xlocalhost", "8.8.8.8", "[2001:4860:4860::8888]"),
        *("internal", "local", "evil.com:localhost", "127.0.0.1.evil.com", "1.1.1.1:80", "0x7f.1"),
    ],
)
def test_foreign_hosts(header: str) -> None:
    assert not is_local_host(header)


@pytest.mark.parametrize(
    ("origin", "pattern", "expected"),
    [
        ("http://a", "http://a", True),
        ("http://a", "http://ab", False),
        ("http://a:1", "http://a:*", True),
        ("http://a", "http://a:*", False),
        ("ab", "ab*ab", False),
        ("abab", "ab*ab", True),
        ("anything", "*", True),
        ("http://A", "http://a", False),
    ],
)
def test_one_wildcard(origin: str, pattern: str, expected: bool) -> None:
    assert matches(origin, pattern) is expected


def test_no_local_pattern_lets_a_stranger_in() -> None:
    assert not any(matches("http://evil.com", pattern) for pattern in LOCAL_ORIGINS)
