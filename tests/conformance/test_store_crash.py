"""A server that is killed in the middle of anything leaves a sound store, and its successor knows what it has said.

Moments are drawn from a seed. A few of each kind are in every run; twenty of each with `-m slow`.
"""

from __future__ import annotations

import json
import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import gguf
import httpx
import numpy as np
import pytest

from tests.conftest import Server
from tests.frontends.conftest import create, digest_of, upload
from tests.registry import faults, stock
from tests.registry.docker import DockerRegistry
from tests.registry.host import Answer, Asked, Host, Layer, forward
from tests.registry.served import insecure_name, steps, transfer_server
from tests.tiny_models import write_tiny

MB = 2**20
DAY = 24 * 60 * 60
SLACK = 4 * MB
"""What may be fetched again after a kill: bytes that were on their way, or not yet noted."""

ROUNDS = [pytest.param(2, id="few"), pytest.param(20, id="many", marks=pytest.mark.slow)]

Work = Callable[[Server], None]
"""Asks a server for something until it does not answer any more."""


class Killed:
    """A store, and servers on it that are killed one after another."""

    def __init__(self, folder: Path, start: Callable[[Path], Server] = Server) -> None:
        self._folder = folder
        self._start = start
        self.server = self._started()

    def _started(self) -> Server:
        server = self._start(self._folder)
        server.client.get("/").raise_for_status()
        return server

    def round(self, work: Work, seconds: float, begun: threading.Event | None = None) -> None:
        """Kills the server in the midst of the work, so many seconds after it began; then there is a new one."""
        thread = threading.Thread(target=_until_gone, args=(work, self.server))
        thread.start()
        if begun is not None:
            assert begun.wait(60)
        time.sleep(seconds)
        self.server.process.kill()
        self.server.process.wait()
        thread.join()
        self.server.stop()
        self.server = self._started()

    def verify(self) -> None:
        """Every blob has its bytes, and every model that is listed is whole."""
        found = self.server.client.post("/api/verify", json={"stream": False}).raise_for_status().json()
        assert (found["status"], found["problems"]) == ("success", [])
        for name in self.names():
            self.server.client.post("/api/show", json={"model": name}).raise_for_status()

    def names(self) -> list[str]:
        return [model["name"] for model in self.server.client.get("/api/tags").json()["models"]]

    def grow_old(self) -> None:
        """Lets more than a week pass over what lies about, then starts a server, which removes what nobody needs."""
        assert self.server.stop() == 0
        for path in self.server.models.rglob("*"):
            os.utime(path, (time.time() - 8 * DAY,) * 2, follow_symlinks=False)
        self.server = self._started()

    def blobs(self) -> set[str]:
        return {path.name for path in (self.server.models / "blobs").iterdir()}

    def needed(self) -> set[str]:
        """The blobs that the models' manifests name."""
        text = "".join(
            path.read_text() for path in (self.server.models / "manifests").rglob("*") if path.is_file()
        )
        return {
            piece[:71].replace(":", "-") for piece in text.split('"')[1::2] if piece.startswith("sha256:")
        }


def _until_gone(work: Work, server: Server) -> None:
    with suppress(httpx.TransportError, ConnectionError):
        work(server)


@pytest.fixture
def killed(tmp_path: Path) -> Iterator[Killed]:
    found = Killed(tmp_path)
    yield found
    assert found.server.stop() == 0, found.server.log


def random_weights(folder: Path, seed: int, megabytes: int = 8) -> bytes:
    """A model's file, large enough to be in the midst of it."""
    path = folder / f"{seed}.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tensor("w", np.random.default_rng(seed).random((megabytes, MB // 4), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path.read_bytes()


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Some models' files by digest."""
    files = [random_weights(tmp_path_factory.mktemp("weights"), seed) for seed in range(4)]
    return {digest_of(data): data for data in files}


class Churn:
    """Creates, copies and deletes models of a few names. `known` has what the server has said about them."""

    def __init__(self, weights: dict[str, bytes], dice: random.Random) -> None:
        self._weights = weights
        self._dice = dice
        self.known: dict[str, str] = {}
        """The digest of the weights by name, or an empty text for a model that was deleted."""

    def __call__(self, server: Server) -> None:
        while True:
            self._dice.choice((self._create, self._create, self._copy, self._delete))(server)

    def _create(self, server: Server) -> None:
        name, digest = self._name(), self._dice.choice(list(self._weights))
        server.client.post(f"/api/blobs/{digest}", content=self._weights[digest]).raise_for_status()
        body = {"model": name, "files": {"w.gguf": digest}, "license": str(self._dice.random()) * 1000}
        self._change(server, "POST", "/api/create", name, digest, {**body, "stream": False})

    def _copy(self, server: Server) -> None:
        source, name = self._name(), self._name()
        if self.known.get(source) and source != name:
            body = {"source": source, "destination": name}
            self._change(server, "POST", "/api/copy", name, self.known[source], body)

    def _delete(self, server: Server) -> None:
        name = self._name()
        if self.known.get(name):
            self._change(server, "DELETE", "/api/delete", name, "", {"model": name})

    def _change(
        self, server: Server, method: str, path: str, name: str, digest: str, body: dict[str, Any]
    ) -> None:
        # Until the server has answered, either is right.
        self.known.pop(name, None)
        reply = server.client.request(method, path, json=body)
        assert reply.status_code == 200, reply.text
        self.known[name] = digest

    def _name(self) -> str:
        return self._dice.choice(("a:latest", "b:latest", "me/c:v1"))

    def check(self, killed: Killed) -> None:
        listed = killed.names()
        for name, digest in self.known.items():
            assert (name in listed) == bool(digest)
            if digest:
                shown = killed.server.client.post("/api/show", json={"model": name}).json()
                assert digest.replace(":", "-") in shown["modelfile"]


