"""A server that computes nothing: it gives the same short reply of the native API to every request.

Between it and the server of this project lies nothing but that server's own time. Run as `python -m bench.replay`.
"""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from typing import cast

import msgspec

MODEL = "tape"
_LINES = (
    {"model": MODEL, "created_at": "2026-01-01T00:00:00Z", "response": " a", "done": False},
    {
        "model": MODEL,
        "created_at": "2026-01-01T00:00:00Z",
        "response": "",
        "done": True,
        "done_reason": "length",
        "prompt_eval_count": 9,
        "eval_count": 1,
    },
)
_WHOLE = {
    "/api/version": {"version": "0.33.0"},
    "/api/tags": {"models": [{"name": f"{MODEL}:latest", "capabilities": ["completion"]}]},
}
_LENGTH = re.compile(rb"(?i)content-length: (\d+)")


class Replay(asyncio.Protocol):
    """One connection; requests come one after another."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._received = b""

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, separator, body = self._received.partition(b"\r\n\r\n")
        length = _LENGTH.search(head)
        if separator and len(body) >= (int(length[1]) if length else 0):
            self._received = b""
            self._answer(head.split(b" ", 2)[1].decode())

    def _answer(self, path: str) -> None:
        head = "HTTP/1.1 200 OK\r\ncontent-type: application/x-ndjson\r\n"
        if path in _WHOLE:
            body = msgspec.json.encode(_WHOLE[path])
            self._transport.write(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
            return
        lines = [msgspec.json.encode(line) + b"\n" for line in _LINES]
        chunks = b"".join(b"%x\r\n%s\r\n" % (len(line), line) for line in lines)
        self._transport.write(f"{head}transfer-encoding: chunked\r\n\r\n".encode() + chunks + b"0\r\n\r\n")


class ReplayProcess:
    """The server as a process."""

    def __init__(self) -> None:
        self._process = subprocess.Popen([sys.executable, "-m", "bench.replay"], stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        self.url = self._process.stdout.readline().decode().strip()

    def close(self) -> None:
        self._process.terminate()
        self._process.communicate()


async def _serve() -> None:
    server = await asyncio.get_running_loop().create_server(Replay, "127.0.0.1", 0)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    import uvloop

    uvloop.run(_serve())
