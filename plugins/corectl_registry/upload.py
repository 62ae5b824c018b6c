"""One blob on its way into a registry: in parts, each at the address that the one before has given."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import re
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import httpx

from corectl.errors import BadRequest, Forbidden, RemoteError, RemoteUnreachable
from corectl.model.manifest import Layer
from corectl.model.name import ModelName
from corectl.registry.remote import Location
from corectl.transfer.client import Answer
from corectl.transfer.following import next_location
from corectl.transfer.parts import Part, plan
from corectl.transfer.rules import Rules
from corectl_registry.auth import AuthorizedHttp

log = logging.getLogger("corectl.registry")

PIECE = 2**20
PART_SECONDS = 3600.0
"""For one part of up to 1000 MB."""

_RANGE = re.compile(r"(?:bytes=)?0-(\d{1,18})")


class _Failed(Exception):
    """A try has failed; another one may not."""


class Upload:
    """`sent` is told how many bytes of the blob have been sent, and never fewer than before."""

    def __init__(
        self,
        http: AuthorizedHttp,
        repository: str,
        name: ModelName,
        layer: Layer,
        path: Path,
        sent: Callable[[int], None],
        rules: Rules,
    ) -> None:
        self._http = http
        self._repository = repository
        self._name = name
        self._layer = layer
        self._path = path
        self._sent = sent
        self._rules = rules
        self._reached = 0
        self._sums: list[bytes] = []

    async def run(self) -> None:
        """Returns when the registry has the blob. Raises `CorectlError`, `OSError`."""
        tries = 0
        while True:
            before = self._reached
            try:
                return await self._once()
            except (_Failed, RemoteUnreachable) as exc:
                tries = 1 if self._reached > before else tries + 1
                if tries >= self._rules.tries:
                    raise RemoteError(f"max retries exceeded: {exc}") from None
                log.info("the upload of %s failed: %s", self._layer.digest, exc)
            await asyncio.sleep(self._rules.backoff * 2 ** (tries - 1))

    async def _once(self) -> None:
        url = await self._begin()
        if not url:
            self._tell(self._layer.size)
            return
        self._sums = []
        for part in plan(self._layer.size, self._rules):
            url = await self._send(url, part)
        etag = f"{hashlib.md5(b''.join(self._sums), usedforsecurity=False).hexdigest()}-{len(self._sums)}"
        done = str(httpx.URL(url).copy_merge_params({"digest": self._layer.digest, "etag": etag}))
        answer = await self._http.ask("PUT", done, seconds=PART_SECONDS)
        _check(answer, 200, 201, 202, 204)

    async def _begin(self) -> str:
        """Where the first part goes; empty if the registry has the blob of another model already."""
        url = f"{self._repository}/blobs/uploads/"
        if source := _source(self._layer, self._name):
            url += f"?mount={self._layer.digest}&from={source}"
        answer = await self._http.ask("POST", url)
        _check(answer, 201, 202)
        return "" if answer.status == 201 and source else self._next(answer, url)

    async def _send(self, url: str, part: Part) -> str:
        """Sends a part; returns where the next one goes."""
        headers = {
            "content-range": f"{part.offset}-{part.end - 1}",
            "content-length": str(part.size),
            "content-type": "application/octet-stream",
            "x-redirect-uploads": "1",
        }
        body = _Body(self._path, part, self._tell)
        answer = await self._http.ask("PATCH", url, headers=headers, content=body.read, seconds=PART_SECONDS)
        _check(answer, 200, 201, 202, 204, 307)
        next_url = self._next(answer, url)
        if answer.status == 307:
            await self._send_elsewhere(answer, url, body, part)
        self._sums.append(body.digest)
        self._tell(part.end)
        return next_url

    async def _send_elsewhere(self, answer: Answer, url: str, body: _Body, part: Part) -> None:
        """To a store that the registry has named, which is told nothing of who we are."""
        target = _location(url, answer.headers.get("location", "")).url
        headers = {"content-length": str(part.size), "content-type": "application/octet-stream"}
        stored = await self._http.ask_elsewhere("PUT", target, headers, body.read, seconds=PART_SECONDS)
        _check(stored, 200, 201, 202, 204)

    def _next(self, answer: Answer, url: str) -> str:
        target = answer.headers.get("docker-upload-location") or answer.headers.get("location", "")
        if not target:
            raise RemoteError("the registry does not say where the upload goes on")
        return _location(url, target).url

    def _tell(self, reached: int) -> None:
        if reached > self._reached:
            self._reached = reached
            self._sent(reached)


class _Body:
    """The bytes of one part, from the file, as often as they are needed; and their checksum."""

    def __init__(self, path: Path, part: Part, tell: Callable[[int], None]) -> None:
        self._path = path
        self._part = part
        self._tell = tell
        self.digest = b""

    async def read(self) -> AsyncIterator[bytes]:
        """Reads and sums up the next piece while one is sent."""
        checksum = hashlib.md5(usedforsecurity=False)
        descriptor = await asyncio.to_thread(os.open, self._path, os.O_RDONLY | os.O_CLOEXEC)
        position = self._part.offset

        def piece() -> bytes:
            data = os.pread(descriptor, min(PIECE, self._part.end - position), position)
            checksum.update(data)
            return data

        try:
            while position < self._part.end:
                data = await asyncio.to_thread(piece)
                if not data:
                    raise OSError("a file of the model is shorter than its manifest says")
                yield data
                position += len(data)
                self._tell(position)
            self.digest = checksum.digest()
        finally:
            os.close(descriptor)


def _location(url: str, target: str) -> Location:
    return next_location(Location(url=url), target, allow_http=url.startswith("http://"))


def _source(layer: Layer, name: ModelName) -> str:
    """The repository that the layer came from, if it may be on the same registry."""
    try:
        source = ModelName.parse(layer.from_) if layer.from_ else None
    except BadRequest:
        return ""
    if source is None or source.host.casefold() != name.host.casefold():
        return ""
    return f"{source.namespace}/{source.model}"


def _check(answer: Answer, *good: int) -> None:
    """Raises for a reply that is no success."""
    if answer.status in good:
        return
    said = f"{answer.status}: {answer.text}".rstrip(": ")
    if answer.status in (404, 408, 416, 425, 429) or answer.status >= 500:
        raise _Failed(said)
    if answer.status in (401, 403):
        raise Forbidden(f"access denied: {said}")
    raise RemoteError(said)
