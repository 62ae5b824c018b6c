"""A registry that does as a test wants, and the store that pulls from it."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import aclosing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import msgspec

from corectl.config import Settings
from corectl.model.manifest import CONFIG_TYPE, Layer, Manifest, MediaType
from corectl.progress import Progress
from corectl.registry.remote import Location, Offer, Origin, RegistrySession
from corectl.store.catalog import Catalog
from corectl.store.encoding import layer_json
from corectl.transfer.client import ask
from corectl.transfer.rules import Rules
from corectl.transfer.service import Transfers

QUICK = Rules(
    parts=4,
    min_part=2**16,
    max_part=2**20,
    backoff=0.001,
    progress=2**14,
    stall=0.3,
    stalls=3,
    tick=0.002,
    look=0.002,
    piece=2**14,
    buffer=2**14,
    ramp=0.01,
    request=0.0,
    large=2**16,
)
"""Small parts, and no long pauses."""


FIRST = 1000
"""Bytes of a body that come first."""


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


class Asked(msgspec.Struct, frozen=True):
    """One request that has arrived."""

    method: str
    path: str
    headers: Mapping[str, str]

    @property
    def range(self) -> tuple[int, int] | None:
        found = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("range", ""))
        return (int(found[1]), int(found[2])) if found else None


class Reply(BaseHTTPRequestHandler):
    """One request and the way to answer it."""

    protocol_version = "HTTP/1.1"
    server: _Server

    def answer(self) -> None:
        origin = self.server.origin
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.asked = Asked(self.command, self.path, headers)
        with origin.lock:
            origin.log.append(self.asked)
        if not any(fault(self) for fault in origin.faults):
            self.blob()

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = answer

    def blob(self) -> None:
        """As a good server answers."""
        data = self.server.origin.content.get(self.path)
        if data is None:
            self.send(404, b'{"errors":[]}')
        elif (wanted := self.asked.range) is not None:
            first, last = wanted
            self.send(206, data[first : last + 1], {"content-range": f"bytes {first}-{last}/{len(data)}"})
        else:
            self.send(200, data)

    def send(self, status: int, body: bytes = b"", headers: Mapping[str, str] | None = None) -> None:
        self.head(status, {"content-length": str(len(body)), **(headers or {})})
        if self.command != "HEAD":
            self.wfile.write(body[:FIRST])
            if len(body) > FIRST:
                # As over a network: who reads has begun with the body when the rest of it comes.
                time.sleep(0.005)
                self.wfile.write(body[FIRST:])

    def head(self, status: int, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def part(self, first: int, last: int, size: int) -> None:
        """The head of a reply with some of so many bytes, the last included."""
        self.head(
            206, {"content-length": str(last - first + 1), "content-range": f"bytes {first}-{last}/{size}"}
        )

    def drop(self) -> None:
        """Ends the connection where it is."""
        self.wfile.flush()
        self.close_connection = True

    def log_message(self, *_: Any) -> None:
        """Tests look at `Origin.log`."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    origin: FakeOrigin

    def handle_error(self, *_: Any) -> None:
        """A client that leaves is what tests are about."""


Fault = Callable[[Reply], bool]
"""Answers a request, or returns False."""


