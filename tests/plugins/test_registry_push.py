"""Pushing models, and pulling them again; the oracle is a real registry."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from corectl.errors import BadRequest, NotFound, NotSupported, RemoteError
from corectl.model.name import ModelName
from corectl.progress import Progress
from tests.core.transfer_kit import (
    FakeRegistry,
    Puller,
    failure_of,
    running_origin,
)
from tests.plugins.push_kit import WEIGHTS, made, push, push_failing, store
from tests.registry import faults
from tests.registry.docker import DockerRegistry
from tests.registry.host import Answer, Asked, Cut, Handler, Host, forward


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[DockerRegistry]:
    running = DockerRegistry(tmp_path / "registry")
    yield running
    running.close()


def test_what_was_pushed_is_pulled(tmp_path: Path, registry: DockerRegistry) -> None:
    name = f"{registry.netloc}/library/m"
    here, there = store(tmp_path / "here"), store(tmp_path / "there")
    layer = made(here, name)
    steps = push(here, name)
    data = here.catalog.manifests.read(ModelName.parse(name)).data
    config = json.loads(data)["config"]["digest"]
    assert list(dict.fromkeys(step.status for step in steps)) == [
        "retrieving manifest",
        f"pushing {layer.digest[7:19]}",
        f"pushing {config[7:19]}",
        "pushing manifest",
        "success",
    ]
    counted = [step.completed for step in steps if step.digest == layer.digest]
    assert counted[0] == 0 and counted == sorted(counted) and counted[-1] == len(WEIGHTS)
    assert registry.blob_file(layer.digest).read_bytes() == WEIGHTS

    assert there.pull(name, insecure=True)[-1].status == "success"
    assert there.catalog.manifests.read(ModelName.parse(name)).data == data
    assert there.path(layer).read_bytes() == WEIGHTS

    again = push(here, name)
    assert [step for step in again if step.digest == layer.digest] == [
        Progress(f"pushing {layer.digest[7:19]}", layer.digest, len(WEIGHTS), len(WEIGHTS))
    ]


def test_a_layer_of_another_model_there_is_not_sent(tmp_path: Path, registry: DockerRegistry) -> None:
    """docker-registry mounts it: it is then in the second repository without an upload."""
    here = store(tmp_path / "here")
    first, second = f"{registry.netloc}/library/first", f"{registry.netloc}/library/second"
    made(here, first)
    push(here, first)
    made(here, second, source=first)
    sent = registry.log.count("http.request.method=PATCH")
    push(here, second)
    # Only the config goes over the wire again: nothing says that it comes from another model.
    assert registry.log.count("http.request.method=PATCH") == sent + 1
    assert store(tmp_path / "there").pull(second, insecure=True)[-1].status == "success"


def test_a_manifest_that_the_registry_does_not_have(tmp_path: Path, registry: DockerRegistry) -> None:
    _, error = failure_of(store(tmp_path), f"{registry.netloc}/library/nope", insecure=True)
    assert isinstance(error, NotFound) and error.message == "pull model manifest: file does not exist"


def test_a_registry_that_speaks_no_tls(tmp_path: Path, registry: DockerRegistry) -> None:
    _, error = failure_of(store(tmp_path), f"{registry.netloc}/library/m")
    assert isinstance(error, RemoteError)
    address = f"https://{registry.netloc}/v2/library/m/manifests/latest"
    assert error.message.startswith(f'pull model manifest: Get "{address}": tls: ')


def test_what_is_not_here(tmp_path: Path) -> None:
    steps, error = push_failing(store(tmp_path), "nope")
    assert [step.status for step in steps] == ["retrieving manifest", "couldn't retrieve manifest"]
    assert isinstance(error, NotFound) and str(error) == "model 'nope:latest' not found"


def test_a_name_that_is_none(tmp_path: Path) -> None:
    steps, error = push_failing(store(tmp_path), "a b")
    assert not steps and isinstance(error, BadRequest) and str(error) == "invalid model name"


def test_a_model_that_runs_elsewhere(tmp_path: Path) -> None:
    here = store(tmp_path)
    made(here, "stub", remote_host="https://ollama.com:443", remote_model="m")
    _, error = push_failing(here, "stub")
    assert isinstance(error, BadRequest) and "cannot be pushed" in error.message


def test_a_registry_that_takes_no_models(tmp_path: Path) -> None:
    with running_origin() as origin:
        here = Puller(tmp_path, FakeRegistry(origin))
        made(here, "m")
        _, error = push_failing(here, "m")
    assert isinstance(error, NotSupported)


def test_a_name_that_wants_no_encryption(tmp_path: Path) -> None:
    here = store(tmp_path)
    made(here, "h.example/n/m")
    _, error = push_failing(here, "http://h.example/n/m")
    assert isinstance(error, BadRequest) and error.message == "insecure protocol http"


def test_an_upload_goes_on_after_a_gateway_has_failed(tmp_path: Path, registry: DockerRegistry) -> None:
    """The registry itself says how far it is."""
    failing = faults.only(lambda asked: asked.method == "PATCH", faults.in_turn(_pass, faults.failing(502)))
    with Host(forward(registry.url), failing) as front:
        here, name = store(tmp_path / "here"), f"{front.netloc}/library/m"
        layer = made(here, name)
        push(here, name)
        assert registry.blob_file(layer.digest).read_bytes() == WEIGHTS
        assert front.count("POST") == 2 and front.count("PATCH") == 6


def test_an_upload_whose_connection_breaks_arrives(tmp_path: Path, registry: DockerRegistry) -> None:
    """This registry forgets an upload that breaks within a part, so it begins anew."""
    breaking = faults.only(lambda asked: asked.method == "PATCH", faults.in_turn(_pass, _break))
    with Host(forward(registry.url), breaking) as front:
        here, name = store(tmp_path / "here"), f"{front.netloc}/library/m"
        layer = made(here, name)
        push(here, name)
        assert registry.blob_file(layer.digest).read_bytes() == WEIGHTS


def _pass(asked: Asked, further: Handler) -> Answer:
    return further(asked)


def _break(asked: Asked, further: Handler) -> Answer:
    """Hands on some of what comes, and then nobody is there any more."""
    asked.body = _cut(asked.body)
    return further(asked)


def _cut(body: Iterator[bytes]) -> Iterator[bytes]:
    yield next(body)[:1000]
    raise Cut
