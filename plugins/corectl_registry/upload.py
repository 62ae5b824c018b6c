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

PIECE = 2**18
"""Bytes that are read and sent at once: also a slow line takes them before the client's own timeout."""

PART_SECONDS = 900.0
"""For the reply to a part that has been sent: proxies may hand it on only then."""

FINISH_SECONDS = 3600.0
"""For the reply to the last request: a registry may put all parts together before."""

_RANGE = re.compile(r"(?:bytes=)?0-(\d{1,18})")


class _Failed(Exception):
    """A try has failed; another one may not."""


class _Lost(_Failed):
    """The registry does not know the upload any more, or has not what was sent before."""


class _Tries:
    """Counts what fails in a row."""

    def __init__(self, digest: str, rules: Rules) -> None:
        self._digest = digest
        self._rules = rules
        self._count = 0

    async def failed(self, error: Exception, gained: int) -> None:
        """Returns when it is time for another try, after one that brought so many bytes. Raises `RemoteError`."""
        self._count = 1 if gained >= self._rules.progress else self._count + 1
        if self._count >= self._rules.tries:
            raise RemoteError(f"max retries exceeded: {error}") from None
        log.info("the upload of %s failed: %s", self._digest, error)
        await asyncio.sleep(self._rules.backoff * 2 ** (self._count - 1))


