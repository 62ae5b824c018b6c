"""A small HTTP/1.1 client for one server: connections that are used again, and errors that say what to check."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import ssl
from collections.abc import Mapping
from contextlib import suppress
from functools import partial

import msgspec

from corectl import __version__, trace
from corectl.errors import Busy, CorectlError, RemoteError, RemoteUnreachable
from corectl.remote.backend import RemoteServer
from corectl.remote.remotes import forwarded
from corectl_remote.address import Address, addresses
from corectl_remote.connection import Connection, Dropped, Exchange, Head, OnHead, Take
from corectl_remote.race import first

log = logging.getLogger("corectl.remote")

CONNECT_SECONDS = 3.0
"""How long a connection may take, with its name looked up and its certificate checked."""

SILENCE_SECONDS = 600.0
"""How long a server may send nothing while it has a request: prompts take minutes on slow machines."""

IDLE_SECONDS = 60.0
"""How long a connection is kept for the next request."""

MAX_IDLE = 32
MAX_BODY = 64 * 2**20
"""Bytes of a reply that is read as a whole."""

_KEEP_ALIVE = {"TCP_KEEPIDLE": 30, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 3}
"""A machine that is gone without a word is noticed after a minute, where the system has these options."""


class Answer(msgspec.Struct, frozen=True):
    """A reply that was read as a whole."""

    head: Head
    body: bytes


class HttpClient:
    """Sends requests to one server. Redirects are not followed, and no proxy is asked: a key is for its own address."""

    def __init__(self, server: RemoteServer) -> None:
        self._server = server
        self._address = Address.of(server.url)
        self._idle: list[tuple[Connection, asyncio.TimerHandle]] = []
        self._busy: set[Connection] = set()
        self._closed = False
        self._tls: ssl.SSLContext | None = None
        self._head = self._fixed_head()

    def _fixed_head(self) -> str:
        key = self._server.key
        lines = [
            f"host: {self._address.netloc}",
            f"user-agent: corectl/{__version__}",
            "accept: */*",
            *([f"authorization: Bearer {key.reveal()}"] if key else []),
        ]
        return "\r\n".join(lines)

    async def ask(
        self, method: str, path: str, body: bytes | None = None, *, seconds: float | None = None
    ) -> Answer:
        """One request, and its whole reply, whatever its status. `seconds` limit all of it."""
        found: list[Head] = []
        parts: list[bytes] = []

        def on_head(head: Head) -> Take:
            found.append(head)
            return whole_body(parts, self._server.label)

        try:
            async with asyncio.timeout(seconds):
                await self.send(method, path, body, on_head)
        except TimeoutError:
            raise RemoteUnreachable(
                f"remote server {self._server.label} did not answer within {seconds:g} seconds"
            ) from None
        return Answer(found[0], b"".join(parts))

    async def send(self, method: str, path: str, body: bytes | None, on_head: OnHead) -> None:
        """One request; returns when its reply has come to its end. Cancelling it closes the connection.

        Raises `RemoteUnreachable`, `RemoteError`, and whatever `on_head` and what it returns raise.
        """
        request = self._request(method, path, body)
        while True:
            connection, fresh = await self._connection()
            exchange = connection.send(request, on_head)
            try:
                await self._end_of(exchange)
                return
            except Dropped:
                # The server may have closed it in the moment in which it was used again.
                if fresh:
                    raise RemoteError(
                        f"remote server {self._server.label} closed the connection without an answer"
                    ) from None
            finally:
                self._give_back(connection)

    async def close(self) -> None:
        """Ends all connections, for good; who waits for a reply gets an error."""
        self._closed = True
        for connection, timer in self._idle:
            timer.cancel()
            connection.close()
        self._idle.clear()
        for connection in list(self._busy):
            connection.close()

    def _request(self, method: str, path: str, body: bytes | None) -> bytes:
        current = trace.current()
        # What nobody has asked for has no id, and can be in no circle.
        passed_on: Mapping[str, str] = forwarded(current) if current.id else {}
        lines = [
            f"{method} {self._address.prefix}{path} HTTP/1.1",
            self._head,
            *(f"{name}: {value}" for name, value in passed_on.items()),
        ]
        if body is not None:
            lines += ["content-type: application/json", f"content-length: {len(body)}"]
        return "\r\n".join(lines).encode("ascii") + b"\r\n\r\n" + (body or b"")

    async def _end_of(self, exchange: Exchange) -> None:
        loop = asyncio.get_running_loop()
        while not exchange.ended.done():
            await asyncio.wait({exchange.ended}, timeout=SILENCE_SECONDS)
            if not exchange.ended.done() and loop.time() - exchange.heard >= SILENCE_SECONDS:
                raise RemoteError(
                    f"remote server {self._server.label} has sent nothing for {SILENCE_SECONDS:g} seconds"
                )
        exchange.ended.result()

    # Connections

    async def _connection(self) -> tuple[Connection, bool]:
        """One that can be used, and whether it is a new one."""
        while self._idle:
            connection, timer = self._idle.pop()
            timer.cancel()
            if connection.usable:
                self._busy.add(connection)
                return connection, False
        # A request whose connection was closed here must not be sent again.
        self._check_open()
        connection = await self._connect()
        self._busy.add(connection)
        return connection, True

    def _check_open(self) -> None:
        if self._closed:
            raise RemoteError(f"the way to remote server {self._server.label} is closed")

    def _give_back(self, connection: Connection) -> None:
        self._busy.discard(connection)
        if connection.usable and len(self._idle) < MAX_IDLE:
            timer = asyncio.get_running_loop().call_later(IDLE_SECONDS, connection.close)
            self._idle.append((connection, timer))
        else:
            connection.close()

    def _lost(self, connection: Connection) -> None:
        for entry in self._idle:
            if entry[0] is connection:
                entry[1].cancel()
                self._idle.remove(entry)
                return

    async def _connect(self) -> Connection:
        if self._address.tls and self._tls is None:
            # It reads the certificates that this machine trusts.
            self._tls = await asyncio.to_thread(ssl.create_default_context)
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                numeric = await addresses(self._address.host, self._address.port)
                # One that leads nowhere, as IPv6 often does, must not take all of the time.
                transport, connection = await first(
                    [partial(self._connect_to, host) for host in numeric], lambda spare: spare[0].abort()
                )
        except (OSError, TimeoutError, UnicodeError) as exc:
            raise self._unreachable(exc) from exc
        _keep_alive(transport)
        if self._closed:
            transport.abort()
        self._check_open()
        return connection

    async def _connect_to(self, host: str) -> tuple[asyncio.Transport, Connection]:
        """A connection to one of the host's addresses."""
        return await asyncio.get_running_loop().create_connection(
            lambda: Connection(self._server.label, self._lost),
            host,
            self._address.port,
            ssl=self._tls,
            server_hostname=self._address.host if self._address.tls else None,
        )

    def _unreachable(self, exc: Exception) -> CorectlError:
        if isinstance(exc, OSError) and exc.errno in (errno.EMFILE, errno.ENFILE):
            return Busy("this server has too many open files and connections, please try again")
        return RemoteUnreachable(
            f"remote server {self._server.label} cannot be reached: {_why(exc)}; "
            "check that it runs, and that its address is right"
        )


