"""What one connection may do before it has a right to: how long it may take, and how many there may be."""

from __future__ import annotations

import asyncio
import logging
import resource
import time
from collections.abc import Callable, Mapping, Sequence
from email.utils import formatdate
from typing import Any, cast

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

log = logging.getLogger(__name__)

HEAD_SECONDS = 30.0
"""How long a client may take for the head of a request, or may leave a new connection without one."""

MAX_HEAD = 64 * 1024
"""Bytes of a request's line and headers. As many may come at once between two pieces of its body, or after the last."""

UNREAD_SECONDS = 1800.0
"""How long a client may leave unread what was sent to it, before the kernel gives its connection up (Linux only)."""

QUIET_SECONDS = 60.0
"""Between two lines of the log about connections that were refused."""

MAX_CONNECTIONS = 8192

RESERVED_FILES = 256
"""Open files that are left for models, runners and the log."""

_UPGRADING = frozenset({b"upgrade", b"connection", b"http2-settings"})
"""Headers that ask for another protocol, or that are only there for it."""

_BODY = "corectl.body"
"""The ASGI extension that `body_of` reads."""


def _refusal(status: bytes, error: bytes, header: bytes = b"") -> bytes:
    body = b'{"error":"%s"}' % error
    return (
        b"HTTP/1.1 %s\r\ncontent-type: application/json; charset=utf-8\r\n"
        b"content-length: %d\r\n%sconnection: close\r\n\r\n%s" % (status, len(body), header, body)
    )


