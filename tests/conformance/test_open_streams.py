"""Many clients at once, none of which is in a hurry."""

from __future__ import annotations

import json
import selectors
import socket
import time

from tests.conftest import GREEDY, MODEL, Server

STREAMS = 500
TOKENS = 3


def test_five_hundred_slow_readers_all_get_their_end(server: Server) -> None:
    """All are connected before any reads; then each is read a few bytes at a time. Others are served meanwhile."""
    host, port = server.url.removeprefix("http://").split(":")
    body = json.dumps(
        {"model": MODEL, "prompt": "a", "raw": True, "options": {**GREEDY, "num_predict": TOKENS}}
    ).encode()
    head = f"POST /api/generate HTTP/1.1\r\nhost: {host}\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
    received = {socket.create_connection((host, int(port))): b"" for _ in range(STREAMS)}
    idle = [socket.create_connection((host, int(port))) for _ in range(100)]
    try:
        for client in received:
            client.sendall(head.encode() + body)
        assert server.client.get("/api/version").status_code == 200
        with selectors.DefaultSelector() as selector:
            for client in received:
                selector.register(client, selectors.EVENT_READ)
            deadline = time.monotonic() + 300
            while selector.get_map() and time.monotonic() < deadline:
                for key, _ in selector.select(1):
                    reader = key.fileobj
                    assert isinstance(reader, socket.socket)
                    part = reader.recv(50)
                    received[reader] += part
                    if not part:
                        selector.unregister(reader)
    finally:
        for client in [*received, *idle]:
            client.close()
    replies = list(received.values())
    assert sum(b'"done":true' in reply for reply in replies) == STREAMS
    assert all(reply.startswith(b"HTTP/1.1 200 ") and b'"error"' not in reply for reply in replies)
    assert {reply.count(b'"done":false') for reply in replies} == {TOKENS}