class Upload:
    """`sent` is told how many bytes of the blob have been sent, and never fewer than before.

    A part that breaks goes on where the registry says that it is; only an upload that the registry has lost begins
    anew.
    """

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
        self._redirected = False

    async def run(self) -> None:
        """Returns when the registry has the blob. Raises `CorectlError`, `OSError`."""
        tries = self._tries()
        while True:
            before = self._reached
            try:
                return await self._once()
            except (_Failed, RemoteUnreachable) as exc:
                await tries.failed(exc, self._reached - before)

    async def _once(self) -> None:
        url = await self._begin()
        if not url:
            self._tell(self._layer.size)
            return
        self._sums = []
        for part in plan(self._layer.size, self._rules):
            url = await self._send(url, part)
        etag = f"{hashlib.md5(b''.join(self._sums), usedforsecurity=False).hexdigest()}-{len(self._sums)}"
        await self._finish(
            str(httpx.URL(url).copy_merge_params({"digest": self._layer.digest, "etag": etag}))
        )

    def _tries(self) -> _Tries:
        return _Tries(self._layer.digest, self._rules)

    async def _begin(self) -> str:
        """Where the first part goes; empty if the registry has the blob of another model already."""
        url = f"{self._repository}/blobs/uploads/"
        if source := _source(self._layer, self._name):
            url += f"?mount={self._layer.digest}&from={source}"
        answer = await self._http.ask("POST", url)
        _check(answer, 201, 202)
        return "" if answer.status == 201 and source else self._next(answer, url)

    async def _send(self, url: str, part: Part) -> str:
        """Sends a part, also if that breaks; returns where the next one goes. Raises `_Lost`."""
        tries, start, broken = self._tries(), part.offset, False
        while True:
            before = start
            try:
                if broken:
                    url, start = await self._asked(url, part, start)
                body = _Body(self._path, part, start, self._tell)
                following = await self._send_from(url, start, body) if start < part.end else url
                self._sums.append(await body.checksum())
                self._tell(part.end)
                return following
            except _Lost:
                raise
            except (_Failed, RemoteUnreachable) as exc:
                broken = True
                await tries.failed(exc, start - before)

    async def _asked(self, url: str, part: Part, start: int) -> tuple[str, int]:
        """Where a part goes on that broke, and from which byte on; as before if the registry does not tell.

        It cannot where it has sent the bytes elsewhere: such a part is sent again. Raises `_Lost`, `_Failed`.
        """
        if self._redirected:
            return url, start
        answer = await self._http.ask("GET", url)
        if answer.status not in (400, 403, 405, 501):
            _check(answer, 200, 202, 204)
        found = _RANGE.fullmatch(answer.headers.get("range", "").strip())
        if found is None:
            return url, start
        # Registries say 0-0 for nothing, too.
        reached = int(found[1]) + 1 if int(found[1]) else 0
        if not part.offset <= reached <= part.end:
            raise _Lost(f"the registry has {reached} bytes, where a part begins at {part.offset}")
        return (self._next(answer, url) if answer.headers.get("location") else url), reached

    async def _send_from(self, url: str, start: int, body: _Body) -> str:
        """Sends what is missing of a part, once."""
        headers = {
            "content-range": f"{start}-{body.end - 1}",
            "content-length": str(body.end - start),
            "content-type": "application/octet-stream",
            "x-redirect-uploads": "1",
        }
        answer = await self._http.ask("PATCH", url, headers=headers, content=body.read, seconds=PART_SECONDS)
        _check(answer, 200, 201, 202, 204, 307)
        next_url = self._next(answer, url)
        if answer.status == 307:
            self._redirected = True
            await self._send_elsewhere(answer, url, body)
        return next_url

    async def _send_elsewhere(self, answer: Answer, url: str, body: _Body) -> None:
        """To a store that the registry has named, which is told nothing of who we are."""
        target = _location(url, answer.headers.get("location", "")).url
        headers = {"content-length": str(body.end - body.start), "content-type": "application/octet-stream"}
        stored = await self._http.ask_elsewhere("PUT", target, headers, body.read, seconds=PART_SECONDS)
        try:
            _check(stored, 200, 201, 202, 204)
        except _Lost as exc:
            raise _Failed(str(exc)) from None

    async def _finish(self, url: str) -> None:
        """Makes one blob of the parts. A reply that got lost does not cost the upload. Raises `_Lost`."""
        tries, broken = self._tries(), False
        while True:
            try:
                if broken and await self._is_there():
                    return
                answer = await self._http.ask("PUT", url, seconds=FINISH_SECONDS)
                return _check(answer, 200, 201, 202, 204)
            except _Lost:
                raise
            except (_Failed, RemoteUnreachable) as exc:
                broken = True
                await tries.failed(exc, 0)

    async def _is_there(self) -> bool:
        answer = await self._http.ask("HEAD", f"{self._repository}/blobs/{self._layer.digest}")
        return answer.status in (200, 302, 307)

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
    """The bytes of one part from `start` on, from the file, as often as they are needed; and the part's checksum."""

    def __init__(self, path: Path, part: Part, start: int, tell: Callable[[int], None]) -> None:
        self.start = start
        self.end = part.end
        self._path = path
        self._offset = part.offset
        self._tell = tell
        self._digest = b""

    async def read(self) -> AsyncIterator[bytes]:
        """Reads and sums up the next piece while one is sent; what is there already is summed up as well."""
        checksum = hashlib.md5(usedforsecurity=False)
        descriptor = await asyncio.to_thread(os.open, self._path, os.O_RDONLY | os.O_CLOEXEC)
        position = self._offset

        def piece() -> bytes:
            limit = self.start if position < self.start else self.end
            data = os.pread(descriptor, min(PIECE, limit - position), position)
            checksum.update(data)
            return data

        try:
            while position < self.end:
                data = await asyncio.to_thread(piece)
                if not data:
                    raise OSError("a file of the model is shorter than its manifest says")
                if position >= self.start:
                    yield data
                position += len(data)
                self._tell(position)
            self._digest = checksum.digest()
        finally:
            os.close(descriptor)

    async def checksum(self) -> bytes:
        """Of the whole part, which is read for it if nothing of it had to be sent."""
        if not self._digest:
            async for _ in self.read():
                pass
        return self._digest


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
    if answer.status in (404, 416):
        raise _Lost(said)
    if answer.status in (408, 425, 429) or answer.status >= 500:
        raise _Failed(said)
    if answer.status in (401, 403):
        raise Forbidden(f"access denied: {said}")
    raise RemoteError(said)
