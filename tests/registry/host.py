"""Web servers on loopback, made of layers: each may answer by itself, or change what the next one answers."""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

PIECE = 256 * 2**10
HOP_BY_HOP = {"connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"}


class Cut(Exception):
    """Raised by a layer, or by the body of an answer: the connection is closed there and then."""


@dataclass
class Asked:
    """A request. `path` has its query; `headers` are looked up without regard to case.

    What is in `at_end` is called when the answer has been written, or has failed.
    """

    method: str
    path: str
    headers: Message[str, str]
    body: Iterator[bytes] = field(repr=False)
    host: Host = field(repr=False)
    at_end: list[Callable[[], object]] = field(default_factory=list, repr=False)

    @property
    def route(self) -> str:
        """The path without its query."""
        return urlsplit(self.path).path

    @property
    def query(self) -> dict[str, list[str]]:
        return parse_qs(urlsplit(self.path).query)

    @property
    def is_blob(self) -> bool:
        """Whether it is about the bytes of a blob that is there, not about an upload."""
        return "/blobs/sha256:" in self.route


@dataclass
class Answer:
    """A reply. Without a `content-length` among its headers it goes out in chunks, however long it is."""

    status: int
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: Iterable[bytes] = ()

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)

    def without(self, *names: str) -> list[tuple[str, str]]:
        """The headers but these."""
        return [(key, value) for key, value in self.headers if key.lower() not in names]


Handler = Callable[[Asked], Answer]
Layer = Callable[[Asked, Handler], Answer]


def plain(status: int, body: bytes = b"", **headers: str) -> Answer:
    """A short reply; `_` in the names of headers stands for `-`."""
    named = [(name.replace("_", "-"), value) for name, value in headers.items()]
    return Answer(status, [("content-length", str(len(body))), *named], [body])


def nothing(asked: Asked) -> Answer:
    """A host that has nothing at all."""
    return plain(404)


def forward(url: str) -> Handler:
    """Asks another server, on a connection for each request, and hands on what it says while it says it."""
    parts = urlsplit(url)

    def handle(asked: Asked) -> Answer:
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port or 80, timeout=60)
        headers = {name: value for name, value in asked.headers.items() if name.lower() not in HOP_BY_HOP}
        chunked = "chunked" in asked.headers.get("transfer-encoding", "")
        has_body = chunked or "content-length" in asked.headers
        asked.at_end.append(connection.close)
        body = asked.body if has_body else None
        connection.request(asked.method, asked.path, body=body, headers=headers, encode_chunked=chunked)
        reply = connection.getresponse()
        asked.at_end.append(reply.close)
        kept = [(name, value) for name, value in reply.getheaders() if name.lower() not in HOP_BY_HOP]
        return Answer(reply.status, kept, _pieces(reply))

    return handle


def _pieces(reply: http.client.HTTPResponse) -> Iterator[bytes]:
    while piece := reply.read(PIECE):
        yield piece


class Host:
    """A running server. `layers` are asked first to last, then `handler`; both may be changed at any time.

    `asked` has all requests in their order. `name` is what the host calls itself in `netloc` and `url`; all listen on
    127.0.0.1. `closing` is set when it closes, for what waits in layers.
    """

    def __init__(
        self, handler: Handler, *layers: Layer, name: str = "127.0.0.1", tls: ssl.SSLContext | None = None
    ) -> None:
        self.handler = handler
        self.layers = list(layers)
        self.asked: list[Asked] = []
        self.bugs: list[BaseException] = []
        self.closing = threading.Event()
        self._server = _Server(self, tls)
        self.netloc = f"{name}:{self._server.server_address[1]}"
        self.url = f"{'https' if tls else 'http'}://{self.netloc}"
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True
        )
        self._thread.start()

    def answer(self, asked: Asked) -> Answer:
        self.asked.append(asked)
        return _through(list(self.layers), self.handler)(asked)

    def count(self, method: str, fragment: str = "") -> int:
        """How many requests of this kind have come."""
        return sum(asked.method == method and fragment in asked.path for asked in self.asked)

    def received(self, name: str) -> list[str]:
        """All values of a header that have ever come here."""
        return [value for asked in self.asked for value in asked.headers.get_all(name, [])]

    def close(self) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.hang_up()
        self._server.server_close()
        self._thread.join()
        if self.bugs:
            raise self.bugs[0]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _through(layers: list[Layer], handler: Handler) -> Handler:
    for layer in reversed(layers):
        handler = _bound(layer, handler)
    return handler


def _bound(layer: Layer, handler: Handler) -> Handler:
    return lambda asked: layer(asked, handler)


class _Server(ThreadingHTTPServer):
    daemon_threads = False

    def __init__(self, host: Host, tls: ssl.SSLContext | None) -> None:
        self.host = host
        self._tls = tls
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        super().__init__(("127.0.0.1", 0), _Handler)

    def finish_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            self._open.add(request)
        try:
            if self._tls is not None:
                # Here, on the connection's own thread: a client that never shakes hands holds up nobody else.
                request.settimeout(30)
                request = self._tls.wrap_socket(request, server_side=True)
                with self._lock:
                    self._open.add(request)
            super().finish_request(request, client_address)
            if self._tls is not None:
                request.close()
        except OSError:
            pass  # The client has gone, or does not trust us.
        except BaseException as exc:
            self.host.bugs.append(exc)
        finally:
            with self._lock:
                self._open.discard(request)

    def hang_up(self) -> None:
        with self._lock:
            for connection in self._open:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def _handle(self) -> None:
        body = _Incoming(self)
        asked = Asked(self.command, self.path, self.headers, iter(body), self.server.host)
        try:
            answer = self.server.host.answer(asked)
            self._write(answer)
        except (Cut, http.client.HTTPException, OSError):
            self.close_connection = True
        finally:
            for end in asked.at_end:
                end()
        if not body.done:
            self.close_connection = True

    def _write(self, answer: Answer) -> None:
        chunked = answer.header("content-length") is None and answer.status not in (204, 304)
        self.send_response_only(answer.status)
        for name, value in answer.headers:
            self.send_header(name, value)
        if chunked and self.command != "HEAD":
            self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        if self.command == "HEAD":
            return
        for piece in answer.body:
            if piece:
                self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
        if chunked:
            self.wfile.write(b"0\r\n\r\n")

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = _handle

    def log_message(self, format: str, *args: Any) -> None:
        """Keeps the output of the tests clean."""


class _Incoming:
    """The body of a request in pieces; `done` when all of it has been read."""

    def __init__(self, handler: _Handler) -> None:
        self._file = handler.rfile
        self._chunked = "chunked" in handler.headers.get("transfer-encoding", "")
        self._left = int(handler.headers.get("content-length") or 0)
        self.done = not self._chunked and not self._left

    def __iter__(self) -> Iterator[bytes]:
        while self._chunked and not self.done:
            size = int(self._file.readline().split(b";")[0], 16)
            piece = self._file.read(size)
            self._file.readline()
            self.done = not size
            if piece:
                yield piece
        while self._left:
            piece = self._file.read1(min(PIECE, self._left))
            if not piece:
                raise Cut
            self._left -= len(piece)
            self.done = not self._left
            yield piece
