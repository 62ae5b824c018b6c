"""Models made of files that are linked, or used where they lie: by the command line, and through the API."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from corectl.cli.root import run
from tests.conftest import DATA, Server
from tests.registry.docker import DockerRegistry

TINY = DATA / "tinybert.gguf"
DIGEST = f"sha256:{hashlib.sha256(TINY.read_bytes()).hexdigest()}"


@dataclass
class Result:
    code: int
    out: str
    err: str


Corectl = Callable[..., Result]

_seen = [0]
"""How much of the log earlier tests have written."""


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("in-place")
    server = Server(folder, CORECTL_IMPORT_FOLDERS=str(folder / "shelf"))
    yield server
    assert server.stop() == 0, server.log


@pytest.fixture
def fresh(running: Server) -> Iterator[Server]:
    """The server with an empty store and an empty log, as far as a test can see."""
    _seen[0] = len(running.log)
    yield running
    for model in running.client.get("/api/tags").json()["models"]:
        if model["name"] != "smollm2:latest":
            running.client.request("DELETE", "/api/delete", json={"model": model["name"]}).raise_for_status()
    for path in (running.models / "blobs").glob("*"):
        path.unlink()


@pytest.fixture
def shelf(running: Server) -> Iterator[Path]:
    """A folder of the user's own, with a model that takes a file of it."""
    folder = running.folder / "shelf"
    folder.mkdir()
    shutil.copy(TINY, folder / "tiny.gguf")
    (folder / "Modelfile").write_text("FROM ./tiny.gguf\nSYSTEM hello\n")
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def corectl(fresh: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Corectl:
    monkeypatch.setenv("OLLAMA_HOST", fresh.url)
    monkeypatch.setenv("OLLAMA_MODELS", str(fresh.models))
    monkeypatch.setenv("CORECTL_CONFIG", str(fresh.folder / "corectl.toml"))

    def call(*args: str) -> Result:
        code = run(args)
        out, err = capsys.readouterr()
        return Result(code, out, err)

    return call


def blob(server: Server) -> Path:
    return server.models / "blobs" / DIGEST.replace(":", "-")


def vector(server: Server, model: str) -> list[float]:
    reply = server.client.post("/api/embed", json={"model": model, "input": "hello"})
    assert reply.status_code == 200, reply.text
    return list(reply.json()["embeddings"][0])


def embed_error(server: Server, model: str) -> str:
    reply = server.client.post("/api/embed", json={"model": model, "input": "hello"})
    assert reply.status_code == 400
    return str(reply.json()["error"])


def uploads(server: Server) -> int:
    """How many files have been sent in this test."""
    return server.log[_seen[0] :].count("method=POST path=/api/blobs/")


def test_a_file_on_this_machine_is_linked_and_not_sent(fresh: Server, corectl: Corectl, shelf: Path) -> None:
    made = corectl("create", "tiny", "-f", str(shelf / "Modelfile"))
    assert made.code == 0, made.err
    assert uploads(fresh) == 0
    assert not blob(fresh).is_symlink()
    # A file system that can clone has two files; here it is one with two names.
    assert blob(fresh).samefile(shelf / "tiny.gguf") or blob(fresh).stat().st_nlink == 1
    assert vector(fresh, "tiny")
    assert corectl("rm", "tiny").code == 0
    assert (shelf / "tiny.gguf").read_bytes() == TINY.read_bytes()


def test_what_show_prints_is_not_read_again(fresh: Server, corectl: Corectl, shelf: Path) -> None:
    assert corectl("create", "tiny", "-f", str(shelf / "Modelfile")).code == 0
    printed = corectl("show", "tiny", "--modelfile").out
    assert f"FROM {blob(fresh)}\n" in printed
    (shelf / "Modelfile").write_text(printed)
    made = corectl("create", "again", "-f", str(shelf / "Modelfile"))
    assert made.code == 0 and "copying file" not in made.err, made.err
    assert uploads(fresh) == 0
    assert vector(fresh, "again") == vector(fresh, "tiny")


def test_a_server_with_another_store_is_sent_the_file(
    fresh: Server, corectl: Corectl, shelf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    monkeypatch.setenv("OLLAMA_MODELS", str(other))
    made = corectl("create", "tiny", "-f", str(shelf / "Modelfile"))
    assert made.code == 0, made.err
    assert uploads(fresh) == 1
    assert [path for path in other.rglob("*") if not path.is_dir()] == []
    assert not blob(fresh).samefile(shelf / "tiny.gguf")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_the_store_of_another_user_is_left_alone(
    fresh: Server, corectl: Corectl, shelf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    assert corectl("create", "tiny", "-f", str(shelf / "Modelfile")).code == 0
    assert uploads(fresh) == 1


def test_in_place(fresh: Server, corectl: Corectl, shelf: Path) -> None:
    made = corectl("create", "tiny", "--in-place", "-f", str(shelf / "Modelfile"))
    assert made.code == 0, made.err
    assert uploads(fresh) == 0
    assert blob(fresh).readlink() == shelf / "tiny.gguf"
    before = vector(fresh, "tiny")
    assert f"FROM {shelf}/tiny.gguf\n" in corectl("show", "tiny", "--modelfile").out
    assert corectl("cp", "tiny", "again").code == 0
    assert corectl("rm", "tiny").code == 0
    assert vector(fresh, "again") == before
    checked = corectl("verify")
    assert checked.code == 0 and "no problems" in checked.out
    assert corectl("rm", "again").code == 0
    assert not blob(fresh).is_symlink()
    assert (shelf / "tiny.gguf").read_bytes() == TINY.read_bytes()


def test_in_place_and_changed(fresh: Server, corectl: Corectl, shelf: Path) -> None:
    assert corectl("create", "tiny", "--in-place", "-f", str(shelf / "Modelfile")).code == 0
    weights = shelf / "tiny.gguf"
    os.utime(weights, (1, 1))
    assert str(weights) in embed_error(fresh, "tiny")
    assert corectl("verify").code == 0  # the bytes are the same
    assert vector(fresh, "tiny")
    assert corectl("stop", "tiny").code == 0
    weights.write_bytes(TINY.read_bytes()[:-1] + b"!")
    for said in (embed_error(fresh, "tiny"), corectl("show", "tiny").err, corectl("cp", "tiny", "b").err):
        assert str(weights) in said and "create the model again" in said
    assert "tiny:latest" in corectl("ls").out
    checked = corectl("verify")
    assert checked.code == 1 and "changed: sha256:" in checked.out and "needed by tiny:latest" in checked.out
    assert "Error: 1 problem in the model store" in checked.err
    weights.unlink()
    assert str(weights) in embed_error(fresh, "tiny")
    assert corectl("verify", "tiny").code == 1
    # What is said does help.
    shutil.copy(TINY, weights)
    assert corectl("create", "tiny", "--in-place", "-f", str(shelf / "Modelfile")).code == 0
    assert corectl("verify").code == 0
    assert vector(fresh, "tiny")
    weights.unlink()
    assert corectl("rm", "tiny").code == 0
    assert "tiny" not in corectl("ls").out
    assert list((fresh.models / "blobs").iterdir()) == []


def test_in_place_in_a_store_that_is_not_ours(
    fresh: Server, corectl: Corectl, shelf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server is asked instead, and has the last word."""
    monkeypatch.setenv("OLLAMA_MODELS", str(tmp_path / "none"))
    made = corectl("create", "tiny", "--in-place", "-f", str(shelf / "Modelfile"))
    assert made.code == 0, made.err
    assert blob(fresh).readlink() == shelf / "tiny.gguf"
    (tmp_path / "Modelfile").write_text(f"FROM {TINY}\n")
    assert corectl("rm", "tiny").code == 0
    refused = corectl("create", "other", "--in-place", "-f", str(tmp_path / "Modelfile"))
    assert refused.code == 1 and "import_folders" in refused.err
    assert uploads(fresh) == 0


def test_in_place_is_for_this_machine(corectl: Corectl, shelf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OLLAMA_HOST", "http://192.0.2.1:11434")
    refused = corectl("create", "tiny", "--in-place", "-f", str(shelf / "Modelfile"))
    assert (refused.code, "--in-place is for a server on this machine" in refused.err) == (1, True)


@pytest.mark.parametrize("in_place", [False, True])
def test_a_path_in_a_request(fresh: Server, shelf: Path, in_place: bool) -> None:
    body: dict[str, Any] = {"model": "api", "stream": False, "in_place": in_place}
    made = fresh.client.post("/api/create", json={**body, "files": {"m.gguf": str(shelf / "tiny.gguf")}})
    assert made.json() == {"status": "success"}
    assert blob(fresh).is_symlink() == in_place
    assert vector(fresh, "api")


def test_other_paths_in_a_request(fresh: Server, shelf: Path, tmp_path: Path) -> None:
    (shelf / "out.gguf").symlink_to(TINY)
    for path in (
        "/etc/passwd",
        str(TINY),
        str(shelf / "out.gguf"),
        str(shelf / ".." / "server.log"),
        str(shelf),
    ):
        for stream in (False, True):
            body = {"model": "api", "stream": stream, "in_place": True, "files": {"m.gguf": path}}
            refused = fresh.client.post("/api/create", json=body)
            assert refused.status_code == 403, refused.text
            assert "CORECTL_IMPORT_FOLDERS" in refused.json()["error"]
        body = {"model": "api", "from": "smollm2", "adapters": {"a.gguf": path}, "stream": False}
        assert fresh.client.post("/api/create", json=body).status_code == 403
    assert [path for path in fresh.models.rglob("*") if not path.is_dir()] == []


def test_pushing_reads_the_file_where_it_lies(fresh: Server, shelf: Path, registry: DockerRegistry) -> None:
    place = f"{registry.url}/in-place/tiny"
    weights = shelf / "tiny.gguf"
    body = {"model": place, "in_place": True, "files": {"m.gguf": str(weights)}, "stream": False}
    fresh.client.post("/api/create", json=body).raise_for_status()
    push = {"model": place, "insecure": True, "stream": False}
    assert fresh.client.post("/api/push", json=push).json() == {"status": "success"}
    assert registry.blob_file(DIGEST).read_bytes() == TINY.read_bytes()
    os.utime(weights, (1, 1))
    refused = fresh.client.post("/api/push", json=push)
    assert refused.status_code == 400 and str(weights) in refused.json()["error"]
