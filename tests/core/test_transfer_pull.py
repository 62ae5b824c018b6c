"""Pulling a model: its steps, what is refused, and what is left in the store."""

from __future__ import annotations

import asyncio
import errno
import json
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from corectl.errors import BadModelFile, BadRequest, CorectlError, NotFound, RemoteError, RemoteUnreachable
from corectl.model.manifest import MediaType
from corectl.model.name import ModelName
from corectl.progress import Progress
from corectl.store.blobs import BlobStore
from corectl.store.local_file import LocalFile
from corectl.transfer import pull
from corectl.transfer.partial import PartialFile
from tests.core.transfer_kit import (
    FakeOrigin,
    FakeRegistry,
    Puller,
    Reply,
    digest_of,
    failure_of,
    random_bytes,
    running_origin,
    steps_of,
)

WEIGHTS = random_bytes(300_000)
TEMPLATE = b"{{ .Prompt }}"


def statuses(steps: list[Progress]) -> list[str]:
    """Each status once, in order."""
    return list(dict.fromkeys(step.status for step in steps))


def test_a_pull_brings_the_exact_manifest_and_all_blobs(origin: FakeOrigin, puller: Puller) -> None:
    weights, template = origin.add(WEIGHTS), origin.add(TEMPLATE, MediaType.TEMPLATE)
    manifest = b" " + origin.publish(weights, template) + b"\n\n"
    origin.content["/manifests/m"] = manifest
    config = json.loads(manifest)["config"]["digest"]

    steps = puller.pull()

    assert statuses(steps) == [
        "pulling manifest",
        f"pulling {weights.digest[7:19]}",
        f"pulling {template.digest[7:19]}",
        f"pulling {config[7:19]}",
        "verifying sha256 digest",
        "writing manifest",
        "success",
    ]
    of_weights = [step for step in steps if step.digest == weights.digest]
    assert of_weights[0] == Progress(of_weights[0].status, weights.digest, len(WEIGHTS), 0)
    assert of_weights[-1].completed == of_weights[-1].total == len(WEIGHTS)
    assert [step.completed for step in of_weights] == sorted(step.completed for step in of_weights)
    stored = puller.catalog.manifests.read(ModelName.parse("m"))
    assert stored.data == manifest
    assert puller.path(weights).read_bytes() == WEIGHTS
    assert puller.path(template).read_bytes() == TEMPLATE
    assert puller.path(weights).stat().st_mode & 0o777 == 0o644
    assert puller.leftovers() == []


def test_what_is_there_is_not_fetched_again(origin: FakeOrigin, puller: Puller) -> None:
    weights = origin.add(WEIGHTS)
    origin.publish(weights)
    puller.pull()
    asked = len(origin.blob_requests(weights))
    steps = [step for step in puller.pull() if step.digest == weights.digest]
    assert steps == [Progress(f"pulling {weights.digest[7:19]}", weights.digest, len(WEIGHTS), len(WEIGHTS))]
    assert len(origin.blob_requests(weights)) == asked


def test_a_pull_takes_the_place_of_a_file_elsewhere_that_has_changed(
    origin: FakeOrigin, puller: Puller, tmp_path: Path
) -> None:
    weights = origin.add(WEIGHTS)
    origin.publish(weights)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_bytes(WEIGHTS)
    with LocalFile.open(elsewhere) as file:
        puller.catalog.blobs.refer(file, weights.digest)
    puller.pull()
    assert not origin.blob_requests(weights)
    elsewhere.write_bytes(b"other")
    puller.pull()
    assert not puller.path(weights).is_symlink() and puller.path(weights).read_bytes() == WEIGHTS
    assert elsewhere.read_bytes() == b"other" and puller.leftovers() == []


def test_layers_that_only_the_predecessor_needed_are_removed(origin: FakeOrigin, puller: Puller) -> None:
    old, new = origin.add(WEIGHTS), origin.add(WEIGHTS[::-1])
    origin.publish(old)
    puller.pull()
    origin.publish(new)
    assert statuses(puller.pull())[-3:] == ["writing manifest", "removing unused layers", "success"]
    assert not puller.path(old).exists()
    assert puller.path(new).read_bytes() == WEIGHTS[::-1]


