"""Registries and networks that fail: a pull goes on where it was, and a push begins again."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.conftest import DATA, Server
from tests.registry import faults, stock
from tests.registry.docker import DockerRegistry
from tests.registry.faults import blobs, failing, in_turn, redirecting, times
from tests.registry.host import Answer, Asked, Cut, Handler, Host, forward
from tests.registry.served import insecure_name, pull, steps, transfer_server

SIZE = 6 * 2**20
SUCCESS = {"status": "success"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    running = transfer_server(tmp_path_factory.mktemp("faults"))
    yield running
    assert running.stop() == 0, running.log


@pytest.fixture
def front(registry: DockerRegistry) -> Iterator[Host]:
    with Host(forward(registry.url)) as host:
        yield host


@pytest.fixture
def large(registry: DockerRegistry, request: pytest.FixtureRequest) -> str:
    """The digest of large weights that nobody else has, under `faults/NAME OF THE TEST`."""
    seed = request.node.name.encode()
    weights = (DATA / "tinybert.gguf").read_bytes() + seed * (SIZE // len(seed))
    made = stock.model(("model", weights), ("template", b"{{ .Prompt }}"))
    stock.put(registry, _path(request), made)
    return made.layers[0]


@pytest.fixture
def path(request: pytest.FixtureRequest) -> str:
    return _path(request)


def _path(request: pytest.FixtureRequest) -> str:
    return f"faults/{request.node.name.replace('_', '-')[:70]}"


def _counts(found: list[dict[str, Any]], digest: str) -> list[int]:
    return [step["completed"] for step in found if step.get("digest") == digest and "completed" in step]


def _starts(host: Host, digest: str) -> list[int]:
    """Where the requests for a blob begin."""
    asked = [asked for asked in host.asked if asked.method == "GET" and digest in asked.route]
    return [
        int(one.headers.get("range", "bytes=0-").removeprefix("bytes=").partition("-")[0]) for one in asked
    ]


def test_connections_that_drop(server: Server, front: Host, large: str, path: str) -> None:
    front.layers[:] = [blobs(times(2, faults.cutting(2 * 2**20)), large)]
    found = pull(server, front, path)
    assert found[-1] == SUCCESS
    counts = _counts(found, large)
    assert counts == sorted(counts), "it went backwards"
    first, second, third = _starts(front, large)
    assert first == 0 < second < third, "it began anew"


def test_a_registry_that_does_not_answer_at_first(server: Server, front: Host, large: str, path: str) -> None:
    def hangs_up(asked: Asked, further: Handler) -> Answer:
        raise Cut

    front.layers[:] = [blobs(in_turn(hangs_up, failing(503, b"later")), large)]
    assert pull(server, front, path)[-1] == SUCCESS
    assert len(_starts(front, large)) == 3


def test_addresses_that_expire(
    server: Server, front: Host, registry: DockerRegistry, large: str, path: str
) -> None:
    """A signed address of a blob is good for some time only; then another one is asked for."""
    with Host(forward(registry.url), name="localhost") as store:
        store.layers[:] = [blobs(in_turn(faults.cutting(2**20), failing(403, b"expired")), large)]
        front.layers[:] = [blobs(redirecting(store), large)]
        assert pull(server, front, path)[-1] == SUCCESS
        first, second, third = _starts(store, large)
        assert first == 0 < second == third
        assert len(_starts(front, large)) == 3


def test_a_registry_without_ranges(server: Server, front: Host, large: str, path: str) -> None:
    """What came before the break is not fetched again where it need not be, and is right where it is."""
    front.layers[:] = [
        blobs(times(1, faults.cutting(2 * 2**20)), large),
        blobs(faults.without_ranges, large),
    ]
    found = pull(server, front, path)
    assert found[-1] == SUCCESS
    counts = _counts(found, large)
    assert counts == sorted(counts), "it went backwards"
    stored = server.models / "blobs" / large.replace(":", "-")
    assert stock.digest_of(stored.read_bytes()) == large


def test_another_registry_goes_on_with_it(
    server: Server, front: Host, registry: DockerRegistry, large: str, path: str
) -> None:
    """A blob is the same wherever it comes from."""
    front.layers[:] = [blobs(faults.slow(0.05, piece=2**17), large)]
    body = {"model": insecure_name(front, path), "insecure": True}
    with server.client.stream("POST", "/api/pull", json=body) as leaving:
        for line in leaving.iter_lines():
            if large in line and '"completed"' in line:
                break
    with Host(forward(registry.url), name="localhost") as mirror:
        assert pull(server, mirror, path)[-1] == SUCCESS
        assert all(start > 0 for start in _starts(mirror, large)), "it began anew"


def test_pushes_through_connections_that_drop(
    server: Server, front: Host, registry: DockerRegistry, large: str, path: str
) -> None:
    assert pull(server, front, path)[-1] == SUCCESS
    target = f"{path}-sent"
    copied = {"source": f"{front.netloc}/{path}", "destination": f"{front.netloc}/{target}"}
    assert server.client.post("/api/copy", json=copied).status_code == 200

    def drops(asked: Asked, further: Handler) -> Answer:
        next(asked.body)
        raise Cut

    front.layers[:] = [faults.only(lambda asked: asked.method == "PATCH", times(1, drops))]
    found = steps(server, "/api/push", model=insecure_name(front, target))
    assert found[-1] == SUCCESS, found
    counts = _counts(found, large)
    assert counts == sorted(counts), "it went backwards"
    url = f"{registry.url}/v2/{target}/blobs/{large}"
    assert stock.digest_of(httpx.get(url, trust_env=False).content) == large
