"""The official Python client pulls and pushes through a real server, from and to a real registry."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import closing

import httpx
import ollama
import pytest

from tests.clients.conftest import STOCKED
from tests.conftest import Server
from tests.registry import stock
from tests.registry.docker import DockerRegistry
from tests.registry.host import Host

TINY = "clients/tiny"
UNKNOWN = "pull model manifest: file does not exist"


@pytest.fixture(scope="module")
def client(transferring: Server) -> Iterator[ollama.Client]:
    with closing(ollama.Client(host=transferring.url, timeout=120, trust_env=False)) as made:
        yield made


@pytest.fixture(autouse=True)
def nothing_here(client: ollama.Client, front: Host) -> None:
    """Each test begins without models."""
    for model in client.list().models:
        if model.model and front.netloc in model.model:
            client.delete(model.model)


def _names(client: ollama.Client) -> list[str | None]:
    return [model.model for model in client.list().models]


def test_pull(client: ollama.Client, front: Host) -> None:
    assert client.pull(f"{front.url}/{TINY}", insecure=True).status == "success"
    assert f"{front.netloc}/{TINY}:latest" in _names(client)
    assert client.show(f"{front.netloc}/{TINY}").license == "Clients may pull this."


def test_pull_with_progress(client: ollama.Client, front: Host) -> None:
    found = list(client.pull(f"{front.url}/{TINY}", insecure=True, stream=True))
    assert (found[0].status, found[-1].status) == ("pulling manifest", "success")
    ends = {step.digest: (step.completed, step.total) for step in found if step.digest}
    assert ends == {digest: (len(data), len(data)) for digest, data in STOCKED.blobs.items()}


def test_pull_asynchronously(client: ollama.Client, transferring: Server, front: Host) -> None:
    async def pull() -> list[str | None]:
        asynchronous = ollama.AsyncClient(host=transferring.url, timeout=120, trust_env=False)
        steps = await asynchronous.pull(f"{front.url}/{TINY}", insecure=True, stream=True)
        found = [step.status async for step in steps]
        await asynchronous._client.aclose()
        return found

    assert asyncio.run(pull())[-1] == "success"
    assert f"{front.netloc}/{TINY}:latest" in _names(client)


def test_pull_what_is_not_there(client: ollama.Client, front: Host) -> None:
    name = f"{front.url}/clients/nothing"
    with pytest.raises(ollama.ResponseError, match=UNKNOWN):
        client.pull(name, insecure=True)
    with pytest.raises(ollama.ResponseError, match=UNKNOWN):
        list(client.pull(name, insecure=True, stream=True))
    with pytest.raises(ollama.ResponseError, match="invalid model name") as caught:
        client.pull("a b")
    assert caught.value.status_code == 400


def test_create_with_progress(client: ollama.Client, front: Host) -> None:
    client.pull(f"{front.url}/{TINY}", insecure=True)
    steps = client.create("heir", from_=f"{front.netloc}/{TINY}", system="Be brief.", stream=True)
    statuses = [step.status for step in steps]
    assert f"creating new layer {stock.digest_of(b'Be brief.')}" in statuses
    assert statuses[-2:] == ["writing manifest", "success"]
    client.delete("heir")


def test_push(client: ollama.Client, front: Host, registry: DockerRegistry) -> None:
    client.pull(f"{front.url}/{TINY}", insecure=True)
    for target, stream in (("clients/pushed", False), ("clients/streamed", True)):
        client.copy(f"{front.netloc}/{TINY}", f"{front.netloc}/{target}")
        if stream:
            found = list(client.push(f"{front.url}/{target}", insecure=True, stream=True))
            assert (found[0].status, found[-1].status) == ("retrieving manifest", "success")
            assert {step.digest for step in found if step.digest} == set(STOCKED.blobs)
        else:
            assert client.push(f"{front.url}/{target}", insecure=True).status == "success"
        accept = {"accept": stock.MANIFEST}
        arrived = httpx.get(f"{registry.url}/v2/{target}/manifests/latest", headers=accept, trust_env=False)
        assert arrived.json()["layers"][0]["digest"] == STOCKED.layers[0]


def test_push_what_is_not_here(client: ollama.Client) -> None:
    with pytest.raises(ollama.ResponseError, match="nope"):
        client.push("me/nope")
    with pytest.raises(ollama.ResponseError, match="nope"):
        list(client.push("me/nope", stream=True))