def test_a_wrong_digest_leaves_nothing(origin: FakeOrigin, puller: Puller) -> None:
    layer = origin.add(WEIGHTS)
    wrong = random_bytes(len(WEIGHTS), seed=1)
    origin.content[f"/blobs/{layer.digest}"] = wrong
    origin.publish(layer)
    steps, error = failure_of(puller)
    assert isinstance(error, RemoteError)
    assert error.message == (
        f"digest mismatch, file must be downloaded again: want {layer.digest}, got {digest_of(wrong)}"
    )
    assert statuses(steps)[-1] == "verifying sha256 digest"
    assert puller.leftovers() == [] and not puller.path(layer).exists()
    assert puller.catalog.find(ModelName.parse("m")) is None


@pytest.mark.parametrize(
    ("text", "options", "kind", "message"),
    [
        ("nope", {}, NotFound, "pull model manifest: file does not exist"),
        ("bad", {}, BadModelFile, "pull model manifest: the manifest is damaged: "),
        ("a b", {}, BadRequest, "invalid model name"),
        ("http://h/n/m", {}, BadRequest, "insecure protocol http"),
        ("gpt-oss:120b-cloud", {}, BadRequest, "'gpt-oss:120b-cloud' runs in Ollama's cloud"),
        ("m:local:cloud", {}, BadRequest, "use either :local or :cloud"),
    ],
)
def test_errors(
    origin: FakeOrigin,
    puller: Puller,
    text: str,
    options: dict[str, Any],
    kind: type[CorectlError],
    message: str,
) -> None:
    origin.content["/manifests/bad"] = b'{"config": nonsense'
    _, error = failure_of(puller, text, **options)
    assert isinstance(error, kind)
    assert error.message.startswith(message)


def test_a_blob_that_the_registry_does_not_have(origin: FakeOrigin, puller: Puller) -> None:
    layer = origin.add(WEIGHTS)
    origin.publish(layer)
    del origin.content[f"/blobs/{layer.digest}"]
    _, error = failure_of(puller)
    assert isinstance(error, NotFound) and error.message == "file does not exist"


def test_nobody_listens(tmp_path: Path) -> None:
    with running_origin() as origin:
        puller = Puller(tmp_path, FakeRegistry(origin))
        url = origin.url
    _, error = failure_of(puller)
    assert isinstance(error, RemoteUnreachable)
    assert error.message == f'pull model manifest: Get "{url}/manifests/m": connection refused'


def test_blobs_that_need_no_download(
    origin: FakeOrigin, registry: FakeRegistry, puller: Puller, tmp_path: Path
) -> None:
    weights, template = origin.add(WEIGHTS), origin.add(TEMPLATE, MediaType.TEMPLATE)
    origin.publish(weights, template)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_bytes(WEIGHTS)
    registry.here = {weights.digest: elsewhere, template.digest: TEMPLATE}
    puller.pull()
    assert not origin.blob_requests(weights) and not origin.blob_requests(template)
    assert puller.path(weights).samefile(elsewhere) and puller.path(template).read_bytes() == TEMPLATE


def test_a_file_that_is_not_the_blob_is_fetched_after_all(
    origin: FakeOrigin, registry: FakeRegistry, puller: Puller, tmp_path: Path
) -> None:
    weights, template = origin.add(WEIGHTS), origin.add(TEMPLATE, MediaType.TEMPLATE)
    origin.publish(weights, template)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_bytes(WEIGHTS[::-1])
    registry.here = {weights.digest: elsewhere, template.digest: tmp_path / "gone"}
    puller.pull()
    assert puller.path(weights).read_bytes() == WEIGHTS and puller.path(template).read_bytes() == TEMPLATE