class FakeOrigin:
    """An HTTP server on loopback: what it has by path, what it was asked, and what it does wrong."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.content: dict[str, bytes] = {}
        self.log: list[Asked] = []
        self.faults: list[Fault] = []
        self.lock = threading.Lock()
        self._server = _Server(("127.0.0.1", 0), Reply)
        self._server.origin = self
        self._scheme = "http"
        if tls is not None:
            self._scheme = "https"
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self._server.server_address[1]}"

    @property
    def address(self) -> tuple[str, int]:
        """As the other end of a connection is told."""
        return ("127.0.0.1", int(self._server.server_address[1]))

    @property
    def url(self) -> str:
        return f"{self._scheme}://{self.host}"

    def add(self, data: bytes, media_type: str = MediaType.MODEL) -> Layer:
        """A blob, and the layer that names it."""
        digest = digest_of(data)
        self.content[f"/blobs/{digest}"] = data
        return Layer(media_type=media_type, digest=digest, size=len(data))

    def publish(self, *layers: Layer, name: str = "m") -> bytes:
        """A model of these layers; returns its manifest."""
        config = self.add(json.dumps({"model_format": "gguf", "name": name}).encode(), CONFIG_TYPE)
        data = layer_json(Manifest(config=config, layers=layers))
        self.content[f"/manifests/{name}"] = data
        return data

    def blob_requests(self, layer: Layer) -> list[Asked]:
        with self.lock:
            return [asked for asked in self.log if asked.path == f"/blobs/{layer.digest}"]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@contextmanager
def running_origin(tls: ssl.SSLContext | None = None) -> Iterator[FakeOrigin]:
    origin = FakeOrigin(tls)
    try:
        yield origin
    finally:
        origin.close()


class FakeRegistry:
    """Speaks a protocol of its own to one `FakeOrigin`: blobs under /blobs, manifests under /manifests."""

    def __init__(self, origin: FakeOrigin, *, name: str = "fake", hosts: tuple[str, ...] = ()) -> None:
        self.name = name
        self.hosts = hosts
        self.origin = origin
        self.here: dict[str, bytes | Path] = {}
        self.located: list[str] = []
        self.locating: list[Exception] = []
        """What goes wrong when a registry is asked again where a blob is, in this order."""
        self.headers = {"authorization": "Bearer secret"}

    def session(self, origin: Origin, http: httpx.AsyncClient) -> RegistrySession:
        return _Session(self, origin, http)


class _Session:
    def __init__(self, registry: FakeRegistry, origin: Origin, http: httpx.AsyncClient) -> None:
        self._registry = registry
        self._model = origin.name.model
        self._http = http

    async def offer(self) -> Offer:
        from corectl.errors import NotFound

        answer = await ask(self._http, "GET", f"{self._registry.origin.url}/manifests/{self._model}")
        if answer.status == 404:
            raise NotFound("file does not exist")
        return Offer(manifest=answer.body, here=self._registry.here)

    async def locate(self, layer: Layer) -> Location:
        again = layer.digest in self._registry.located
        self._registry.located.append(layer.digest)
        if again and self._registry.locating:
            raise self._registry.locating.pop(0)
        url = f"{self._registry.origin.url}/blobs/{layer.digest}"
        return Location(url=url, headers=self._registry.headers)


class Puller:
    """A store with its transfers. Each method runs an event loop of its own, as a server would."""

    def __init__(self, root: Path, *registries: FakeRegistry, rules: Rules = QUICK) -> None:
        self.catalog = Catalog(root)
        self.blobs = root / "blobs"
        self._registries = {registry.name: registry for registry in registries}
        self._rules = rules

    def transfers(self) -> Transfers:
        return Transfers(Settings(), self._registries, self.catalog, rules=self._rules)

    def pull(self, text: str = "m", **options: Any) -> list[Progress]:
        """All steps of one pull."""
        steps: list[Progress] = self.run(lambda transfers: steps_of(transfers.pull(text, **options)))
        return steps

    def run(self, work: Callable[[Transfers], Any]) -> Any:
        async def main() -> Any:
            transfers = self.transfers()
            try:
                return await work(transfers)
            finally:
                await transfers.close()

        return asyncio.run(main())

    def path(self, layer: Layer) -> Path:
        return self.catalog.blobs.path_of(layer.digest)

    def leftovers(self) -> list[str]:
        """What of downloads lies about."""
        return sorted(path.name for path in self.blobs.iterdir() if "partial" in path.name)


async def steps_of(steps: Any) -> list[Progress]:
    async with aclosing(steps):
        return [step async for step in steps]


def failure_of(puller: Puller, text: str = "m", **options: Any) -> tuple[list[Progress], Exception]:
    """The steps of a pull that fails, and its error."""
    seen: list[Progress] = []

    async def work(transfers: Transfers) -> Exception:
        try:
            async with aclosing(transfers.pull(text, **options)) as steps:
                async for step in steps:
                    seen.append(step)  # noqa: PERF401 - what came before the error counts
        except Exception as exc:
            return exc
        raise AssertionError("the pull did not fail")

    return seen, puller.run(work)


def random_bytes(size: int, seed: int = 0) -> bytes:
    import random

    return random.Random(seed).randbytes(size)
