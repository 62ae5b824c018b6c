"""The official JavaScript client pulls and pushes through a real server, from and to a real registry."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import httpx
import platformdirs
import pytest

from tests.clients.conftest import STOCKED
from tests.conftest import Server
from tests.registry import faults, stock
from tests.registry.docker import DockerRegistry
from tests.registry.host import Host

PACKAGE = "ollama@0.6"
SCRIPT = Path(__file__).with_name("transfer.mjs")
UNKNOWN = "pull model manifest: file does not exist"


@pytest.fixture(scope="module")
def package() -> Path:
    """The folder in which the client is installed, once for this user; skips where that cannot be."""
    if not (shutil.which("node") and shutil.which("npm")):
        pytest.skip("needs node and npm")
    folder = platformdirs.user_cache_path("corectl-tests") / "ollama-javascript"
    if not (folder / "node_modules/ollama/package.json").exists():
        folder.mkdir(parents=True, exist_ok=True)
        command = ["npm", "install", "--prefix", str(folder), "--no-audit", "--no-fund", PACKAGE]
        try:
            subprocess.run(command, check=True, capture_output=True, timeout=120)
        except (subprocess.SubprocessError, OSError) as exc:
            pytest.skip(f"npm cannot install {PACKAGE}: {exc}")
    return folder


@pytest.fixture(scope="module")
def seen(
    package: Path,
    transferring: Server,
    registry: DockerRegistry,
    front: Host,
    tmp_path_factory: pytest.TempPathFactory,
) -> Any:
    """What the script has seen."""
    slow = stock.model(("model", STOCKED.blobs[STOCKED.layers[0]]), ("license", b" " * 2**20))
    stock.put(registry, "clients/slow", slow)
    front.layers[:] = [faults.blobs(faults.slow(0.1, piece=2**14), slow.layers[1])]
    folder = tmp_path_factory.mktemp("javascript")
    # Node looks for packages beside the script.
    (folder / "node_modules").symlink_to(package / "node_modules")
    script = Path(shutil.copy(SCRIPT, folder))
    clean = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
    done = subprocess.run(
        ["node", str(script), transferring.url, front.url],
        env=clean,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


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
