"""One connection to a server: a request, its reply in pieces as they come, and so on. In the server's event loop.

A client library wakes several coroutines for each piece, which takes more of the processor than everything else that is
done for a token; see docs/decisions/0018-remote-models.md.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

import httptools
import msgspec

from corectl.errors import RemoteError

MAX_HEAD = 2**16
"""Bytes of a reply's head."""

UNSEEN = 5.0
"""Seconds. A server that closes a connection so soon after a request has not seen it: it closed an idle one."""

CONTEXT = b"x-corectl-context"
"""The only header of a reply that is looked at, but for those that say where its body ends."""


class Head(msgspec.Struct, frozen=True):
    """What of a reply's head matters: its status, and what another corectl says of the context."""

    status: int
    context: str = ""


Take = Callable[[bytes], None]
OnHead = Callable[[Head], Take]
"""Called with the head of the reply; returns what is called with each piece of its body. Both must not wait."""


class Dropped(Exception):
    """The connection has ended right after the request, before anything of the reply came."""


class Exchange:
    """One request, and what has come of its reply. `ended` has whatever went wrong."""

    def __init__(self, on_head: OnHead) -> None:
        loop = asyncio.get_running_loop()
        self.on_head = on_head
        self.take: Take | None = None
        self.ended: asyncio.Future[None] = loop.create_future()
        # What went wrong is of no interest once whoever asked has left.
        self.ended.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
        self.heard = loop.time()

    def fail(self, error: Exception) -> None:
        if not self.ended.done():
            self.ended.set_exception(error)


class Connection(asyncio.Protocol):
    """`label` names the server in errors; `on_lost` is told when the connection is no more."""

    def __init__(self, label: str, on_lost: Callable[[Connection], None]) -> None:
        self.usable = False
        """Whether another request may be sent."""
        self._label = label
        self._on_lost = on_lost
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport
        self._exchange: Exchange | None = None
        self._parser: httptools.HttpResponseParser
        self._context = b""
        self._head_bytes = 0
        self._has_length = False

    def send(self, request: bytes, on_head: OnHead) -> Exchange:
        """Sends a request. One at a time; `close` unless its exchange has ended well."""
        self.usable = False
        self._exchange = exchange = Exchange(on_head)
        self._parser = httptools.HttpResponseParser(self)
        self._head_bytes = 0
        self._transport.write(request)
        return exchange

    def close(self) -> None:
        """Ends the connection at once, and by that the work on what was asked last."""
        self.usable = False
        self._transport.abort()

    # What the transport calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self.usable = True

    def data_received(self, data: bytes) -> None:
        exchange = self._exchange
        if exchange is None:
            # Nothing was asked.
            self.close()
            return
        exchange.heard = self._loop.time()
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as exc:
            self._fail(RemoteError(f"remote server {self._label} does not speak HTTP: {exc}"))
            return
        if exchange.take is None and self._exchange is not None:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD:
                self._fail(RemoteError(f"remote server {self._label} sent a head without an end"))

    def connection_lost(self, exc: Exception | None) -> None:
        self.usable = False
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            if exchange.take is not None and not self._has_length and exc is None:
                self._finish(exchange)
            elif (
                exchange.take is None
                and self._head_bytes == 0
                and self._loop.time() - exchange.heard < UNSEEN
            ):
                exchange.fail(Dropped())
            else:
                exchange.fail(RemoteError(f"the connection to remote server {self._label} broke off"))
        self._on_lost(self)

    # What the parser calls

    def on_message_begin(self) -> None:
        self._context, self._has_length = b"", False
        if self._exchange is None:
            self.close()

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        if name == CONTEXT:
            self._context = value
        elif name in (b"content-length", b"transfer-encoding"):
            self._has_length = True

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        exchange = self._exchange
        if exchange is not None and status >= 200:
            try:
                exchange.take = exchange.on_head(Head(status, self._context.decode("latin-1")))
            except Exception as exc:
                self._fail(exc)

    def on_body(self, body: bytes) -> None:
        exchange = self._exchange
        if exchange is not None and exchange.take is not None:
            # Parsers hide what is raised under them.
            try:
                exchange.take(body)
            except Exception as exc:
                self._fail(exc)

    def on_message_complete(self) -> None:
        exchange = self._exchange
        # A head of its own may come before the reply's.
        if exchange is not None and exchange.take is not None:
            self._exchange = None
            self.usable = self._has_length and self._parser.should_keep_alive()
            self._finish(exchange)

    def _finish(self, exchange: Exchange) -> None:
        if not exchange.ended.done():
            exchange.ended.set_result(None)

    def _fail(self, error: Exception) -> None:
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.fail(error)
        self.close()
