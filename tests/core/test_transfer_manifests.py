"""Manifests that a registry has no right to send."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from corectl.errors import BadModelFile, RemoteError
from corectl.model.manifest import CONFIG_TYPE, MediaType
from corectl.transfer.offered import MAX_BLOB, MAX_LAYERS, checked_manifest
from tests.core.transfer_kit import FakeOrigin, Puller, Reply, digest_of, failure_of


def manifest_with(**layer: Any) -> bytes:
    digest = digest_of(b"")
    config = {"mediaType": CONFIG_TYPE, "digest": digest, "size": 0}
    good = {"mediaType": MediaType.MODEL, "digest": digest, "size": 0}
    return json.dumps({"config": config, "layers": [good | layer]}).encode()


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (manifest_with(size=-1), "negative size"),
        (manifest_with(size=2**63), "two sizes|bytes|damaged"),
        (manifest_with(size=MAX_BLOB + 1), "bytes"),
        (manifest_with(size=1), "two sizes"),
        (manifest_with(digest="sha256:../../../etc/passwd"), "invalid digest"),
        (manifest_with(digest=f"md5:{'0' * 32}"), "invalid digest"),
        (manifest_with(digest=7), "Expected `str`"),
        (b"[]", "Expected `object`"),
        (b"\xff", "damaged"),
        (b"[" * 100_000, "damaged"),
        (b"x" * (2**22 + 1), "larger than"),
    ],
)
def test_hostile_manifests(data: bytes, says: str) -> None:
    with pytest.raises(BadModelFile, match=says):
        checked_manifest(data)


def test_a_manifest_with_too_many_layers() -> None:
    layer = json.loads(manifest_with())["layers"][0]
    config = {"mediaType": CONFIG_TYPE, "digest": digest_of(b""), "size": 0}
    data = json.dumps({"config": config, "layers": [layer] * (MAX_LAYERS + 1)}).encode()
    started = time.monotonic()
    with pytest.raises(BadModelFile, match="layers"):
        checked_manifest(data)
    assert time.monotonic() - started < 5


def test_a_manifest_without_end(origin: FakeOrigin, puller: Puller) -> None:
    sent = 0

    def endless(reply: Reply) -> bool:
        nonlocal sent
        reply.head(200, {"transfer-encoding": "chunked"})
        while True:
            reply.wfile.write(b"10000\r\n" + b" " * 0x10000 + b"\r\n")
            sent += 0x10000

    origin.faults.append(endless)
    _, error = failure_of(puller)
    assert isinstance(error, RemoteError) and "sent more than" in error.message
    assert sent < 64 * 2**20


def test_a_compressed_manifest_is_not_unpacked(origin: FakeOrigin, puller: Puller) -> None:
    def bomb(reply: Reply) -> bool:
        reply.send(200, b"\x1f\x8b" + bytes(1000), {"content-encoding": "gzip"})
        return True

    origin.faults.append(bomb)
    _, error = failure_of(puller)
    assert isinstance(error, RemoteError) and "compressed body (gzip)" in error.message
    assert origin.log[0].headers["accept-encoding"] == "identity"