def whole_body(parts: list[bytes], label: str) -> Take:
    """Collects a body in `parts`; raises `RemoteError` for one that is too long."""
    size = 0

    def take(part: bytes) -> None:
        nonlocal size
        size += len(part)
        if size > MAX_BODY:
            raise RemoteError(f"remote server {label} sent more than {MAX_BODY} bytes at once")
        parts.append(part)

    return take


def _why(exc: Exception) -> str:
    """What keeps a connection from being made, for people."""
    if isinstance(exc, TimeoutError):
        return f"no answer within {CONNECT_SECONDS:g} seconds"
    if isinstance(exc, socket.gaierror | UnicodeError):
        return "there is no host of that name"
    if isinstance(exc, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted ({exc.verify_message})"
    if isinstance(exc, ssl.SSLError):
        return f"it does not speak TLS as it should ({exc.reason or 'unknown reason'})"
    if isinstance(exc, ConnectionRefusedError):
        return "connection refused"
    return (getattr(exc, "strerror", None) or str(exc) or type(exc).__name__).lower()


def _keep_alive(transport: asyncio.BaseTransport) -> None:
    link = transport.get_extra_info("socket")
    with suppress(OSError):
        link.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _KEEP_ALIVE.items():
            if hasattr(socket, name):
                link.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