@pytest.mark.parametrize("while_copying", [False, True])
def test_a_server_that_ends_does_not_wait_for_a_file_to_be_read(
    origin: FakeOrigin,
    registry: FakeRegistry,
    puller: Puller,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    while_copying: bool,
) -> None:
    weights = origin.add(WEIGHTS)
    origin.publish(weights)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_bytes(WEIGHTS)
    registry.here = {weights.digest: elsewhere}
    reading, ended = threading.Event(), time.monotonic() + 30
    pieces = LocalFile.pieces

    def endless(file: LocalFile) -> Iterator[memoryview]:
        reading.set()
        while time.monotonic() < ended:
            time.sleep(0.01)
            yield memoryview(b"")

    def link(store: BlobStore, file: LocalFile, digest: str) -> None:
        monkeypatch.setattr(LocalFile, "pieces", endless)

    monkeypatch.setattr(BlobStore, "link", link)
    monkeypatch.setattr(LocalFile, "pieces", pieces if while_copying else endless)

    async def work(transfers: Any) -> None:
        pulling = asyncio.create_task(steps_of(transfers.pull("m")))
        await asyncio.to_thread(reading.wait, 30)
        await transfers.close()
        with pytest.raises(CorectlError, match="cancelled"):
            await pulling

    puller.run(work)
    assert time.monotonic() < ended - 10
    assert [path.name for path in puller.blobs.iterdir() if "tmp" in path.name] == []


def test_a_file_of_another_file_system_needs_room(
    origin: FakeOrigin,
    registry: FakeRegistry,
    puller: Puller,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    weights = origin.add(WEIGHTS)
    origin.publish(weights)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_bytes(WEIGHTS)
    registry.here = {weights.digest: elsewhere}
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=2**20 + len(WEIGHTS) - 1))
    monkeypatch.setattr(pull, "_device_of", lambda _: -1)
    _, error = failure_of(puller)
    assert isinstance(error, CorectlError) and error.status == 507
    monkeypatch.undo()
    steps = [step.completed for step in puller.pull() if step.digest == weights.digest]
    assert steps[0] == 0 and steps == sorted(steps) and not origin.blob_requests(weights)


def test_bytes_that_are_not_those_of_their_digest(
    origin: FakeOrigin, registry: FakeRegistry, puller: Puller
) -> None:
    template = origin.add(TEMPLATE, MediaType.TEMPLATE)
    origin.publish(template)
    registry.here = {template.digest: b"something else"}
    _, error = failure_of(puller)
    assert isinstance(error, RemoteError) and error.message.startswith("digest mismatch")
    assert not puller.path(template).exists()


def test_the_registry_with_the_host_is_asked(origin: FakeOrigin, tmp_path: Path) -> None:
    weights = origin.add(WEIGHTS)
    origin.publish(weights)
    with running_origin() as other:
        other.publish(other.add(TEMPLATE))
        puller = Puller(
            tmp_path, FakeRegistry(other, name="a"), FakeRegistry(origin, name="b", hosts=("HF.co",))
        )
        puller.pull("hf.co/n/m")
        assert puller.path(weights).exists() and not other.log
        puller.pull("h/n/m")
        assert other.log


def test_without_a_registry(tmp_path: Path) -> None:
    _, error = failure_of(Puller(tmp_path), "h/n/m")
    assert isinstance(error, BadRequest) and error.message.startswith("no plugin speaks to the registry h")


def test_room_on_the_disk_is_checked_before_the_first_byte(
    origin: FakeOrigin, puller: Puller, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = origin.add(WEIGHTS)
    origin.publish(weights)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(total=0, used=0, free=len(WEIGHTS)))
    _, error = failure_of(puller)
    assert isinstance(error, CorectlError) and error.status == 507
    assert error.message.startswith("not enough space for the model store: m:latest needs 0.0 GB more")
    assert not origin.blob_requests(weights)


