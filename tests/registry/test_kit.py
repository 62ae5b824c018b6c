"""The kit does what it says; otherwise the tests that use it prove nothing."""

from __future__ import annotations

import base64
import hashlib
import secrets
import ssl
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.registry import faults, stock
from tests.registry.certificates import Authority
from tests.registry.docker import DockerRegistry
from tests.registry.host import Host, forward, nothing, plain
from tests.registry.tokens import TokenGate
from tests.registry.uploads import RedirectedUploads

WEIGHTS = bytes(range(256)) * 4096
SMALL = b"{{ .Prompt }}"


@pytest.fixture(scope="module")
def model(registry: DockerRegistry) -> stock.Model:
    made = stock.model(("model", WEIGHTS), ("template", SMALL))
    stock.put(registry, "kit/good", made)
    return made


@pytest.fixture
def front(registry: DockerRegistry) -> Iterator[Host]:
    with Host(forward(registry.url)) as host:
        yield host


@pytest.fixture
def client(front: Host) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=front.url, trust_env=False, timeout=20) as made:
        yield made


def _blob(model: stock.Model) -> str:
    return f"/v2/kit/good/blobs/{model.layers[0]}"


def test_what_was_put_there_comes_through(client: httpx.Client, model: stock.Model, front: Host) -> None:
    accept = {"accept": stock.MANIFEST}
    assert client.get("/v2/kit/good/manifests/latest", headers=accept).content == model.manifest
    for digest, data in model.blobs.items():
        assert client.get(f"/v2/kit/good/blobs/{digest}").content == data
    head = client.head(_blob(model))
    assert (head.status_code, head.headers["content-length"]) == (200, str(len(WEIGHTS)))
    part = client.get(_blob(model), headers={"range": "bytes=5-9"})
    assert (part.status_code, part.content) == (206, WEIGHTS[5:10])
    assert front.count("GET", "/blobs/") == 4 and front.received("range") == ["bytes=5-9"]


def test_uploads_in_parts(client: httpx.Client, registry: DockerRegistry) -> None:
    digest = stock.digest_of(WEIGHTS)
    where = client.post("/v2/kit/sent/blobs/uploads/").headers["location"]
    half = len(WEIGHTS) // 2
    for start in (0, half):
        body = iter([WEIGHTS[start : start + half]]) if start else WEIGHTS[:half]
        headers = {"content-range": f"{start}-{start + half - 1}", "content-length": str(half)}
        reply = client.patch(where, content=body, headers=headers)
        assert reply.status_code == 202, reply.text
        where = reply.headers["location"]
    done = client.put(client.base_url.join(where).copy_merge_params({"digest": digest}))
    assert done.status_code == 201
    assert registry.blob_file(digest).read_bytes() == WEIGHTS


def test_faults(client: httpx.Client, model: stock.Model, front: Host) -> None:
    path = _blob(model)
    front.layers[:] = [faults.blobs(faults.times(1, faults.cutting(1000)))]
    with pytest.raises(httpx.RemoteProtocolError):
        client.get(path)
    assert client.get(path).content == WEIGHTS
    front.layers[:] = [faults.blobs(faults.flipping(at=7))]
    got = client.get(path, headers={"range": "bytes=4-9"}).content
    assert [a ^ b for a, b in zip(got, WEIGHTS[4:10], strict=True)] == [0, 0, 0, 1, 0, 0]
    assert client.get(path, headers={"range": "bytes=8-9"}).content == WEIGHTS[8:10]
    front.layers[:] = [faults.without_ranges]
    reply = client.get(path, headers={"range": "bytes=4-9"})
    assert (reply.status_code, reply.content) == (200, WEIGHTS)
    front.layers[:] = [faults.blobs(faults.failing(503, b"later", retry_after="1"))]
    assert client.get(path).status_code == 503
    front.layers[:] = [faults.gzip_bomb(10**6)]
    assert len(client.get("/anything").content) == 10**6


def test_a_stall_sends_a_part_and_ends_with_the_host(client: httpx.Client, model: stock.Model) -> None:
    with (
        Host(forward(str(client.base_url)), faults.blobs(faults.stalling(1000))) as host,
        httpx.stream("GET", host.url + _blob(model), trust_env=False, timeout=0.3) as reply,
    ):
        parts = reply.iter_raw()
        assert len(next(parts)) == 1000
        with pytest.raises(httpx.ReadTimeout):
            next(parts)


def test_a_redirect_shows_what_arrives_there(front: Host, client: httpx.Client, model: stock.Model) -> None:
    with Host(front.handler, name="localhost") as other:
        front.layers[:] = [faults.blobs(faults.redirecting(other))]
        reply = client.get(_blob(model), headers={"authorization": "Bearer x"})
        assert reply.status_code == 307 and reply.headers["location"] == other.url + _blob(model)
        assert httpx.get(reply.headers["location"], trust_env=False).content == WEIGHTS
        assert other.count("GET") == 1 and other.received("authorization") == []
        assert front.received("authorization") == ["Bearer x"]


