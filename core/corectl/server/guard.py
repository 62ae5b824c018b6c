"""Who may talk to the server: an ASGI middleware that checks Host and Origin, and answers CORS requests."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable, Sequence
from typing import Any

import psutil
from litestar.types import ASGIApp, Receive, Send

LOCAL_ORIGINS = (
    *(
        f"{scheme}://{host}{port}"
        for host in ("localhost", "127.0.0.1", "0.0.0.0")
        for scheme in ("http", "https")
        for port in ("", ":*")
    ),
    *("app://*", "file://*", "tauri://*", "vscode-webview://*", "vscode-file://*"),
)

ALLOWED_METHODS = "GET,POST,PUT,PATCH,DELETE,HEAD,OPTIONS"
ALLOWED_HEADERS = (
    "Authorization,Content-Type,User-Agent,Accept,X-Requested-With,Openai-Beta,X-Stainless-Arch,X-Stainless-Async,"
    "X-Stainless-Custom-Poll-Interval,X-Stainless-Helper,X-Stainless-Helper-Method,X-Stainless-Lang,X-Stainless-Os,"
    "X-Stainless-Package-Version,X-Stainless-Poll-Helper,X-Stainless-Retry-Count,X-Stainless-Runtime,"
    "X-Stainless-Runtime-Version,X-Stainless-Timeout,OpenAI-Organization,OpenAI-Project,X-Api-Key,Anthropic-Version,"
    "Anthropic-Beta,Anthropic-Dangerous-Direct-Browser-Access,Idempotency-Key,X-Corectl-Num-Ctx,X-Request-Id"
)
"""What clients of all protocols send: the libraries of OpenAI and Anthropic, and what we read besides."""

PREFLIGHT_AGE = "43200"


class Guard:
    """Answers 403 to foreign origins, and on a loopback address to foreign host names (DNS rebinding)."""

    def __init__(self, app: ASGIApp, *, origins: Sequence[str], loopback: bool) -> None:
        self._app = app
        self._origins = tuple(origins) + LOCAL_ORIGINS
        self._loopback = loopback

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        found = [(name, value.decode("latin-1")) for name, value in scope["headers"] if name in _READ]
        headers = dict(found)
        if len(headers) < len(found):
            # Which of two would count depends on who reads them.
            await _reply(send, 400, [])
            return
        host, origin = headers.get(b"host", ""), headers.get(b"origin", "")
        if self._loopback and not is_local_host(host):
            await _reply(send, 403, [])
            return
        foreign = bool(origin) and origin not in (f"http://{host}", f"https://{host}")
        if not foreign:
            await self._app(_routable(scope), receive, send)
            return
        if not any(matches(origin, pattern) for pattern in self._origins):
            await _reply(send, 403, [])
            return
        if scope["method"] == "OPTIONS":
            await _reply(send, 204, self._cors(origin) + _PREFLIGHT)
            return
        await self._app(scope, receive, self._adding(send, [*self._cors(origin), _EXPOSED]))

    def _cors(self, origin: str) -> list[tuple[bytes, bytes]]:
        if "*" in self._origins:
            return [(b"access-control-allow-origin", b"*")]
        return [(b"access-control-allow-origin", origin.encode("latin-1")), (b"vary", b"Origin")]

    def _adding(self, send: Send, extra: list[tuple[bytes, bytes]]) -> Send:
        async def send_with_cors(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *extra]
            await send(message)

        return send_with_cors


_EXPOSED = (
    b"access-control-expose-headers",
    b"Retry-After,X-Should-Retry,Request-Id,X-Request-Id,X-Corectl-Context",
)
"""What scripts in pages may read of a reply besides its content: the libraries do, to know whether to ask again."""

_READ = frozenset((b"host", b"origin"))
_PREFLIGHT = [
    (b"access-control-allow-methods", ALLOWED_METHODS.encode()),
    (b"access-control-allow-headers", ALLOWED_HEADERS.encode()),
    (b"access-control-max-age", PREFLIGHT_AGE.encode()),
]


def _routable(scope: Any) -> Any:
    """An OPTIONS request that is no CORS preflight goes to no route: Litestar would answer it for any path."""
    return {**scope, "method": "OPTIONS-"} if scope["method"] == "OPTIONS" else scope


def matches(origin: str, pattern: str) -> bool:
    """True if the origin is the pattern, which may hold one `*` for any text, or for any port at its end."""
    if pattern.endswith(":*") and "://" in pattern:
        head, _, port = origin.rpartition(":")
        return head == pattern[:-2] and port.isascii() and port.isdigit()
    head, wildcard, tail = pattern.partition("*")
    if not wildcard:
        return origin == pattern
    return origin.startswith(head) and origin.endswith(tail) and len(origin) >= len(head) + len(tail)


_USUAL = frozenset(("", "localhost", "127.0.0.1", "::1"))
"""Names of this machine that need no closer look; a request without a name came here as well."""


def is_local_host(header: str) -> bool:
    """True if a Host header (with or without a port) names this machine or its local network."""
    host = _without_port(header).lower()
    if host in _USUAL:
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host == socket.gethostname().lower() or host.endswith((".localhost", ".local", ".internal"))
    return (
        address.is_loopback
        or address.is_private
        or address.is_unspecified
        or str(address) in _own_addresses()
    )


def _without_port(header: str) -> str:
    if header.startswith("["):
        return header[1:].partition("]")[0]
    return header.rpartition(":")[0] if header.count(":") == 1 else header


def _own_addresses() -> Iterable[str]:
    return {
        address.address.partition("%")[0] for found in psutil.net_if_addrs().values() for address in found
    }


async def _reply(send: Send, status: int, headers: list[tuple[bytes, bytes]]) -> None:
    await send(
        {"type": "http.response.start", "status": status, "headers": [*headers, (b"content-length", b"0")]}
    )
    await send({"type": "http.response.body", "body": b"", "more_body": False})
