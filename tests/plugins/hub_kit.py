"""A hub on loopback that answers as Hugging Face does, and the host behind it where large files lie."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, Self
from urllib.parse import unquote

from tests.registry.host import Answer, Asked, Host, plain

COMMIT = "5" * 40
TOKEN = "hf_" + "t" * 34
PIECE = 64 * 2**10


@dataclass
class Repository:
    """Files by path. Those whose names end so, and those that are larger than 64 kB, lie on the other host."""

    files: Mapping[str, bytes]
    gated: bool = False
    private: bool = False
    facts: Mapping[str, Any] = field(default_factory=dict)
    siblings: list[dict[str, Any]] | None = None
    """What is listed, where that is not the truth."""

    def is_large(self, path: str) -> bool:
        return path.endswith((".gguf", ".safetensors")) or len(self.files[path]) > 2**16

    def info(self, name: str) -> dict[str, Any]:
        """As `/api/models/<name>/revision/main?blobs=true` tells it."""
        listed = [self.sibling(path) for path in self.files] if self.siblings is None else self.siblings
        gated = "manual" if self.gated else False
        known = {"_id": "0", "id": name, "private": self.private, "gated": gated, "sha": COMMIT}
        return {**known, "siblings": listed, **self.facts}

    def sibling(self, path: str) -> dict[str, Any]:
        data = self.files[path]
        git = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
        told: dict[str, Any] = {"rfilename": path, "blobId": git, "size": len(data)}
        if self.is_large(path):
            told["lfs"] = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 135}
        return told


class Hub:
    """Two running hosts: `host` is the hub, `cdn` has the large files. `repositories` may be changed at any time."""

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.cdn = Host(self._blob)
        self.host = Host(self._answer)
        self._stack = ExitStack()

    @property
    def url(self) -> str:
        return self.host.url

    def add(self, name: str, files: Mapping[str, bytes], **more: Any) -> Repository:
        self.repositories[name] = Repository(files, **more)
        return self.repositories[name]

    def __enter__(self) -> Self:
        self._stack.enter_context(self.cdn)
        self._stack.enter_context(self.host)
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    def _answer(self, asked: Asked) -> Answer:
        sent = asked.headers.get("authorization")
        if sent not in (None, f"Bearer {TOKEN}"):
            return plain(401, b"{}", x_error_message="Invalid credentials in Authorization header")
        path = unquote(asked.route)
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/revision/main", path):
            return self._info(found[1], sent is not None)
        if found := re.fullmatch(
            rf"/(?:api/resolve-cache/models/)?([^/]+/[^/]+)/(?:resolve/)?(?:main|{COMMIT})/(.+)", path
        ):
            return self._file(asked, found[1], found[2], sent is not None)
        return plain(404, b'{"error":"Sorry, we can\'t find the page you are looking for."}')

    def _info(self, name: str, known: bool) -> Answer:
        repository = self.repositories.get(name)
        if repository is None or (repository.private and not known):
            return _missing(known)
        return plain(200, json.dumps(repository.info(name)).encode(), content_type="application/json")

    def _file(self, asked: Asked, name: str, path: str, known: bool) -> Answer:
        repository = self.repositories.get(name)
        if repository is None or (repository.private and not known):
            return _missing(known)
        if repository.gated and not known:
            return plain(401, b"Access to model is restricted.", x_error_code="GatedRepo")
        if path not in repository.files:
            return plain(404, b"Entry not found", x_error_code="EntryNotFound")
        data, told = repository.files[path], repository.sibling(path)
        known_of = {"x_repo_commit": COMMIT, "etag": f'"{told["blobId"]}"'}
        if "lfs" in told:
            linked = {"x_linked_etag": f'"{told["lfs"]["sha256"]}"', "x_linked_size": str(len(data))}
            where = f"{self.cdn.url}/{told['lfs']['sha256']}?X-Amz-Signature=secret"
            return plain(302, b"Found. Redirecting to elsewhere", location=where, **known_of, **linked)
        if "resolve-cache" in asked.route:
            return plain(200, data, **known_of)
        where = f"/api/resolve-cache/models/{name}/{COMMIT}/{path}"
        return plain(307, b"Temporary Redirect. Redirecting to what is kept", location=where, **known_of)

    def _blob(self, asked: Asked) -> Answer:
        digest = asked.route.strip("/")
        every = (data for repository in self.repositories.values() for data in repository.files.values())
        data = next((data for data in every if hashlib.sha256(data).hexdigest() == digest), None)
        if data is None:
            return plain(404)
        span = re.fullmatch(r"bytes=(\d+)-(\d*)", asked.headers.get("range", ""))
        if span is None:
            return _whole(200, data, [])
        start, end = int(span[1]), min(int(span[2] or len(data) - 1), len(data) - 1)
        place = ("content-range", f"bytes {start}-{end}/{len(data)}")
        return _whole(206, data[start : end + 1], [place])


def _whole(status: int, data: bytes, headers: list[tuple[str, str]]) -> Answer:
    return Answer(
        status, [("content-length", str(len(data))), ("accept-ranges", "bytes"), *headers], _pieces(data)
    )


def _pieces(data: bytes) -> Iterator[bytes]:
    for start in range(0, len(data), PIECE):
        yield data[start : start + PIECE]


def _missing(known: bool) -> Answer:
    """To strangers the hub does not tell what is missing from what is private."""
    if known:
        return plain(404, b'{"error":"Repository not found"}', x_error_code="RepoNotFound")
    return plain(401, b'{"error":"Invalid username or password."}', x_error_code="RepoNotFound")
