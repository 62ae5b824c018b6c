"""A small real HTTP server that answers what a test tells it to, and a way to run command lines."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from corectl.cli.root import run


@dataclass
class FakeServer:
    """Answers requests from `replies`, keyed `METHOD /path`; a list is sent as a stream of JSON lines.

    `seen` holds what was asked: key and decoded body.
    """

    address: str = ""
    replies: dict[str, tuple[int, Any]] = field(default_factory=dict)
    seen: list[tuple[str, Any]] = field(default_factory=list)
    effects: dict[str, Callable[[], None]] = field(default_factory=dict)

    def reply(self, key: str, value: Any, status: int = 200) -> None:
        """Says how one kind of request is answered."""
        self.replies[key] = (status, value)

    def on(self, key: str, effect: Callable[[], None]) -> None:
        """Says what happens when such a request comes, before it is answered."""
        self.effects[key] = effect

    def bodies(self, key: str) -> list[Any]:
        """The bodies that came with one kind of request."""
        return [body for seen, body in self.seen if seen == key]


def _handler(fake: FakeServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            is_json = self.headers.get("Content-Type", "").startswith("application/json")
            key = f"{self.command} {self.path}"
            fake.seen.append((key, json.loads(raw) if is_json else raw))
            fake.effects.get(key, lambda: None)()
            status, value = fake.replies.get(key, (404, {"error": f"no reply for {key}"}))
            lines = value if isinstance(value, list) else [value]
            text = b"" if value is None else b"".join(json.dumps(line).encode() + b"\n" for line in lines)
            self.send_response(status)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(text)

        do_GET = do_POST = do_HEAD = do_DELETE = _answer

        def log_message(self, *args: Any) -> None:
            """Keeps the test's output clean."""

    return Handler


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeServer]:
    """A running server that OLLAMA_HOST names."""
    fake = FakeServer()
    with ThreadingHTTPServer(("127.0.0.1", 0), _handler(fake)) as http:
        fake.address = f"127.0.0.1:{http.server_address[1]}"
        monkeypatch.setenv("OLLAMA_HOST", fake.address)
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield fake
        http.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def private_folders(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Keeps logs and history of the user who runs the tests out of them, and proxies too."""
    for name in ("HOME", "XDG_STATE_HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    monkeypatch.setenv("OLLAMA_MODELS", str(tmp_path / "home" / "models"))
    for name in ("OLLAMA_HOST", "OLLAMA_NOHISTORY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")


@dataclass
class Result:
    """What a command line did."""

    code: int
    out: str
    err: str


@pytest.fixture
def corectl(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Runs a command line in this process."""

    def call(*args: str, stdin: str | bytes = "") -> Result:
        import io

        data = stdin.encode() if isinstance(stdin, str) else stdin
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data), "utf-8"))
        code = run(args)
        out, err = capsys.readouterr()
        return Result(code, out, err)

    return call
