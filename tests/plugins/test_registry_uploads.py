"""Uploads in parts: what breaks off, what is refused, and where the bytes go."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from corectl.errors import Forbidden, RemoteError
from corectl.model.name import ModelName
from corectl.transfer import peers
from tests.core.transfer_kit import (
    Reply,
    running_origin,
)
from tests.plugins.push_kit import WEIGHTS, Uploads, made, push, push_failing, read_body, store


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


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
            stored[reply.path] = read_body(reply)
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
        read_body(reply)
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
