"""A proxy for clients that are told of one by the environment: it passes everything on, and keeps what it sees."""

from __future__ import annotations

import contextlib
import re
import socket
import socketserver
import threading
from types import TracebackType
from typing import Self


class Tunnel:
    """Listens on loopback. `heads` are the heads of all requests that came, `CONNECT` ones too, as text."""

    def __init__(self) -> None:
        self.heads: list[str] = []
        self._server = _Server(self)
        self.netloc = f"127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, tunnel: Tunnel) -> None:
        self.tunnel = tunnel
        super().__init__(("127.0.0.1", 0), _Handler)


class _Handler(socketserver.BaseRequestHandler):
    """Reads a head, connects to where it says, and copies bytes both ways until one side ends."""

    server: _Server
    request: socket.socket

    def handle(self) -> None:
        data = b""
        with contextlib.suppress(OSError):
            while b"\r\n\r\n" not in data:
                piece = self.request.recv(65536)
                if not piece:
                    return
                data += piece
            head = data.partition(b"\r\n\r\n")[0].decode("latin-1")
            self.server.tunnel.heads.append(head)
            self._pass_on(head, data)

    def _pass_on(self, head: str, data: bytes) -> None:
        found = re.match(r"CONNECT (\S+):(\d+)|\S+ http://([^/:\s]+):(\d+)", head)
        assert found is not None, head
        is_tunnel = found[1] is not None
        with socket.create_connection((found[1] or found[3], int(found[2] or found[4]))) as target:
            if is_tunnel:
                self.request.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            else:
                target.sendall(data)
            back = threading.Thread(target=_copy, args=(target, self.request), daemon=True)
            back.start()
            _copy(self.request, target)
            back.join(30)


def _copy(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)
