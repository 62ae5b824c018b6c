"""What one connection may do before it has a right to: how long it may take, and how many there may be."""

from __future__ import annotations

import asyncio
import logging
import resource
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

log = logging.getLogger(__name__)

HEAD_SECONDS = 30.0
"""How long a client may take for the head of a request, or may leave a new connection without one."""

MAX_CONNECTIONS = 8192

RESERVED_FILES = 256
"""Open files that are left for models, runners and the log."""

_FULL = b'{"error":"too many connections to this server, please try again"}'
_REFUSAL = (
    b"HTTP/1.1 503 Service Unavailable\r\n"
    b"content-type: application/json; charset=utf-8\r\n"
    b"content-length: %d\r\nretry-after: 1\r\nconnection: close\r\n\r\n%s" % (len(_FULL), _FULL)
)


class Connection(HttpToolsProtocol):
    """A client's connection: closed if it sends no request in time, refused with a 503 if there are too many."""

    head_seconds = HEAD_SECONDS
    most = MAX_CONNECTIONS

    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self.most:
            log.warning("a connection is refused: there are %d", self.most)
            transport.write(_REFUSAL)
            transport.close()
            return
        self._expect_head()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._expect_head()

    def on_headers_complete(self) -> None:
        self._head_is_here()
        super().on_headers_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        self._head_is_here()
        super().connection_lost(exc)

    def _expect_head(self) -> None:
        if self._deadline is None:
            self._deadline = self.loop.call_later(self.head_seconds, self._too_slow)

    def _head_is_here(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _too_slow(self) -> None:
        self._deadline = None
        if self.cycle is None or self.cycle.response_complete:
            self.transport.close()


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
