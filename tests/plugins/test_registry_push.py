"""Pushing models, and pulling them again; the oracle is a real registry."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from corectl.errors import BadRequest, Forbidden, NotFound, NotSupported, RemoteError
from corectl.model.manifest import Layer, MediaType, ModelConfig
from corectl.model.name import ModelName
from corectl.progress import Progress
from corectl.transfer import peers
from corectl_registry.registry import OciRegistry
from tests.core.transfer_kit import (
    QUICK,
    FakeOrigin,
    FakeRegistry,
    Puller,
    Reply,
    failure_of,
    random_bytes,
    running_origin,
    steps_of,
)
from tests.registry import faults
from tests.registry.docker import DockerRegistry
from tests.registry.host import Answer, Asked, Cut, Handler, Host, forward

WEIGHTS = random_bytes(500_000)
"""Four parts."""


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[DockerRegistry]:
    running = DockerRegistry(tmp_path / "registry")
    yield running
    running.close()


def store(folder: Path) -> Puller:
    return Puller(folder, OciRegistry(QUICK))  # type: ignore[arg-type]


def made(puller: Puller, name: str, *, source: str = "", data: bytes = WEIGHTS, **config: Any) -> Layer:
    """A model in the store; returns the layer of its weights."""
    stored = puller.catalog.blobs.put(data)
    layer = Layer(media_type=MediaType.MODEL, digest=stored.digest, size=stored.size, from_=source)
    values = ModelConfig(model_format="gguf", **config)
    puller.catalog.install(ModelName.parse(name), puller.catalog.manifest_bytes(values, [layer], []))
    return layer


def push(puller: Puller, name: str) -> list[Progress]:
    steps: list[Progress] = puller.run(lambda transfers: steps_of(transfers.push(name, insecure=True)))
    return steps


def push_failing(puller: Puller, name: str, **options: Any) -> tuple[list[Progress], Exception]:
    seen: list[Progress] = []

    async def work(transfers: Any) -> Exception:
        try:
            async with aclosing(transfers.push(name, **options)) as steps:
                async for step in steps:
                    seen.append(step)  # noqa: PERF401 - what came before the error counts
        except Exception as exc:
            return exc
        raise AssertionError("the push did not fail")

    return seen, puller.run(work)


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


class Uploads:
    """A registry that takes uploads; `elsewhere` is where it sends the bytes, if anywhere.

    It `drops` so many parts on the way, the first of them that begin at `drop_at` or later, and `keeps` what has come
    of them and says so, or has no such request; or it `forgets` the upload then.
    """

    def __init__(self, origin: FakeOrigin, elsewhere: str = "") -> None:
        self.origin = origin
        self.elsewhere = elsewhere
        self.parts: dict[int, bytes] = {}
        self.blobs: dict[str, bytes] = {}
        self.drops = 0
        self.drop_at = 0
        self.keeps = False
        self.forgets = False
        self.finishes_unheard = 0
        self.refuses = 0
        self.etag = ""
        self.manifest = b""
        self.lock = threading.Lock()
        origin.faults.append(self.answer)

    def answer(self, reply: Reply) -> bool:
        path = urlsplit(reply.path)
        if reply.command == "HEAD":
            reply.send(200 if path.path.rpartition("/")[2] in self.blobs else 404)
            return True
        if reply.command == "GET":
            self._say(reply)
            return True
        if reply.command == "POST":
            self.parts = {}
            reply.send(202, b"", {"location": "/v2/upload/0?state=a%3D"})
        elif reply.command == "PATCH":
            self._part(reply)
        elif path.path.startswith("/v2/upload/"):
            query = parse_qs(path.query)
            self.etag = query["etag"][0]
            assert query["state"] == ["a="]
            self.blobs[query["digest"][0]] = b"".join(self.parts[key] for key in sorted(self.parts))
            if self.finishes_unheard:
                self.finishes_unheard -= 1
                reply.drop()
            else:
                reply.send(201)
        else:
            self.manifest = _read(reply)
            reply.send(201)
        return True

    def _part(self, reply: Reply) -> None:
        first = int(reply.asked.headers["content-range"].partition("-")[0])
        with self.lock:
            dropping = self.drops > 0 and first >= self.drop_at
            self.drops -= dropping
        if dropping:
            came = reply.rfile.read(1000)
            if self.keeps:
                self.parts[first] = came
            reply.drop()
            return
        body = _read(reply)
        if self.refuses:
            reply.send(self.refuses, b"no")
            return
        following = f"/v2/upload/{first}?state=a%3D"
        if self.elsewhere:
            location = f"{self.elsewhere}/store/{first}"
            reply.send(307, b"", {"location": location, "docker-upload-location": following})
            return
        self.parts[first] = body
        reply.send(202, b"", {"location": following})

    def _say(self, reply: Reply) -> None:
        """How far an upload is, as OCI has it."""
        if self.forgets:
            reply.send(404)
        elif not self.keeps:
            reply.send(405)
        else:
            count = sum(map(len, self.parts.values()))
            where = {"location": "/v2/upload/9?state=a%3D", "range": f"0-{max(count - 1, 0)}"}
            reply.send(204, b"", where)


def _read(reply: Reply) -> bytes:
    return reply.rfile.read(int(reply.asked.headers["content-length"]))


@pytest.fixture
def uploads() -> Iterator[Uploads]:
    with running_origin() as origin:
        yield Uploads(origin)


def test_parts_and_their_checksums(tmp_path: Path, uploads: Uploads) -> None:
    here, name = store(tmp_path), f"{uploads.origin.host}/library/m"
    layer = made(here, name)
    push(here, name)
    assert uploads.blobs[layer.digest] == WEIGHTS
    sent = [asked for asked in uploads.origin.log if asked.method == "PATCH"]
    assert [asked.headers["content-range"] for asked in sent[:4]] == [
        "0-124999",
        "125000-249999",
        "250000-374999",
        "375000-499999",
    ]
    assert all(asked.headers["x-redirect-uploads"] == "1" for asked in sent)
    config = json.loads(uploads.manifest)["config"]["size"]
    assert uploads.etag.endswith("-1") and config
    sums = b"".join(hashlib.md5(WEIGHTS[at : at + 125_000]).digest() for at in range(0, 500_000, 125_000))
    finished = [parse_qs(urlsplit(asked.path).query) for asked in uploads.origin.log if asked.method == "PUT"]
    assert finished[0]["etag"] == [f"{hashlib.md5(sums).hexdigest()}-4"]
    assert finished[0]["digest"] == [layer.digest]


def _ranges(uploads: Uploads) -> list[str]:
    sent = [asked for asked in uploads.origin.log if asked.method == "PATCH"]
    return [asked.headers["content-range"] for asked in sent]


def _count(uploads: Uploads, method: str) -> int:
    return sum(asked.method == method for asked in uploads.origin.log)


def _push_broken(tmp_path: Path, uploads: Uploads) -> None:
    """A push of two blobs that arrives, and whose counts never go back."""
    here, name = store(tmp_path), f"{uploads.origin.host}/library/m"
    layer = made(here, name)
    counted = [step.completed for step in push(here, name) if step.digest == layer.digest]
    assert counted == sorted(counted) and uploads.blobs[layer.digest] == WEIGHTS


def test_a_part_that_breaks_off_goes_on_where_it_was(tmp_path: Path, uploads: Uploads) -> None:
    uploads.drops, uploads.drop_at, uploads.keeps = 2, 125_000, True
    _push_broken(tmp_path, uploads)
    assert _ranges(uploads)[:5] == [
        "0-124999",
        "125000-249999",
        "126000-249999",
        "127000-249999",
        "250000-374999",
    ]
    assert _count(uploads, "POST") == 2
    sums = b"".join(hashlib.md5(WEIGHTS[at : at + 125_000]).digest() for at in range(0, 500_000, 125_000))
    finished = [parse_qs(urlsplit(asked.path).query) for asked in uploads.origin.log if asked.method == "PUT"]
    assert finished[0]["etag"] == [f"{hashlib.md5(sums).hexdigest()}-4"]


def test_a_part_is_sent_again_where_the_registry_does_not_say_how_far_it_is(
    tmp_path: Path, uploads: Uploads
) -> None:
    uploads.drops, uploads.drop_at = 2, 125_000
    _push_broken(tmp_path, uploads)
    assert _ranges(uploads)[:5] == ["0-124999", *["125000-249999"] * 3, "250000-374999"]
    assert _count(uploads, "POST") == 2


def test_an_upload_that_the_registry_has_lost_begins_anew(tmp_path: Path, uploads: Uploads) -> None:
    uploads.drops, uploads.drop_at, uploads.forgets = 2, 125_000, True
    _push_broken(tmp_path, uploads)
    assert _ranges(uploads)[:6] == ["0-124999", "125000-249999"] * 2 + ["0-124999", "125000-249999"]
    assert _count(uploads, "POST") == 4


def test_a_last_reply_that_gets_lost_does_not_cost_the_upload(tmp_path: Path, uploads: Uploads) -> None:
    uploads.finishes_unheard = 1
    _push_broken(tmp_path, uploads)
    assert _count(uploads, "POST") == 2 and _count(uploads, "PUT") == 3


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


def test_tries_of_uploads_are_counted(tmp_path: Path, uploads: Uploads) -> None:
    here, name = store(tmp_path), f"{uploads.origin.host}/library/m"
    made(here, name)
    uploads.refuses = 503
    _, error = push_failing(here, name, insecure=True)
    assert isinstance(error, RemoteError) and error.message == "max retries exceeded: 503: no"
    assert not uploads.manifest


def test_a_refusal(tmp_path: Path, uploads: Uploads) -> None:
    here, name = store(tmp_path), f"{uploads.origin.host}/library/m"
    made(here, name)
    uploads.refuses = 403
    _, error = push_failing(here, name, insecure=True)
    assert isinstance(error, Forbidden) and error.message == "access denied: 403: no"


def test_a_store_that_the_registry_names_learns_nothing(tmp_path: Path, uploads: Uploads) -> None:
    with running_origin() as other:
        stored: dict[str, bytes] = {}

        def take(reply: Reply) -> bool:
            stored[reply.path] = _read(reply)
            reply.send(200)
            return True

        other.faults.append(take)
        uploads.elsewhere = other.url
        here, name = store(tmp_path), f"{uploads.origin.host}/library/m"
        made(here, name)
        push(here, name)
        assert (
            b"".join(stored[f"/store/{at}"] for at in range(125_000, 500_000, 125_000)) == WEIGHTS[125_000:]
        )
        assert {asked.method for asked in other.log} == {"PUT"}
        assert not any("authorization" in asked.headers for asked in other.log)


def test_a_registry_outside_cannot_send_bytes_inside(
    tmp_path: Path, uploads: Uploads, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside, address = peers._is_inside, uploads.origin.address
    monkeypatch.setattr(
        peers,
        "_is_inside",
        lambda stream: stream.get_extra_info("server_addr") != address and inside(stream),
    )
    with running_origin() as other:
        uploads.elsewhere = other.url
        here, name = store(tmp_path), f"{uploads.origin.host}/library/m"
        made(here, name)
        _, error = push_failing(here, name, insecure=True)
    assert isinstance(error, RemoteError) and "not on the internet" in error.message
    assert other.log == []


def test_what_a_store_elsewhere_says_is_not_shown(tmp_path: Path, uploads: Uploads) -> None:
    def refuse(reply: Reply) -> bool:
        _read(reply)
        reply.send(400, b"what only insiders may see")
        return True

    with running_origin() as other:
        other.faults.append(refuse)
        uploads.elsewhere = other.url
        here, name = store(tmp_path), f"{uploads.origin.host}/library/m"
        made(here, name)
        _, error = push_failing(here, name, insecure=True)
    assert isinstance(error, RemoteError) and error.message == "400"


def test_leaving_a_push_ends_it(tmp_path: Path, uploads: Uploads) -> None:
    here, name = store(tmp_path), f"{uploads.origin.host}/library/m"
    made(here, name)

    async def leave(transfers: Any) -> None:
        async with aclosing(transfers.push(name, insecure=True)) as steps:
            async for step in steps:
                if step.digest:
                    return

    here.run(leave)
    assert not uploads.manifest


def test_a_model_that_is_removed_meanwhile_arrives(tmp_path: Path, uploads: Uploads) -> None:
    here, name = store(tmp_path), f"{uploads.origin.host}/library/m"
    layer = made(here, name)

    def removing(reply: Reply) -> bool:
        if reply.command == "POST" and here.catalog.manifests.locate(ModelName.parse(name)):
            here.catalog.delete(ModelName.parse(name))
        return False

    uploads.origin.faults.insert(0, removing)
    assert push(here, name)[-1].status == "success"
    assert uploads.blobs[layer.digest] == WEIGHTS and uploads.manifest
    assert not list((tmp_path / "corectl" / "holds").iterdir())


def test_a_store_that_cannot_be_written_to_is_pushed_from(tmp_path: Path, uploads: Uploads) -> None:
    here, name = store(tmp_path), f"{uploads.origin.host}/library/m"
    made(here, name)
    (tmp_path / "corectl").mkdir(exist_ok=True)
    (tmp_path / "corectl" / "holds").write_bytes(b"")
    assert push(here, name)[-1].status == "success"
