"""Registries that mean harm: what they send is refused in bounded time and memory, and the store is as it was."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import psutil
import pytest

from tests.conftest import DATA, Server
from tests.registry import faults, stock
from tests.registry.docker import DockerRegistry
from tests.registry.faults import blobs, failing, manifests, redirecting, serving
from tests.registry.host import Answer, Asked, Handler, Host, Layer, forward, plain
from tests.registry.served import insecure_name, names, pull, steps, store_files, transfer_server

WEIGHTS = (DATA / "tinybert.gguf").read_bytes()
SECONDS = 60
"""For what should take a moment; machines are busy."""

MEMORY = 128 * 2**20
"""Bytes by which the server may have grown, at most."""

GOOD = stock.model(("model", WEIGHTS), ("license", b"of the hostile tests"))
LAYER = stock.layer(WEIGHTS)
CONFIG = stock.layer(b"{}", stock.CONFIG)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    running = transfer_server(tmp_path_factory.mktemp("hostile"))
    yield running
    assert running.stop() == 0, running.log


@pytest.fixture(scope="module")
def front(server: Server, registry: DockerRegistry) -> Iterator[Host]:
    """A registry with a good model, which is here already: some of what it has is known. It lacks `hostile/sent`."""
    stock.put(registry, "hostile/good", GOOD)
    with Host(forward(registry.url)) as host:
        assert pull(server, host, "hostile/good")[-1] == {"status": "success"}
        copied = {"source": f"{host.netloc}/hostile/good", "destination": f"{host.netloc}/hostile/sent"}
        assert server.client.post("/api/copy", json=copied).status_code == 200
        yield host


@pytest.fixture(autouse=True)
def unharmed(server: Server, front: Host) -> Iterator[None]:
    """Whatever the test does: the store has what it had, the server is there, and it has not grown by much."""
    process = psutil.Process(server.process.pid)
    before, memory, begun = store_files(server), process.memory_info().rss, time.monotonic()
    yield
    assert time.monotonic() - begun < SECONDS
    assert server.client.get("/api/version", timeout=10).status_code == 200
    assert process.memory_info().rss - memory < MEMORY
    front.layers.clear()
    assert store_files(server) == before
    kept = {f"{front.netloc}/hostile/good:latest", f"{front.netloc}/hostile/sent:latest"}
    assert {name for name in names(server) if "hostile" in name} == kept
    partials = [path.stat().st_blocks * 512 for path in server.models.rglob("*-partial*")]
    assert sum(partials) < 16 * 2**20


def _refused(server: Server, front: Host, *layers: Layer, path: str = "hostile/bad") -> str:
    """The error that a pull ends with; a line that can be shown to people."""
    front.layers[:] = layers
    return _error(server, pull(server, front, path)[-1])


def _error(server: Server, last: dict[str, Any]) -> str:
    assert list(last) == ["error"], last
    error = str(last["error"])
    assert 0 < len(error) < 2000 and error.isprintable(), error
    assert str(server.models) not in error
    return error


def _manifest(**changes: Any) -> bytes:
    whole = {"schemaVersion": 2, "mediaType": stock.MANIFEST, "config": CONFIG, "layers": [LAYER]}
    return json.dumps({**whole, **changes}).encode()


def _layers(**changes: Any) -> bytes:
    """A manifest whose one layer is changed."""
    return _manifest(layers=[{**LAYER, **changes}])


def _says(manifest: bytes) -> Layer:
    return serving("/v2/hostile/bad/manifests/latest", manifest, stock.MANIFEST)


HEX = "a" * 64
MANIFESTS = {
    "empty": b"",
    "no json": b"{not json",
    "no object": b"[]",
    "null": b"null",
    "not utf-8": b'{"schemaVersion": 2, "x": "\xff\xfe"}',
    "deep": b"[" * 200_000,
    "deep object": b'{"a":' * 200_000,
    "a number of many digits": b'{"schemaVersion": ' + b"9" * 1_000_000 + b"}",
    "no layers": json.dumps({"schemaVersion": 2, "config": CONFIG}).encode(),
    "layers that are no list": _manifest(layers={"0": LAYER}),
    "no config": json.dumps({"schemaVersion": 2, "layers": [LAYER]}).encode(),
    "config null": _manifest(config=None),
    "version 1": json.dumps({"schemaVersion": 1, "name": "x", "fsLayers": [], "history": []}).encode(),
    "a list of manifests": json.dumps({"schemaVersion": 2, "manifests": [LAYER]}).encode(),
    "a negative size": _layers(size=-1),
    "a negative size of the config": _manifest(config={**CONFIG, "size": -(2**63)}),
    "a size of 2^63": _layers(size=2**63),
    "a size of 2^64": _layers(size=2**64),
    "an impossible size": _layers(size=2**62),
    "sizes that overflow": _manifest(
        layers=[{**LAYER, "digest": f"sha256:{n:064x}", "size": 2**62} for n in range(8)]
    ),
    "half a byte": _layers(size=0.5),
    "a size in text": _layers(size="12"),
    "a size that is true": _layers(size=True),
    "two sizes": _manifest(layers=[LAYER, {**LAYER, "size": 5}]),
    "a digest that leads out": _layers(digest="sha256:../../../../etc/passwd"),
    "a digest with dots": _layers(digest=f"sha256:{'../' * 21}a"),
    "an encoded digest": _layers(digest=f"sha256:%2e%2e%2f{'a' * 55}"),
    "an absolute digest": _layers(digest="/etc/passwd"),
    "a short digest": _layers(digest="sha256:abc"),
    "a long digest": _layers(digest=f"sha256:{HEX}a"),
    "a digest with a newline": _layers(digest=f"sha256:{HEX}\n"),
    "a digest with a zero": _layers(digest=f"sha256:{'a' * 63}\0"),
    "another algorithm": _layers(digest=f"md5:{'a' * 32}"),
    "a digest that is none": _layers(digest=5),
    "an empty digest": _layers(digest=""),
    "a digest of 10 kB": _layers(digest="sha256:" + "a" * 10_000),
    "a file name that leads out": _layers(name="../../evil"),
}


@pytest.mark.parametrize("manifest", MANIFESTS.values(), ids=MANIFESTS)
def test_manifests(server: Server, front: Host, manifest: bytes) -> None:
    error = _refused(server, front, _says(manifest))
    assert error.startswith("pull model manifest: ")
    assert not front.asked[-1].is_blob, "blobs are asked for only when the manifest is good"


def _many(count: int) -> Iterator[bytes]:
    """A manifest of so many layers, in pieces."""
    yield _manifest(layers=[]).replace(b"[]}", b"[")
    entry = json.dumps(LAYER).encode()
    for _ in range(count // 1000):
        yield (entry + b",") * 1000
    yield entry + b"]}"


def test_a_manifest_of_a_million_layers(server: Server, front: Host) -> None:
    def million(asked: Asked, further: Handler) -> Answer:
        return Answer(200, [("content-type", stock.MANIFEST)], _many(1_000_000))

    assert "bytes" in _refused(server, front, manifests(million))


def test_a_manifest_of_many_small_layers(server: Server, front: Host) -> None:
    """As many as fit into a manifest of a size that is read."""
    manifest = _manifest(layers=[LAYER] * 20_000)
    assert len(manifest) < 2**22
    assert "layers" in _refused(server, front, _says(manifest))


def test_an_endless_manifest(server: Server, front: Host) -> None:
    assert "bytes" in _refused(server, front, manifests(faults.endless))


def test_a_manifest_that_would_be_unpacked(server: Server, front: Host) -> None:
    """Nothing is, however little: it may have no end."""
    assert "compressed" in _refused(server, front, manifests(faults.gzip_bomb(10**7)))


def test_an_endless_error(server: Server, front: Host) -> None:
    def fails(asked: Asked, further: Handler) -> Answer:
        answer = faults.endless(asked, further)
        return Answer(500, answer.headers, answer.body)

    _refused(server, front, manifests(fails))


def test_an_error_that_would_disturb_a_terminal(server: Server, front: Host) -> None:
    text = b"\x1b[2J\x1b]0;owned\x07 no such model\r\nX: y\n\xe2\x80\xae" * 100
    assert "\x1b" not in _refused(server, front, manifests(failing(418, text)))


def _asks_to_pull(front: Host, body: bytes, config: bytes = b"{}") -> Layer:
    """A layer that offers a model whose weights are said to be `body`, and leaves it to others to send them."""
    manifest = _manifest(layers=[stock.layer(body)], config=stock.layer(config, stock.CONFIG))
    said = _says(manifest)
    sent = serving(f"/v2/hostile/bad/blobs/{stock.digest_of(config)}", config)
    return lambda asked, further: said(asked, lambda again: sent(again, further))


def _body(answer: Callable[[Asked], Answer], data: bytes) -> Layer:
    return blobs(lambda asked, further: answer(asked), stock.digest_of(data))


BLOB = b"the bytes that were promised" * 1000


def test_a_blob_that_lies(server: Server, front: Host) -> None:
    other = BLOB[:-1] + b"!"
    error = _refused(server, front, _asks_to_pull(front, BLOB), _body(lambda _: _ranged(_, other), BLOB))
    want, got = stock.digest_of(BLOB), stock.digest_of(other)
    assert error == f"digest mismatch, file must be downloaded again: want {want}, got {got}"
    assert not list(server.models.rglob(f"*{want[7:]}*")), "what is wrong is not kept"
    # And an honest registry is believed afterwards.
    front.layers[:] = [_asks_to_pull(front, BLOB), _body(lambda _: _ranged(_, BLOB), BLOB)]
    assert pull(server, front, "hostile/bad")[-1] == {"status": "success"}
    removed = server.client.request("DELETE", "/api/delete", json={"model": f"{front.netloc}/hostile/bad"})
    assert removed.status_code == 200


def _ranged(asked: Asked, data: bytes) -> Answer:
    """A blob as an honest server sends it: the range that was asked for."""
    wanted = asked.headers.get("range")
    if not wanted:
        return plain(200, data)
    first, _, last = wanted.removeprefix("bytes=").partition("-")
    start, end = int(first), int(last or len(data) - 1)
    return plain(206, data[start : end + 1], content_range=f"bytes {start}-{end}/{len(data)}")


def test_one_byte_of_large_weights(server: Server, front: Host, registry: DockerRegistry) -> None:
    weights = b"GGUF" + bytes(5 * 2**20)
    stock.put(registry, "hostile/flipped", stock.model(("model", weights)))
    flipped = blobs(faults.flipping(at=3 * 2**20), stock.digest_of(weights))
    assert "digest mismatch" in _refused(server, front, flipped, path="hostile/flipped")


def _endless(asked: Asked) -> Answer:
    return Answer(206, [("content-range", f"bytes 0-{len(BLOB) - 1}/{len(BLOB)}")], _zeros(asked))


def _zeros(asked: Asked) -> Iterator[bytes]:
    while not asked.host.closing.is_set():
        yield bytes(2**16)


BODIES: dict[str, Callable[[Asked], Answer]] = {
    "endless": lambda asked: Answer(200, [], _zeros(asked)),
    "endless in a range": _endless,
    "too long": lambda asked: plain(200, BLOB + b"more"),
    "of another size": lambda asked: plain(206, BLOB, content_range=f"bytes 0-{len(BLOB) - 1}/{2**40}"),
    "packed": lambda asked: Answer(
        200, [("content-encoding", "gzip"), ("content-length", str(len(BLOB)))], [BLOB]
    ),
    "not there": lambda asked: plain(404),
    "refused": lambda asked: plain(418, b"no"),
}


@pytest.mark.parametrize("answer", BODIES.values(), ids=BODIES)
def test_bodies(server: Server, front: Host, answer: Callable[[Asked], Answer]) -> None:
    _refused(server, front, _asks_to_pull(front, BLOB), _body(answer, BLOB))


@pytest.mark.parametrize(
    "location",
    [
        "file:///etc/passwd",
        "ftp://127.0.0.1/x",
        "http://",
        "//",
        "javascript:alert(1)",
        "http://[::1",
        "",
    ],
)
def test_redirects_to_what_is_no_web_address(server: Server, front: Host, location: str) -> None:
    def away(asked: Asked) -> Answer:
        return Answer(307, [("location", location), ("content-length", "0")])

    _refused(server, front, _asks_to_pull(front, BLOB), _body(away, BLOB))


def test_redirects_in_a_circle(server: Server, front: Host) -> None:
    before = len(front.asked)
    circle = blobs(redirecting(front), stock.digest_of(BLOB))
    _refused(server, front, _asks_to_pull(front, BLOB), circle)
    assert len(front.asked) - before < 100


def _wants_token(realm: str) -> Layer:
    challenge = f'Bearer realm="{realm}",service="s",scope="repository:hostile/bad:pull"'

    def layer(asked: Asked, further: Handler) -> Answer:
        if asked.route.startswith("/v2/"):
            return plain(401, www_authenticate=challenge)
        return further(asked)

    return layer


TOKENS: dict[str, Layer] = {
    "endless": faults.endless,
    "packed": faults.gzip_bomb(10**7),
    "no json": failing(200, b"<html>"),
    "no token": failing(200, b"{}"),
    "a number": failing(200, b'{"token": 5}'),
    "a header more": failing(200, b'{"token": "a\\r\\nx-evil: 1"}'),
    "beyond ascii": failing(200, '{"token": "\u00fc\u2028"}'.encode()),
    "a megabyte": failing(200, b'{"token": "' + b"a" * 2**20 + b'"}'),
    "never good": failing(200, b'{"token": "useless"}'),
    "an error": failing(500, b"later"),
    "deep": failing(200, b'{"token": ' + b"[" * 60_000),
}


@pytest.mark.parametrize("token", TOKENS.values(), ids=TOKENS)
def test_tokens(server: Server, front: Host, token: Layer) -> None:
    gate = _wants_token(f"{front.url}/token")
    _refused(server, front, gate, faults.only(lambda asked: asked.route == "/token", token))
    assert front.received("x-evil") == []


@pytest.mark.parametrize(
    "challenge",
    [
        "",
        "Bearer",
        "Bearer realm",
        'Bearer realm="',
        "Digest realm=x",
        "Bearer " + "a=b," * 2000,
        ",,,,",
        "\x01",
    ],
)
def test_challenges(server: Server, front: Host, challenge: str) -> None:
    begun = len(front.asked)
    _refused(server, front, manifests(failing(401, b"", www_authenticate=challenge)))
    assert all(asked.route.startswith("/v2/") for asked in front.asked[begun:])


def _begins(**headers: str) -> Layer:
    return faults.only(lambda asked: asked.method == "POST", failing(202, b"", **headers))


PUSHES: dict[str, Layer] = {
    "endless": faults.only(lambda asked: asked.method == "POST", faults.endless),
    "packed": faults.only(lambda asked: asked.method == "POST", faults.gzip_bomb(10**7)),
    "nowhere to go on": _begins(),
    "no address": _begins(location="http://[::1"),
    "a file": _begins(location="file:///etc/passwd"),
    "an endless end": faults.only(lambda asked: asked.method == "PUT", faults.endless),
    "a long refusal": faults.only(lambda asked: asked.is_blob, failing(418, b"no" * 10_000)),
}


@pytest.mark.parametrize("layer", PUSHES.values(), ids=PUSHES)
def test_pushes(server: Server, front: Host, layer: Layer) -> None:
    front.layers[:] = [layer]
    _error(server, steps(server, "/api/push", model=insecure_name(front, "hostile/sent"))[-1])