_FULL = _refusal(
    b"503 Service Unavailable",
    b"too many connections to this server, please try again",
    b"retry-after: 1\r\n",
)
_TOO_LARGE = _refusal(
    b"431 Request Header Fields Too Large",
    b"the address and the headers of the request are larger than %d KiB" % (MAX_HEAD // 1024),
)


class Connection(HttpToolsProtocol):
    """A client's connection.

    It is closed if it sends no request in time, or one whose head is too large. It is refused with a 503 if there are
    too many.
    """

    head_seconds = HEAD_SECONDS
    most = MAX_CONNECTIONS
    refused = 0
    """Connections that were refused since the log last said so."""
    quiet_until = 0.0
    dated = 0
    """The second whose date replies carry."""

    _deadline: asyncio.TimerHandle | None = None
    _pending = 0
    """Bytes since the parser last made anything of them: of a head, of a trailer, of a chunk's extension."""
    _too_large = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self.most:
            self._refuse(transport)
        else:
            self._expect_head()

    def data_received(self, data: bytes) -> None:
        self._pending += len(data)
        self._unset_keepalive_if_required()
        left = memoryview(data)
        while left:
            left = self._read(left)
        if self._pending > MAX_HEAD and not self.transport.is_closing():
            self._too_large = True
            self.send_400_response("")
            return
        # Empty lines are no request, but they have ended the wait for the next one.
        if self.timeout_keep_alive_task is None and self._idle:
            self._expect_head()

    @property
    def _upgrades(self) -> bool:
        """Whether the parser is at a request that asks for another protocol."""
        return self.parser.should_upgrade() and self.parser.get_method() != b"CONNECT"

    def _read(self, data: memoryview) -> memoryview:
        """Has the parser read; what is left is behind a head that asked for another protocol."""
        try:
            try:
                self.parser.feed_data(data)
            except httptools.HttpParserUpgrade as exc:
                if self._upgrades:
                    self._refuse_upgrade()
                    return data[exc.args[0] :]
        except httptools.HttpParserError:
            self.send_400_response("Invalid HTTP request received.")
        return data[:0]

    def _refuse_upgrade(self) -> None:
        """Has the head read again as if it asked for nothing.

        A client may ask and send its body at once, as Java's does, and the parser takes that for the other protocol's.
        """
        method, version, url = self.parser.get_method(), self.parser.get_http_version(), self.url
        lines = [b"%b %b HTTP/%b" % (method, url, version.encode())]
        lines += [b"%b: %b" % header for header in self.headers if header[0] not in _UPGRADING]
        # Of what may stand there, only that the connection is to end matters.
        if any(b"close" in value.lower() for name, value in self.headers if name == b"connection"):
            lines.append(b"connection: close")
        self.parser = httptools.HttpRequestParser(self)
        # As uvicorn has it.
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        self.parser.feed_data(b"\r\n".join([*lines, b"", b""]))

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._pending = 0
        self._expect_head()

    def on_headers_complete(self) -> None:
        self._head_is_here()
        self._pending = 0
        if len(self.url) + sum(4 + len(name) + len(value) for name, value in self.headers) > MAX_HEAD:
            self._too_large = True
            raise ValueError("head too large")  # the parser takes it for a request that is not valid
        if self._upgrades:
            return
        self._date()
        super().on_headers_complete()
        cycle, flow, transport = self.cycle, self.flow, self.transport

        def write(pieces: Sequence[bytes]) -> bool:
            if (
                not cycle.chunked_encoding
                or cycle.response_complete
                or cycle.disconnected
                or flow.write_paused
            ):
                return False
            # Each piece is a chunk, for clients that take a chunk for a line.
            transport.write(b"".join([b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces if piece]))
            return True

        cast(dict[str, Any], self.scope)["extensions"] = {_BODY: write}

    def on_message_complete(self) -> None:
        if not self._upgrades:
            super().on_message_complete()

    def on_body(self, body: bytes) -> None:
        self._pending = 0
        super().on_body(body)

    def send_400_response(self, msg: str) -> None:
        if not (self._idle or self._asking):
            # Instead of a reply, or in the middle of one, this is no answer to anybody.
            self.transport.close()
        elif self._too_large:
            self.transport.write(_TOO_LARGE)
            self.transport.close()
        else:
            self._date()
            super().send_400_response(msg)

    def connection_lost(self, exc: Exception | None) -> None:
        self._head_is_here()
        super().connection_lost(exc)

    def _expect_head(self) -> None:
        if self._deadline is None:
            self._deadline = self.loop.call_later(self.head_seconds, self._too_slow)

    def _date(self) -> None:
        """Has the reply to a request carry the time at which that came; written anew once a second at most."""
        kind, state, now = type(self), self.server_state, int(time.time())
        if now != kind.dated or not state.default_headers:
            kind.dated = now
            date = (b"date", formatdate(now, usegmt=True).encode())
            state.default_headers = [date, *self.config.encoded_headers]

    def _head_is_here(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _too_slow(self) -> None:
        self._deadline = None
        if self._idle:
            self.transport.close()
        else:
            # The head of a second request: it may take until the first is answered, and up to as long again.
            self._expect_head()

    @property
    def _idle(self) -> bool:
        """Whether no request is being answered."""
        return self.cycle is None or self.cycle.response_complete

    @property
    def _asking(self) -> bool:
        """Whether a request is still being sent, and nothing is being answered."""
        return self.cycle.more_body and not self.cycle.response_started and not self.pipeline

    def _refuse(self, transport: asyncio.Transport) -> None:
        kind, now = type(self), self.loop.time()
        kind.refused += 1
        if now >= kind.quiet_until:
            log.warning("%d connections were refused: there are %d already", kind.refused, self.most)
            kind.refused, kind.quiet_until = 0, now + QUIET_SECONDS
        transport.write(_FULL)
        transport.close()


def body_of(scope: Mapping[str, Any]) -> Callable[[Sequence[bytes]], bool]:
    """What writes pieces of a streamed reply's body at once, past all middleware; False if `send` has to do it.

    That is so before the reply's head and after its end, while the client does not keep up, and with other servers.
    """
    write: Callable[[Sequence[bytes]], bool] = (scope.get("extensions") or {}).get(_BODY, _refusing)
    return write


def _refusing(_: Sequence[bytes]) -> bool:
    return False


def connections(most: int = MAX_CONNECTIONS) -> type[Connection]:
    """The protocol of a server; lets this process have the files that so many connections need, as far as it may."""
    limit = _raise_file_limit(most + RESERVED_FILES)
    fitting = max(1, min(most, limit - RESERVED_FILES))
    attributes: dict[str, Any] = {"most": fitting}
    return type("Connection", (Connection,), attributes)


def _raise_file_limit(wanted: int) -> int:
    """The number of files that this process may have open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return wanted
    better = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (better, hard))
    return better