def test_a_full_disk_ends_a_download_at_once(
    origin: FakeOrigin, puller: Puller, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = origin.add(WEIGHTS)
    origin.publish(weights)

    def full(*_: Any) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(PartialFile, "write", full)
        _, error = failure_of(puller)
    assert isinstance(error, OSError) and error.errno == errno.ENOSPC
    assert len(origin.blob_requests(weights)) <= 4
    puller.pull()
    assert puller.path(weights).read_bytes() == WEIGHTS


def test_who_asks(origin: FakeOrigin, puller: Puller) -> None:
    failure_of(puller)
    assert origin.log[0].headers["user-agent"].startswith("ollama/0.")
    assert "corectl/" in origin.log[0].headers["user-agent"]


def test_a_blob_that_another_program_removes_meanwhile_is_fetched_again(
    origin: FakeOrigin, puller: Puller, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = origin.add(WEIGHTS)
    origin.publish(weights)
    install = puller.catalog.install
    removed: list[ModelName] = []

    def interfering(name: ModelName, data: bytes) -> ModelName:
        if not removed:
            removed.append(name)
            puller.path(weights).unlink()
        return install(name, data)

    monkeypatch.setattr(puller.catalog, "install", interfering)
    assert puller.pull()[-1].status == "success"
    assert removed and puller.path(weights).read_bytes() == WEIGHTS


def test_blobs_of_a_running_pull_outlive_the_model_that_had_them(
    origin: FakeOrigin, puller: Puller, tmp_path: Path
) -> None:
    shared, new = origin.add(WEIGHTS), origin.add(WEIGHTS[::-1])
    origin.publish(shared, name="first")
    origin.publish(shared, new, name="second")
    puller.pull("first")

    asked = len(origin.blob_requests(shared))

    def delete(reply: Reply) -> bool:
        """While the second is under way, as another server on the same store would."""
        if reply.asked.path.endswith(new.digest):
            with suppress(NotFound):
                Puller(tmp_path).catalog.delete(ModelName.parse("first"))
        return False

    origin.faults.append(delete)
    puller.pull("second")
    assert puller.catalog.find(ModelName.parse("first")) is None
    assert puller.path(shared).read_bytes() == WEIGHTS
    assert len(origin.blob_requests(shared)) == asked


def test_leaving_a_pull_ends_it_and_keeps_what_has_come(origin: FakeOrigin, puller: Puller) -> None:
    weights = origin.add(WEIGHTS)
    origin.publish(weights)

    def slow(reply: Reply) -> bool:
        if (wanted := reply.asked.range) is None:
            return False
        data = WEIGHTS[wanted[0] : wanted[1] + 1]
        reply.part(*wanted, len(WEIGHTS))
        reply.wfile.write(data[: len(data) // 2])
        reply.wfile.flush()
        time.sleep(0.2)
        reply.wfile.write(data[len(data) // 2 :])
        return True

    origin.faults.append(slow)

    async def leave(transfers: Any) -> int:
        steps = transfers.pull("m")
        async for step in steps:
            if step.digest == weights.digest and step.completed:
                await steps.aclose()
                return int(step.completed)
        raise AssertionError

    reached = puller.run(leave)
    assert puller.leftovers()
    origin.faults.clear()
    before = len(origin.blob_requests(weights))
    first = next(step for step in puller.pull() if step.digest == weights.digest and step.completed)
    assert first.completed >= reached
    again = origin.blob_requests(weights)[before:]
    fetched = sum(asked.range[1] - asked.range[0] + 1 for asked in again if asked.range)
    assert fetched <= len(WEIGHTS) - reached
    assert puller.path(weights).read_bytes() == WEIGHTS


def test_a_plugin_that_fails(origin: FakeOrigin, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Failing(FakeRegistry):
        def session(self, *_: Any) -> Any:
            raise KeyError("oh")

    _, error = failure_of(Puller(tmp_path, Failing(origin)))
    assert isinstance(error, RemoteError) and "KeyError" in error.message
    assert "a transfer failed" in caplog.text


def test_a_closed_service_takes_no_more(origin: FakeOrigin, puller: Puller) -> None:
    origin.publish(origin.add(WEIGHTS))

    async def work(transfers: Any) -> None:
        await steps_of(transfers.pull("m"))
        await transfers.close()
        with pytest.raises(CorectlError, match="closing"):
            await steps_of(transfers.pull("m"))

    puller.run(work)
