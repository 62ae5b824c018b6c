"""POST /api/pull and /api/push, and create from a model that is not here, against a real registry."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import parse_qs

import httpx
import pytest

from tests.conftest import DATA, MODEL, Server
from tests.registry import faults, stock
from tests.registry.certificates import Authority
from tests.registry.docker import DockerRegistry
from tests.registry.host import Host, forward
from tests.registry.served import insecure_name, names, pull, steps, store_files, transfer_server, wait_for

WEIGHTS = (DATA / "tinybert.gguf").read_bytes()
LICENSE = b"Everybody may do everything."


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Iterator[Server]:
    running = transfer_server(tmp_path_factory.mktemp("transfer"), SSL_CERT_FILE=str(authority.file))
    yield running
    assert running.stop() == 0, running.log


@pytest.fixture
def front(registry: DockerRegistry) -> Iterator[Host]:
    with Host(forward(registry.url)) as host:
        yield host


@pytest.fixture
def encrypted(registry: DockerRegistry, authority: Authority) -> Iterator[Host]:
    with Host(forward(registry.url), tls=authority.context()) as host:
        yield host


def _stocked(registry: DockerRegistry, name: str, *more: tuple[str, bytes]) -> stock.Model:
    """A model of its own for each name: blobs that are here already are not downloaded."""
    made = stock.model(("model", WEIGHTS), ("license", name.encode() + LICENSE), *more)
    stock.put(registry, name, made)
    return made


def test_pull(server: Server, front: Host, registry: DockerRegistry) -> None:
    made = _stocked(registry, "pull/plain")
    found = pull(server, front, "pull/plain")
    assert found[0] == {"status": "pulling manifest"}
    assert [step["status"] for step in found[-3:]] == [
        "verifying sha256 digest",
        "writing manifest",
        "success",
    ]
    for digest, data in made.blobs.items():
        bars = [step for step in found if step.get("digest") == digest]
        assert {step["status"] for step in bars} == {f"pulling {digest[7:19]}"}
        assert {step["total"] for step in bars} == {len(data)}
        counts = [step.get("completed", 0) for step in bars]
        assert counts == sorted(counts) and counts[-1] == len(data)
        # What is zero is left out.
        assert all(step.get("completed", 1) for step in bars)
        assert (server.models / "blobs" / digest.replace(":", "-")).read_bytes() == data
    stored = server.models / "manifests" / front.netloc / "pull/plain/latest"
    assert stored.read_bytes() == made.manifest
    assert f"{front.netloc}/pull/plain:latest" in names(server)


def test_what_is_here_is_not_pulled_again(server: Server, front: Host, registry: DockerRegistry) -> None:
    made = _stocked(registry, "pull/again")
    pull(server, front, "pull/again")
    before = front.count("GET", "/blobs/")
    found = pull(server, front, "pull/again")
    bars = [step for step in found if "digest" in step]
    assert [step["digest"] for step in bars] == list(made.blobs)
    assert all(step["completed"] == step["total"] for step in bars)
    assert front.count("GET", "/blobs/") == before


def test_a_new_version_takes_the_place_of_the_old(
    server: Server, front: Host, registry: DockerRegistry
) -> None:
    old = _stocked(registry, "pull/versions", ("system", b"old"))
    pull(server, front, "pull/versions")
    new = _stocked(registry, "pull/versions", ("system", b"new"))
    found = [step["status"] for step in pull(server, front, "pull/versions")]
    assert found[-2:] in (["writing manifest", "success"], ["removing unused layers", "success"])
    blobs = server.models / "blobs"
    assert not (blobs / old.layers[2].replace(":", "-")).exists()
    assert (blobs / new.layers[2].replace(":", "-")).read_bytes() == b"new"


def test_without_a_stream_only_the_last_step_comes(
    server: Server, front: Host, registry: DockerRegistry
) -> None:
    _stocked(registry, "pull/whole")
    # Some clients say `name`, and some still send credentials that nobody reads.
    body = {"name": insecure_name(front, "pull/whole"), "username": "me", "password": "secret"}
    reply = server.client.post("/api/pull", json={**body, "insecure": True, "stream": False})
    assert (reply.status_code, reply.json()) == (200, {"status": "success"})
    assert reply.headers["content-type"] == "application/json"
    assert not any("secret" in value for asked in front.asked for value in asked.headers.values())


@pytest.mark.parametrize("name", ["a b", "../x", "a/b/c/d", "x@sha256:1", "-h/n/m"])
def test_bad_names(server: Server, name: str) -> None:
    refused = {"error": "invalid model name"}
    for path in ("/api/pull", "/api/push"):
        reply = server.client.post(path, json={"model": name, "stream": False})
        assert (reply.status_code, reply.json()) == (400, refused)
        streamed = server.client.post(path, json={"model": name})
        assert (streamed.status_code, streamed.json()) == (400, refused)


@pytest.mark.parametrize("path", ["/api/pull", "/api/push"])
def test_bad_bodies(server: Server, path: str) -> None:
    assert server.client.post(path, content=b"").json() == {"error": "missing request body"}
    for body in ("{", '{"model": 5}', '{"model": "x", "insecure": "yes"}', "[]"):
        reply = server.client.post(path, content=body)
        assert reply.status_code == 400 and reply.json()["error"]


def test_no_name(server: Server) -> None:
    assert server.client.post("/api/pull", json={}).json() == {"error": "invalid model name"}
    assert server.client.post("/api/push", json={}).json() == {"error": "model is required"}


def test_what_the_registry_does_not_have(server: Server, front: Host) -> None:
    text = "pull model manifest: file does not exist"
    assert pull(server, front, "pull/nothing") == [{"status": "pulling manifest"}, {"error": text}]
    body = {"model": insecure_name(front, "pull/nothing"), "insecure": True, "stream": False}
    reply = server.client.post("/api/pull", json=body)
    assert (reply.status_code, reply.json()) == (500, {"error": text})


def test_no_encryption_unless_asked_for(server: Server, front: Host) -> None:
    copied = {"source": MODEL, "destination": f"{front.netloc}/pull/plain"}
    assert server.client.post("/api/copy", json=copied).status_code == 200
    for path in ("/api/pull", "/api/push"):
        body = {"model": insecure_name(front, "pull/plain"), "stream": False}
        reply = server.client.post(path, json=body)
        assert reply.status_code == 400 and "insecure" in reply.json()["error"]
    assert front.asked == []


def test_an_encrypted_registry(server: Server, encrypted: Host, registry: DockerRegistry) -> None:
    """Its certificate is signed by an authority that this server has been told of."""
    made = _stocked(registry, "pull/encrypted")
    name = f"{encrypted.netloc}/pull/encrypted"
    assert steps(server, "/api/pull", model=name, insecure=False)[-1] == {"status": "success"}
    stored = server.models / "manifests" / encrypted.netloc / "pull/encrypted/latest"
    assert stored.read_bytes() == made.manifest
    # Whoever says insecure means no encryption, and gets none.
    assert "error" in steps(server, "/api/pull", model=name, insecure=True)[-1]


def test_a_registry_that_is_not_there(server: Server) -> None:
    found = steps(server, "/api/pull", model="127.0.0.1:9/library/x", insecure=False)
    assert found[0] == {"status": "pulling manifest"}
    error = found[1]["error"]
    assert error.startswith('pull model manifest: Get "https://127.0.0.1:9/v2/library/x/manifests/latest": ')
    reply = server.client.post("/api/pull", json={"name": "127.0.0.1:9/library/x", "stream": False})
    assert (reply.status_code, reply.json()["error"]) == (500, error)


def test_a_client_that_leaves_gives_up_its_share_only(
    server: Server, front: Host, registry: DockerRegistry
) -> None:
    made = _stocked(registry, "pull/shared", ("messages", b"[]" + b" " * 2**20))
    front.layers[:] = [faults.blobs(faults.slow(0.05, piece=2**15))]
    body = {"model": insecure_name(front, "pull/shared"), "insecure": True}
    joined = threading.Event()

    def arrives(line: str) -> bool:
        return made.layers[2] in line and "completed" in line

    def stay() -> str:
        with server.client.stream("POST", "/api/pull", json=body) as staying:
            for line in staying.iter_lines():
                if arrives(line):
                    joined.set()
        return line

    with ThreadPoolExecutor() as pool, server.client.stream("POST", "/api/pull", json=body) as leaving:
        lines = leaving.iter_lines()
        while not arrives(next(lines)):
            pass
        last = pool.submit(stay)
        assert joined.wait(60)
        leaving.close()
        assert json.loads(last.result()) == {"status": "success"}
    got = [asked for asked in front.asked if asked.method == "GET" and asked.is_blob]
    fetched = [(asked.route, asked.headers["range"]) for asked in got]
    assert len(fetched) == len(set(fetched)), "some bytes were fetched twice"


def test_when_all_have_left_the_download_ends_and_goes_on_later(
    server: Server, front: Host, registry: DockerRegistry
) -> None:
    made = _stocked(registry, "pull/broken-off", ("messages", b"[]" + b" " * 2**22))
    large = made.layers[2]
    front.layers[:] = [faults.blobs(faults.stalling(2**21), large)]
    body = {"model": insecure_name(front, "pull/broken-off"), "insecure": True}
    partial = server.models / "blobs" / f"{large.replace(':', '-')}-partial"
    with server.client.stream("POST", "/api/pull", json=body) as leaving:
        for line in leaving.iter_lines():
            step = json.loads(line)
            if step.get("digest") == large and step.get("completed", 0) > 2**20:
                break
    assert partial.exists()
    wait_for(lambda: "path=/api/pull status=200 outcome=canceled" in server.log)
    assert f"{front.netloc}/pull/broken-off:latest" not in names(server)
    front.layers.clear()
    front.asked.clear()
    bars = [step for step in pull(server, front, "pull/broken-off") if step.get("digest") == large]
    counts = [step["completed"] for step in bars if "completed" in step]
    assert counts[0] > 2**20, "it began anew"
    assert counts == sorted(counts)
    assert bars[-1]["completed"] == bars[-1]["total"]
    ranges = [
        asked.headers["range"] for asked in front.asked if large in asked.route and asked.method == "GET"
    ]
    assert all(int(text.removeprefix("bytes=").partition("-")[0]) > 2**20 for text in ranges)
    assert not list(partial.parent.glob(f"{partial.name}*"))


def test_a_client_that_leaves_without_a_stream(server: Server, front: Host, registry: DockerRegistry) -> None:
    made = _stocked(registry, "pull/impatient", ("messages", b"[]" + b" " * 1000))
    front.layers[:] = [faults.blobs(faults.stalling(10), made.layers[2])]
    body = {"model": insecure_name(front, "pull/impatient"), "insecure": True, "stream": False}
    with pytest.raises(httpx.ReadTimeout):
        server.client.post("/api/pull", json=body, timeout=1)
    assert f"{front.netloc}/pull/impatient:latest" not in names(server)
    front.layers.clear()
    assert pull(server, front, "pull/impatient")[-1] == {"status": "success"}


def test_push(server: Server, front: Host, registry: DockerRegistry) -> None:
    made = _stocked(registry, "push/source")
    pull(server, front, "push/source")
    for target in ("push/target", "push/again"):
        copied = {"source": f"{front.netloc}/push/source", "destination": f"{front.netloc}/{target}:v2"}
        assert server.client.post("/api/copy", json=copied).status_code == 200
    found = steps(server, "/api/push", model=insecure_name(front, "push/target:v2"))
    assert found[0] == {"status": "retrieving manifest"}
    assert [step["status"] for step in found[-2:]] == ["pushing manifest", "success"]
    for digest, data in made.blobs.items():
        bars = [step for step in found if step.get("digest") == digest]
        assert {step["status"] for step in bars} == {f"pushing {digest[7:19]}"}
        assert {step["total"] for step in bars} == {len(data)}
        assert bars[-1]["completed"] == len(data)
    with httpx.Client(base_url=f"{registry.url}/v2/push/target/", trust_env=False) as client:
        arrived = client.get("manifests/v2", headers={"accept": stock.MANIFEST})
        assert json.loads(arrived.content) == json.loads(made.manifest)
        for digest, data in made.blobs.items():
            assert client.get(f"blobs/{digest}").content == data
    body = {"name": insecure_name(front, "push/target:v2"), "insecure": True, "stream": False}
    before = front.count("PATCH") + front.count("POST")
    reply = server.client.post("/api/push", json=body)
    assert (reply.status_code, reply.json()) == (200, {"status": "success"})
    assert front.count("PATCH") + front.count("POST") == before, "what was there was sent again"


def test_push_what_is_not_here(server: Server) -> None:
    first, second, error = steps(server, "/api/push", model="nope")
    assert first == {"status": "retrieving manifest"}
    assert second == {"status": "couldn't retrieve manifest"}
    assert "nope" in error["error"] and str(server.models) not in error["error"]
    reply = server.client.post("/api/push", json={"model": "nope", "stream": False})
    assert (reply.status_code, reply.json()) == (404, error)


def test_nobody_is_signed_in(server: Server) -> None:
    """What clients ask about a cloud has an answer, and the key that pushes are signed with can be registered."""
    assert server.client.get("/api/status").json() == {"cloud": {"disabled": True, "source": "none"}}
    signout = server.client.post("/api/signout")
    assert (signout.status_code, signout.json()) == (401, {"error": "you are not currently signed in"})
    reply = server.client.post("/api/me")
    assert (reply.status_code, reply.json()["error"]) == (401, "unauthorized")
    page, _, query = reply.json()["signin_url"].partition("?")
    encoded = parse_qs(query)["key"][0]
    public = base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)).decode()
    key = server.folder / "home/.ollama/id_ed25519.pub"
    assert page == "https://ollama.com/connect" and public.split() == key.read_text().split()
    assert key.with_suffix("").stat().st_mode & 0o777 == 0o600


def test_create_from_a_model_that_is_not_here_pulls_it(
    server: Server, encrypted: Host, registry: DockerRegistry
) -> None:
    made = _stocked(registry, "create/base")
    body = {"model": "heir", "from": f"{encrypted.netloc}/create/base", "system": "Be brief."}
    found = [step["status"] for step in steps(server, "/api/create", **body)]
    pulling = ["pulling manifest", *dict.fromkeys(f"pulling {digest[7:19]}" for digest in made.blobs)]
    assert list(dict.fromkeys(found))[: len(pulling)] == pulling
    assert f"creating new layer {stock.digest_of(b'Be brief.')}" in found
    assert found[-2:] == ["writing manifest", "success"] and found.count("success") == 1
    assert {"heir:latest", f"{encrypted.netloc}/create/base:latest"} <= set(names(server))


def test_create_from_what_cannot_be_pulled(server: Server, encrypted: Host) -> None:
    before = store_files(server)
    body = {"model": "orphan", "from": f"{encrypted.netloc}/create/nothing", "stream": False}
    reply = server.client.post("/api/create", json=body)
    assert reply.json() == {"error": "pull model manifest: file does not exist"}
    assert store_files(server) == before
