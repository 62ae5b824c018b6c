"""Two servers on one store."""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conformance.test_store_crash import random_weights
from tests.conftest import Server
from tests.frontends.conftest import create, delete, digest_of, upload
from tests.registry import faults, stock
from tests.registry.docker import DockerRegistry
from tests.registry.host import Host, forward
from tests.registry.served import insecure_name, steps, transfer_server


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[list[Server]]:
    """Servers that call one folder by two names."""
    (tmp_path / "one" / "models").mkdir(parents=True)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "models").symlink_to(tmp_path / "one" / "models")
    servers = [transfer_server(tmp_path / name) for name in ("one", "other")]
    for server in servers:
        server.client.get("/").raise_for_status()
    yield servers
    for server in servers:
        assert server.stop() == 0, server.log


def problems(server: Server) -> list[object]:
    return list(
        server.client.post("/api/verify", json={"stream": False}).raise_for_status().json()["problems"]
    )


def test_the_same_names_at_once(pair: list[Server], tmp_path: Path) -> None:
    files = [random_weights(tmp_path, seed, 1) for seed in range(2)]
    refused: list[str] = []

    def work(server: Server, seed: int) -> None:
        dice = random.Random(seed)
        for _ in range(40):
            name, other = dice.choices(("a", "b", "c"), k=2)
            kind = dice.choice(("create", "create", "copy", "delete"))
            if kind == "create":
                data = dice.choice(files)
                body = {
                    "model": name,
                    "files": {"w.gguf": upload(server, data)},
                    "license": str(dice.random()),
                }
                reply = server.client.post("/api/create", json={**body, "stream": False})
            elif kind == "copy":
                reply = server.client.post("/api/copy", json={"source": name, "destination": other})
            else:
                reply = server.client.request("DELETE", "/api/delete", json={"model": name})
            if reply.status_code != 200:
                refused.append(f"{kind}: {reply.json()['error']}")

    threads = [threading.Thread(target=work, args=(server, seed)) for seed, server in enumerate(pair * 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # A model may be gone when its turn comes, and a file between its upload and the request that needs it.
    assert [text for text in refused if "not found" not in text] == []
    assert len(refused) < 160
    assert problems(pair[0]) == problems(pair[1]) == []
    names = [{model["name"] for model in server.client.get("/api/tags").json()["models"]} for server in pair]
    assert names[0] == names[1]
    for name in names[0]:
        pair[1].client.post("/api/show", json={"model": name}).raise_for_status()


def test_what_one_pulls_the_other_does_not_remove(
    pair: list[Server], registry: DockerRegistry, tmp_path: Path
) -> None:
    """One pulls a model whose weights another model has; the other removes that, and starts again in the meantime."""
    puller, other = pair
    shared, slow = random_weights(tmp_path, 0, 4), random_weights(tmp_path, 1, 16)
    model = stock.model(("model", shared), ("projector", slow))
    stock.put(registry, "shared/slow", model)
    create(other, "mine", files={"w.gguf": upload(other, shared)})
    blobs = other.models / "blobs"
    gate = threading.Event()
    with Host(forward(registry.url), faults.blobs(faults.gated(gate), digest_of(slow))) as front:
        source = insecure_name(front, "shared/slow")
        said: list[object] = []
        thread = threading.Thread(target=lambda: said.append(steps(puller, "/api/pull", model=source)[-1]))
        thread.start()
        partial = blobs / f"{digest_of(slow).replace(':', '-')}-partial"
        deadline = time.monotonic() + 60
        while not partial.exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        delete(other, "mine")
        assert (blobs / digest_of(shared).replace(":", "-")).exists()
        for path in blobs.iterdir():
            os.utime(path, (time.time() - 7200,) * 2)
        again = transfer_server(tmp_path / "other")
        assert thread.is_alive(), said
        gate.set()
        thread.join()
        assert again.stop() == 0
    assert said == [{"status": "success"}]
    assert problems(other) == []
