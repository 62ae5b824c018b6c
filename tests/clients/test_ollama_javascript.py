"""The official JavaScript client pulls and pushes through a real server, from and to a real registry."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.clients import javascript
from tests.clients.conftest import STOCKED
from tests.conftest import Server
from tests.registry import faults, stock
from tests.registry.docker import DockerRegistry
from tests.registry.host import Host

PACKAGE = "ollama@0.6"
UNKNOWN = "pull model manifest: file does not exist"


@pytest.fixture(scope="module")
def seen(
    transferring: Server, registry: DockerRegistry, front: Host, tmp_path_factory: pytest.TempPathFactory
) -> Any:
    """What the script has seen."""
    package = javascript.installed(PACKAGE)
    slow = stock.model(("model", STOCKED.blobs[STOCKED.layers[0]]), ("license", b" " * 2**20))
    stock.put(registry, "clients/slow", slow)
    front.layers[:] = [faults.blobs(faults.slow(0.1, piece=2**14), slow.layers[1])]
    folder = tmp_path_factory.mktemp("javascript")
    return javascript.run(package, "transfer.mjs", folder, transferring.url, front.url)


def test_pull(seen: Any, front: Host) -> None:
    streamed = seen["streamed"]
    assert (streamed[0], streamed[-1]) == ({"status": "pulling manifest"}, {"status": "success"})
    ends = {step["digest"]: step["completed"] for step in streamed if step.get("completed")}
    assert ends == {digest: len(data) for digest, data in STOCKED.blobs.items()}
    assert seen["pulled"] == {"status": "success"}
    assert f"{front.netloc}/clients/tiny:latest" in seen["names"]


def test_errors(seen: Any) -> None:
    assert seen["unknown"] == seen["unknownStreamed"] == UNKNOWN
    assert seen["badName"] == "invalid model name"
    assert "nope" in seen["pushedNothing"]


def test_create(seen: Any) -> None:
    statuses = [step["status"] for step in seen["created"]]
    assert f"creating new layer {stock.digest_of(b'Be brief.')}" in statuses
    assert statuses[-2:] == ["writing manifest", "success"]


def test_push(seen: Any, registry: DockerRegistry) -> None:
    pushed = seen["pushed"]
    assert (pushed[0], pushed[-1]) == ({"status": "retrieving manifest"}, {"status": "success"})
    assert {step["digest"] for step in pushed if "digest" in step} == set(STOCKED.blobs)
    assert seen["pushedAgain"] == {"status": "success"}
    url = f"{registry.url}/v2/clients/javascript/manifests/latest"
    arrived = httpx.get(url, headers={"accept": stock.MANIFEST}, trust_env=False)
    assert arrived.json()["layers"][0]["digest"] == STOCKED.layers[0]


def test_a_pull_that_is_given_up(seen: Any, front: Host, transferring: Server) -> None:
    assert seen["aborted"] == "AbortError"
    models = transferring.client.get("/api/tags").json()["models"]
    assert f"{front.netloc}/clients/slow:latest" not in [model["name"] for model in models]