def _authorization(key: Ed25519PrivateKey, url: str) -> str:
    raw = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).split()[1].decode()
    empty = base64.b64encode(hashlib.sha256(b"").hexdigest().encode()).decode()
    return f"{raw}:{base64.b64encode(key.sign(f'GET,{url},{empty}'.encode())).decode()}"


def _token_url(front: Host, **changes: str) -> str:
    query = {
        "nonce": base64.urlsafe_b64encode(secrets.token_bytes(16)).decode().rstrip("="),
        "scope": "repository:kit/good:pull",
        "service": "registry",
        "ts": str(int(time.time())),
        **changes,
    }
    return f"{front.url}/token?{urlencode(sorted(query.items()))}"


def test_the_gate_wants_a_signature(front: Host, client: httpx.Client, model: stock.Model) -> None:
    gate = TokenGate()
    front.layers[:] = [gate]
    refused = client.get(_blob(model))
    assert refused.status_code == 401
    assert 'scope="repository:kit/good:pull"' in refused.headers["www-authenticate"]
    key, url = Ed25519PrivateKey.generate(), _token_url(front)
    token = client.get(url, headers={"authorization": _authorization(key, url)}).json()["token"]
    bearer = {"authorization": f"Bearer {token}"}
    assert client.get(_blob(model), headers=bearer).content == WEIGHTS
    assert client.post("/v2/kit/good/blobs/uploads/", headers=bearer).status_code == 401
    assert client.get("/v2/kit/other/manifests/latest", headers=bearer).status_code == 401
    assert gate.refused == [] and gate.scopes == ["repository:kit/good:pull"]


def test_the_gate_refuses(front: Host, client: httpx.Client) -> None:
    gate = TokenGate(keys=set())
    front.layers[:] = [gate]
    key, good = Ed25519PrivateKey.generate(), _token_url(front)
    for url, signed in (
        (good, good),
        (good, good),
        (_token_url(front, ts="1"), ""),
        (_token_url(front, nonce="abc"), ""),
        (_token_url(front), good),
        (_token_url(front).replace("?nonce", "?zonce"), ""),
    ):
        assert (
            client.get(url, headers={"authorization": _authorization(key, signed or url)}).status_code == 401
        )
    assert client.get(_token_url(front), headers={"authorization": "x:y"}).status_code == 401
    assert [reason[:20] for reason in gate.refused] == [
        'unknown ollama key "',
        "the nonce must be 16",
        "the clock is wrong",
        "the nonce must be 16",
        "the signature is wro",
        "nonce, scope, servic",
        "the authorization is",
    ]


def test_a_listener_has_nothing_and_hears_all(registry: DockerRegistry) -> None:
    with Host(nothing, lambda asked, further: further(asked) if asked.query else plain(204)) as host:
        assert httpx.get(f"{host.url}/a?b=c", trust_env=False).status_code == 404
        assert httpx.get(f"{host.url}/a", trust_env=False).status_code == 204
        assert [asked.path for asked in host.asked] == ["/a?b=c", "/a"]


def test_certificates(registry: DockerRegistry, model: stock.Model, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    with Host(forward(registry.url), tls=authority.context()) as host:
        trusting = ssl.create_default_context(cafile=str(authority.file))
        with httpx.Client(verify=trusting, trust_env=False) as client:
            assert client.get(host.url + _blob(model)).content == WEIGHTS
            by_name = host.url.replace("127.0.0.1", "localhost")
            assert client.head(by_name + _blob(model)).status_code == 200
        with pytest.raises(httpx.ConnectError, match="certificate verify failed"):
            httpx.get(host.url, trust_env=False)


def test_parts_of_uploads_are_sent_to_another_host(client: httpx.Client, front: Host) -> None:
    uploads = RedirectedUploads()
    front.layers[:] = [uploads]
    data = b"some bytes in two parts"
    where = client.base_url.join(client.post("/v2/kit/sent/blobs/uploads/").headers["location"])
    for start, end in ((0, 10), (10, len(data))):
        headers = {"content-range": f"{start}-{end - 1}", "x-redirect-uploads": "1"}
        reply = client.patch(where, content=data[start:end], headers=headers)
        assert reply.status_code == 307
        sent = httpx.put(reply.headers["location"], content=data[start:end], trust_env=False)
        assert sent.status_code == 201
        where = httpx.URL(reply.headers["docker-upload-location"])
    digest = stock.digest_of(data)
    assert client.put(where.copy_merge_params({"digest": digest})).status_code == 201
    assert client.get(f"/v2/kit/sent/blobs/{digest}").content == data
    uploads.close()
