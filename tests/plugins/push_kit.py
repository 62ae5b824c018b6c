"""Models to push, and a registry that takes them in parts."""

from __future__ import annotations

import threading
from contextlib import aclosing
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from corectl.model.manifest import Layer, MediaType, ModelConfig
from corectl.model.name import ModelName
from corectl.progress import Progress
from corectl_registry.registry import OciRegistry
from tests.core.transfer_kit import QUICK, FakeOrigin, Puller, Reply, random_bytes, steps_of

WEIGHTS = random_bytes(500_000)
"""Four parts."""


def store(folder: Path) -> Puller:
    return Puller(folder, OciRegistry(QUICK))  # type: ignore[arg-type]


def made(puller: Puller, name: str, *, source: str = "", data: bytes = WEIGHTS, **config: Any) -> Layer:
    """A model in the store; returns the layer of its weights."""
    stored = puller.catalog.blobs.put(data)
    layer = Layer(media_type=MediaType.MODEL, digest=stored.digest, size=stored.size, from_=source)
    values = ModelConfig(model_format="gguf", **config)
    puller.catalog.install(ModelName.parse(name), puller.catalog.manifest_bytes(values, [layer], []))
    return layer


def push(puller: Puller, name: str) -> list[Progress]:
    steps: list[Progress] = puller.run(lambda transfers: steps_of(transfers.push(name, insecure=True)))
    return steps


def push_failing(puller: Puller, name: str, **options: Any) -> tuple[list[Progress], Exception]:
    seen: list[Progress] = []

    async def work(transfers: Any) -> Exception:
        try:
            async with aclosing(transfers.push(name, **options)) as steps:
                async for step in steps:
                    seen.append(step)  # noqa: PERF401 - what came before the error counts
        except Exception as exc:
            return exc
        raise AssertionError("the push did not fail")

    return seen, puller.run(work)


class Uploads:
    """A registry that takes uploads; `elsewhere` is where it sends the bytes, if anywhere.

    It `drops` so many parts on the way, the first of them that begin at `drop_at` or later, and `keeps` what has come
    of them and says so, or has no such request; or it `forgets` the upload then.
    """

    def __init__(self, origin: FakeOrigin, elsewhere: str = "") -> None:
        self.origin = origin
        self.elsewhere = elsewhere
        self.parts: dict[int, bytes] = {}
        self.blobs: dict[str, bytes] = {}
        self.drops = 0
        self.drop_at = 0
        self.keeps = False
        self.forgets = False
        self.finishes_unheard = 0
        self.refuses = 0
        self.etag = ""
        self.manifest = b""
        self.lock = threading.Lock()
        origin.faults.append(self.answer)

    def answer(self, reply: Reply) -> bool:
        path = urlsplit(reply.path)
        if reply.command == "HEAD":
            reply.send(200 if path.path.rpartition("/")[2] in self.blobs else 404)
            return True
        if reply.command == "GET":
            self._say(reply)
            return True
        if reply.command == "POST":
            self.parts = {}
            reply.send(202, b"", {"location": "/v2/upload/0?state=a%3D"})
        elif reply.command == "PATCH":
            self._part(reply)
        elif path.path.startswith("/v2/upload/"):
            query = parse_qs(path.query)
            self.etag = query["etag"][0]
            assert query["state"] == ["a="]
            self.blobs[query["digest"][0]] = b"".join(self.parts[key] for key in sorted(self.parts))
            if self.finishes_unheard:
                self.finishes_unheard -= 1
                reply.drop()
            else:
                reply.send(201)
        else:
            self.manifest = read_body(reply)
            reply.send(201)
        return True

    def _part(self, reply: Reply) -> None:
        first = int(reply.asked.headers["content-range"].partition("-")[0])
        with self.lock:
            dropping = self.drops > 0 and first >= self.drop_at
            self.drops -= dropping
        if dropping:
            came = reply.rfile.read(1000)
            if self.keeps:
                self.parts[first] = came
            reply.drop()
            return
        body = read_body(reply)
        if self.refuses:
            reply.send(self.refuses, b"no")
            return
        following = f"/v2/upload/{first}?state=a%3D"
        if self.elsewhere:
            location = f"{self.elsewhere}/store/{first}"
            reply.send(307, b"", {"location": location, "docker-upload-location": following})
            return
        self.parts[first] = body
        reply.send(202, b"", {"location": following})

    def _say(self, reply: Reply) -> None:
        """How far an upload is, as OCI has it."""
        if self.forgets:
            reply.send(404)
        elif not self.keeps:
            reply.send(405)
        else:
            count = sum(map(len, self.parts.values()))
            where = {"location": "/v2/upload/9?state=a%3D", "range": f"0-{max(count - 1, 0)}"}
            reply.send(204, b"", where)


def read_body(reply: Reply) -> bytes:
    return reply.rfile.read(int(reply.asked.headers["content-length"]))