@pytest.mark.parametrize("rounds", ROUNDS)
def test_killed_while_models_are_created_copied_and_deleted(
    killed: Killed, weights: dict[str, bytes], rounds: int
) -> None:
    dice = random.Random(rounds)
    churn = Churn(weights, dice)
    for _ in range(rounds):
        killed.round(churn, dice.uniform(0.1, 1.2))
        killed.verify()
        churn.check(killed)
    killed.grow_old()
    assert killed.blobs() == killed.needed()


@pytest.mark.parametrize("rounds", ROUNDS)
def test_killed_while_weights_are_quantised(killed: Killed, tmp_path: Path, rounds: int) -> None:
    dice = random.Random(rounds)
    data = write_tiny(tmp_path / "tiny.gguf", "llama").read_bytes()
    digest = digest_of(data)
    made = []

    def quantise(server: Server) -> None:
        for number in range(1000):
            server.client.post(f"/api/blobs/{digest}", content=data).raise_for_status()
            body = {"model": f"q{number}", "files": {"w.gguf": digest}, "quantize": "q8_0", "stream": False}
            reply = server.client.post("/api/create", json={**body, "license": str(dice.random())})
            assert reply.status_code == 200, reply.text
            made.append(f"q{number}:latest")

    for _ in range(rounds):
        killed.round(quantise, dice.uniform(0.2, 2.5))
        killed.verify()
        assert set(made) <= set(killed.names())
    killed.grow_old()
    assert killed.blobs() == killed.needed()


@pytest.fixture
def pulling(tmp_path: Path) -> Iterator[Killed]:
    found = Killed(tmp_path, transfer_server)
    yield found
    assert found.server.stop() == 0, found.server.log


def counting(digest: str, sent: list[int]) -> Layer:
    """Counts the bytes of a blob that are sent."""

    def count(asked: Asked, answer: Answer) -> Iterator[bytes]:
        for piece in answer.body:
            yield piece
            sent[0] += len(piece)

    return faults.blobs(faults.changed(count), digest)


@pytest.mark.parametrize("rounds", ROUNDS)
def test_killed_while_a_model_is_pulled(
    pulling: Killed, registry: DockerRegistry, tmp_path: Path, rounds: int
) -> None:
    """Each server goes on where the last one was, and nothing of weight is fetched twice."""
    dice = random.Random(rounds)
    data = random_weights(tmp_path, rounds, rounds * 8)
    stock.put(registry, "crash/pulled", stock.model(("model", data), ("license", b"MIT")))
    digest, sent = digest_of(data), [0]
    layers = (counting(digest, sent), faults.blobs(faults.slow(0.01), digest))
    with Host(forward(registry.url), *layers) as front:
        source = insecure_name(front, "crash/pulled")
        reached = 0
        for _ in range(rounds):
            seen: list[int] = []
            begun = threading.Event()

            def pull(server: Server, seen: list[int] = seen, begun: threading.Event = begun) -> None:
                body = {"model": source, "insecure": True}
                with server.client.stream("POST", "/api/pull", json=body) as reply:
                    for line in reply.iter_lines():
                        step = json.loads(line)
                        if step.get("digest") == digest and step.get("completed"):
                            seen.append(step["completed"])
                            begun.set()

            pulling.round(pull, dice.uniform(0.0, 0.8), begun)
            pulling.verify()
            assert seen == sorted(seen)
            assert seen[0] >= reached - SLACK
            reached = max(reached, seen[-1])
        assert steps(pulling.server, "/api/pull", model=source)[-1] == {"status": "success"}
        assert len(data) <= sent[0] <= len(data) + rounds * SLACK
    pulling.verify()
    assert len(pulling.names()) == 2
    pulling.grow_old()
    assert pulling.blobs() == pulling.needed()


@pytest.mark.parametrize("rounds", ROUNDS)
def test_killed_while_models_are_pushed(
    pulling: Killed, registry: DockerRegistry, weights: dict[str, bytes], rounds: int
) -> None:
    dice = random.Random(rounds)
    for number, data in enumerate(weights.values()):
        digest = upload(pulling.server, data)
        create(pulling.server, f"m{number}", files={"w.gguf": digest})
    models = {name for name in pulling.names() if name.startswith("m")}
    places = iter(range(10000))
    with Host(forward(registry.url)) as front:

        def push(server: Server) -> None:
            for name in [f"m{number}" for number in range(len(weights))] * 1000:
                place = insecure_name(front, f"crash/{rounds}-{next(places)}")
                copied = server.client.post("/api/copy", json={"source": name, "destination": place})
                assert copied.status_code == 200, copied.text
                assert steps(server, "/api/push", model=place)[-1] == {"status": "success"}

        for _ in range(rounds):
            pulling.round(push, dice.uniform(0.1, 1.0))
            pulling.verify()
            assert models <= set(pulling.names())
    pulling.grow_old()
    assert pulling.blobs() == pulling.needed()
