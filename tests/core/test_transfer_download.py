"""One blob, and everything that can go wrong on its way."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import aclosing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import msgspec
import pytest

from corectl.errors import CorectlError, NotFound, RemoteError
from corectl.model.manifest import Layer, MediaType
from corectl.model.name import ModelName
from corectl.registry.remote import Location
from corectl.transfer import download, peers
from corectl.transfer.following import next_location, opened
from corectl.transfer.parts import Notes, Part, front_of, next_run, plan, span_of
from corectl.transfer.room import MARGIN
from corectl.transfer.rules import MB, Rules
from tests.core.transfer_kit import (
    QUICK,
    Asked,
    FakeOrigin,
    FakeRegistry,
    Puller,
    Reply,
    failure_of,
    random_bytes,
    running_origin,
    steps_of,
)

DATA = random_bytes(500_000)
"""Four parts."""


@pytest.fixture
def origin() -> Iterator[FakeOrigin]:
    with running_origin() as origin:
        yield origin


@pytest.fixture
def registry(origin: FakeOrigin) -> FakeRegistry:
    return FakeRegistry(origin)


@pytest.fixture
def puller(tmp_path: Path, registry: FakeRegistry) -> Puller:
    return Puller(tmp_path, registry)


@pytest.fixture
def layer(origin: FakeOrigin) -> Layer:
    layer = origin.add(DATA)
    origin.publish(layer)
    return layer


def once(fault: Callable[[Reply], bool], layer: Layer, *, times: int = 1) -> Callable[[Reply], bool]:
    """A fault in the first requests for a blob only."""
    left = [times]
    lock = threading.Lock()

    def maybe(reply: Reply) -> bool:
        with lock:
            if not reply.asked.path.endswith(layer.digest) or not left[0]:
                return False
            left[0] -= 1
        return fault(reply)

    return maybe


def half(reply: Reply) -> bool:
    """Half of what was asked for, and then nothing more."""
    first, last = reply.asked.range or (0, len(DATA) - 1)
    status = 206 if reply.asked.range else 200
    body = DATA[first : last + 1]
    headers = {"content-length": str(len(body)), "content-range": f"bytes {first}-{last}/{len(DATA)}"}
    reply.head(status, headers)
    reply.wfile.write(body[: len(body) // 2])
    reply.drop()
    return True


def check(puller: Puller, layer: Layer) -> None:
    """The pull succeeds, says nothing twice, and leaves nothing about."""
    steps = [step.completed for step in puller.pull() if step.digest == layer.digest]
    assert steps == sorted(steps) and steps[-1] == layer.size
    assert puller.path(layer).read_bytes() == DATA
    assert puller.leftovers() == []


def ranges(asked: list[Asked]) -> list[tuple[int, int]]:
    return sorted(item.range for item in asked if item.range)


def test_parts_are_those_of_the_layout() -> None:
    assert [part.size for part in plan(250 * MB, Rules())] == [100 * MB, 100 * MB, 50 * MB]
    assert Counter(part.size for part in plan(16_000 * MB, Rules())) == {1000 * MB: 16}
    assert {part.size for part in plan(40_000 * MB, Rules())} == {1000 * MB}
    assert [part.size for part in plan(3200 * MB, Rules())] == [200 * MB] * 16
    assert plan(0, Rules()) == []


def test_the_front_is_where_the_first_gap_begins() -> None:
    parts = [Part(0, 0, 10, 10), Part(1, 10, 10, 3), Part(2, 20, 5, 5)]
    assert front_of(parts) == 13
    parts[1].completed = 10
    assert front_of(parts) == 25


def test_each_byte_is_asked_for_once(origin: FakeOrigin, puller: Puller, layer: Layer) -> None:
    check(puller, layer)
    asked = ranges(origin.blob_requests(layer))
    assert [first for first, _ in asked] == [part.offset for part in plan(len(DATA), QUICK)]
    assert sum(last - first + 1 for first, last in asked) == len(DATA)


ONE_CONNECTION = msgspec.structs.replace(QUICK, ramp=60.0, request=1000.0)


def test_one_request_is_for_several_parts_where_one_connection_is_enough(
    origin: FakeOrigin, registry: FakeRegistry, layer: Layer, tmp_path: Path
) -> None:
    check(Puller(tmp_path, registry, rules=ONE_CONNECTION), layer)
    first, *rest = plan(len(DATA), QUICK)
    span = (rest[0].offset, rest[-1].end - 1)
    assert ranges(origin.blob_requests(layer)) == [(first.offset, first.end - 1), span]


def test_several_parts_that_break_off_go_on_where_they_were(
    origin: FakeOrigin, registry: FakeRegistry, layer: Layer, tmp_path: Path
) -> None:
    broken: list[tuple[int, int]] = []

    def breaks(reply: Reply) -> bool:
        wanted = reply.asked.range
        if broken or wanted is None or wanted[0] == 0:
            return False
        broken.append(wanted)
        return half(reply)

    origin.faults.append(breaks)
    check(Puller(tmp_path, registry, rules=ONE_CONNECTION), layer)
    # In the middle of the second of three parts.
    asked = [(0, 124_999), (125_000, 499_999), (312_500, 499_999)]
    assert ranges(origin.blob_requests(layer)) == asked


def test_parts_that_follow_each_other() -> None:
    parts = [Part(0, 0, 10, 4), Part(1, 10, 10), Part(2, 20, 10), Part(3, 30, 10, 1), Part(4, 40, 5)]
    waiting = deque(parts)
    assert next_run(waiting, 0) == parts[:1]
    assert next_run(waiting, 20) == parts[1:3]
    # What is there of the next one already is not asked for again.
    assert next_run(waiting, 1000) == parts[3:]
    assert span_of(parts[:2]) == Part(0, 4, 16)
    assert next_run(deque(parts[2:]), 1000) == parts[2:3]


def test_a_part_that_breaks_off_goes_on_where_it_was(
    origin: FakeOrigin, puller: Puller, layer: Layer
) -> None:
    origin.faults.append(once(half, layer, times=3))
    check(puller, layer)
    asked = ranges(origin.blob_requests(layer))
    starts = {part.offset for part in plan(len(DATA), QUICK)}
    assert len([first for first, _ in asked if first not in starts]) == 3
    assert len({first for first, _ in asked}) == len(asked)


def test_a_server_without_ranges(origin: FakeOrigin, puller: Puller, layer: Layer) -> None:
    def whole(reply: Reply) -> bool:
        if not reply.asked.path.endswith(layer.digest):
            return False
        reply.send(200, DATA)
        return True

    origin.faults.append(whole)
    check(puller, layer)
    assert origin.blob_requests(layer)[-1].range is None


def test_a_server_without_ranges_that_breaks_off(origin: FakeOrigin, puller: Puller, layer: Layer) -> None:
    def whole(reply: Reply) -> bool:
        if not reply.asked.path.endswith(layer.digest):
            return False
        reply.head(200, {"content-length": str(len(DATA))})
        whole_replies = len([asked for asked in origin.blob_requests(layer) if asked.range is None])
        reply.wfile.write(DATA[: whole_replies * len(DATA) // 3])
        if whole_replies < 3:
            reply.drop()
        return True

    origin.faults.append(whole)
    check(puller, layer)


def test_a_range_that_cannot_be_satisfied(origin: FakeOrigin, puller: Puller, layer: Layer) -> None:
    def refuses_ranges(reply: Reply) -> bool:
        if reply.asked.range is None:
            return False
        reply.send(416)
        return True

    origin.faults.append(refuses_ranges)
    check(puller, layer)


def lying(**headers: str) -> Callable[[Reply], bool]:
    def fault(reply: Reply) -> bool:
        if not reply.asked.path.startswith("/blobs/sha256") or reply.asked.range is None:
            return False
        first, last = reply.asked.range
        good = {"content_range": f"bytes {first}-{last}/{len(DATA)}", "content_length": str(last - first + 1)}
        reply.head(206, {name.replace("_", "-"): value for name, value in (good | headers).items()})
        reply.wfile.write(DATA[first : last + 1])
        reply.drop()
        return True

    return fault


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        (lying(content_range=""), "another range"),
        (lying(content_range="bytes 1-2/500000"), "another range"),
        (lying(content_range="items 0-65535/500000"), "another range"),
        (lying(content_range="bytes 0-65535/500001"), "500001 bytes for a blob that has 500000"),
        (lying(content_length="17"), "a part of 17 bytes came"),
        (lying(content_encoding="gzip"), "compressed body"),
    ],
)
def test_lies_about_ranges(
    origin: FakeOrigin, puller: Puller, layer: Layer, fault: Callable[[Reply], bool], says: str
) -> None:
    origin.faults.append(fault)
    _, error = failure_of(puller)
    assert isinstance(error, RemoteError) and says in error.message
    assert not puller.path(layer).exists()


def test_a_blob_of_another_length(origin: FakeOrigin, puller: Puller) -> None:
    small = origin.add(b"small")
    origin.publish(msgspec.structs.replace(small, size=4))
    _, error = failure_of(puller)
    assert isinstance(error, RemoteError)
    assert error.message == "the registry has 5 bytes for a blob that has 4 in the manifest"


def test_a_body_without_end_is_left_where_the_blob_ends(
    origin: FakeOrigin, puller: Puller, layer: Layer
) -> None:
    sent = 0

    def endless(reply: Reply) -> bool:
        nonlocal sent
        if reply.asked.path != f"/blobs/{layer.digest}":
            return False
        if reply.asked.range is not None:
            reply.send(200)
            return True
        reply.head(200, {"transfer-encoding": "chunked"})
        position = 0
        while True:
            piece = DATA[position : position + 0x4000] or bytes(0x4000)
            reply.wfile.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
            position, sent = position + len(piece), sent + len(piece)

    origin.faults.append(endless)
    check(puller, layer)
    assert sent < 64 * MB


def test_a_part_that_stalls_is_asked_for_again_and_that_is_no_try(
    origin: FakeOrigin, registry: FakeRegistry, layer: Layer, tmp_path: Path
) -> None:
    released = threading.Event()

    def stall(reply: Reply) -> bool:
        first, last = reply.asked.range or (0, 0)
        reply.head(
            206,
            {
                "content-length": str(last - first + 1),
                "content-range": f"bytes {first}-{last}/{len(DATA)}",
            },
        )
        reply.wfile.write(DATA[first : first + 1000])
        reply.wfile.flush()
        released.wait(30)
        reply.drop()
        return True

    origin.faults.append(once(stall, layer, times=2))
    puller = Puller(tmp_path, registry, rules=msgspec.structs.replace(QUICK, tries=1))
    try:
        check(puller, layer)
    finally:
        released.set()
    starts = {part.offset for part in plan(len(DATA), QUICK)}
    again = {first for first, _ in ranges(origin.blob_requests(layer))} - starts
    assert again and again <= {start + came for start in starts for came in (1000, 2000)}


def test_a_server_that_never_says_anything(
    origin: FakeOrigin, registry: FakeRegistry, layer: Layer, tmp_path: Path
) -> None:
    released = threading.Event()

    def silent(reply: Reply) -> bool:
        if reply.asked.path.startswith("/blobs/"):
            released.wait(30)
        return reply.asked.path.startswith("/blobs/")

    origin.faults.append(silent)
    rules = msgspec.structs.replace(QUICK, stall=0.05, tries=1, parts=1)
    _, error = failure_of(Puller(tmp_path, registry, rules=rules))
    released.set()
    assert isinstance(error, RemoteError) and error.message.startswith("max retries exceeded: Get ")


def test_tries_are_counted(origin: FakeOrigin, puller: Puller, layer: Layer) -> None:
    def broken(reply: Reply) -> bool:
        if reply.asked.range is not None:
            reply.send(503, b"out of order")
        return reply.asked.range is not None

    origin.faults.append(broken)
    _, error = failure_of(puller)
    assert isinstance(error, RemoteError)
    assert error.message == "max retries exceeded: 503: out of order"
    by_part = Counter(first for first, _ in ranges(origin.blob_requests(layer)))
    assert max(by_part.values()) == QUICK.tries


def test_an_address_that_has_expired_is_asked_for_again(
    origin: FakeOrigin, registry: FakeRegistry, puller: Puller, layer: Layer
) -> None:
    def expired(reply: Reply) -> bool:
        reply.send(403, b"Request has expired")
        return True

    origin.faults.append(once(expired, layer, times=2))
    check(puller, layer)
    assert registry.located.count(layer.digest) in (2, 3)


def test_an_address_that_is_always_refused(origin: FakeOrigin, puller: Puller, layer: Layer) -> None:
    def refused(reply: Reply) -> bool:
        if reply.asked.range is not None:
            reply.send(403, b"no")
        return reply.asked.range is not None

    origin.faults.append(refused)
    _, error = failure_of(puller)
    assert isinstance(error, RemoteError) and error.message == "max retries exceeded: 403: no"


def test_a_registry_that_fails_when_it_is_asked_again(
    origin: FakeOrigin, registry: FakeRegistry, puller: Puller, layer: Layer
) -> None:
    registry.locating = [RemoteError("503: out of order"), RemoteError("429: slowly")]
    origin.faults.append(once(half, layer))
    check(puller, layer)
    assert not registry.locating


def test_a_registry_that_keeps_failing_when_it_is_asked_again(
    origin: FakeOrigin, registry: FakeRegistry, puller: Puller, layer: Layer
) -> None:
    registry.locating = [RemoteError("503: out of order")] * 1000
    origin.faults.append(once(half, layer, times=1000))
    _, error = failure_of(puller)
    assert isinstance(error, RemoteError) and error.message == "max retries exceeded: 503: out of order"


def test_a_registry_that_has_lost_the_blob_is_asked_no_more(
    origin: FakeOrigin, registry: FakeRegistry, puller: Puller, layer: Layer
) -> None:
    registry.locating = [NotFound("file does not exist")]
    origin.faults.append(once(half, layer, times=1000))
    _, error = failure_of(puller)
    assert isinstance(error, NotFound) and not registry.locating


def redirecting(target: str, layer: Layer) -> Callable[[Reply], bool]:
    def fault(reply: Reply) -> bool:
        if reply.asked.path != f"/blobs/{layer.digest}":
            return False
        headers = {"location": target, "set-cookie": "session=secret; Path=/"}
        reply.send(307, b"", headers)
        return True

    return fault


def test_credentials_stay_with_their_origin(origin: FakeOrigin, puller: Puller, layer: Layer) -> None:
    with running_origin() as other:
        other.content["/elsewhere"] = DATA
        origin.faults.append(redirecting(f"{other.url}/elsewhere", layer))
        check(puller, layer)
        assert {asked.path for asked in other.log} == {"/elsewhere"}
        for asked in other.log:
            assert "authorization" not in asked.headers and "cookie" not in asked.headers
        for asked in origin.blob_requests(layer):
            assert asked.headers["authorization"] == "Bearer secret" and "cookie" not in asked.headers


@pytest.fixture
def outside(origin: FakeOrigin, monkeypatch: pytest.MonkeyPatch) -> FakeOrigin:
    """The origin, as if its address were a public one."""
    inside = peers._is_inside

    def is_inside(stream: Any) -> bool:
        return stream.get_extra_info("server_addr") != origin.address and inside(stream)

    monkeypatch.setattr(peers, "_is_inside", is_inside)
    return origin


def test_a_registry_outside_cannot_lead_inside(outside: FakeOrigin, puller: Puller, layer: Layer) -> None:
    with running_origin() as other:
        other.content["/elsewhere"] = DATA
        outside.faults.append(redirecting(f"{other.url}/elsewhere", layer))
        _, error = failure_of(puller)
        assert isinstance(error, RemoteError)
        assert error.message == (
            f'a redirect leads to "{other.url}/elsewhere", which is not on the internet; it is not followed'
        )
        assert other.log == []


def test_nor_over_a_connection_that_is_there_already(outside: FakeOrigin) -> None:
    from corectl.transfer.client import ask, make_client

    def elsewhere(reply: Reply) -> bool:
        reply.send(302, b"", {"location": f"{other.url}/secret"})
        return True

    async def main() -> None:
        async with make_client() as http:
            await ask(http, "GET", f"{other.url}/secret")
            async with opened(http, Location(url=outside.url), {}, read_seconds=5):
                raise AssertionError

    with running_origin() as other:
        outside.faults.append(elsewhere)
        with pytest.raises(RemoteError, match="not on the internet"):
            asyncio.run(main())


@pytest.mark.parametrize("direct", [False, True])
def test_where_a_proxy_leads_is_for_the_proxy_to_judge(
    outside: FakeOrigin, monkeypatch: pytest.MonkeyPatch, direct: bool
) -> None:
    from corectl.transfer.client import make_client

    def elsewhere(reply: Reply) -> bool:
        if not reply.asked.path.endswith("/start"):
            return False
        host = outside.host if direct else "cdn.invalid"
        reply.send(302, b"", {"location": f"http://{host}/end"})
        return True

    async def main() -> bytes:
        async with (
            make_client() as http,
            opened(http, Location(url="http://registry.invalid/start"), {}, read_seconds=5) as response,
        ):
            return await response.aread()

    with running_origin() as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        proxy.faults.append(elsewhere)
        proxy.content["http://cdn.invalid/end"] = outside.content["/end"] = b"there"
        assert asyncio.run(main()) == b"there"


@pytest.mark.parametrize(
    ("address", "inside"),
    [
        ("127.0.0.1", True),
        ("10.1.2.3", True),
        ("172.16.0.1", True),
        ("192.168.1.1", True),
        ("169.254.169.254", True),
        ("100.64.0.1", True),
        ("0.0.0.0", True),
        ("::1", True),
        ("fe80::1%eth0", True),
        ("fd00::1", True),
        ("::ffff:127.0.0.1", True),
        ("::ffff:8.8.8.8", False),
        ("8.8.8.8", False),
        ("2606:4700::1111", False),
    ],
)
def test_which_addresses_are_inside(address: str, inside: bool) -> None:
    class Stream:
        def get_extra_info(self, name: str) -> Any:
            return (address, 443) if name == "server_addr" else None

    assert peers._is_inside(Stream()) is inside


def test_the_client_tells_which_connections_are_direct(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is asked in a way that the library does not promise to keep."""
    from corectl.transfer.client import make_client

    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "near.example")

    async def main() -> list[bool]:
        async with make_client() as http:
            watching = peers.Peers(http)
            urls = ("https://far.example", "https://near.example", "http://far.example")
            return [watching._is_direct(httpx.URL(url)) for url in urls]

    assert asyncio.run(main()) == [False, True, True]


def test_errors_are_told_in_words_of_the_registry_only(
    origin: FakeOrigin, puller: Puller, layer: Layer
) -> None:
    def says(reply: Reply) -> bool:
        reply.send(400, b"secret of another host")
        return True

    with running_origin() as other:
        other.faults.append(says)
        origin.faults.append(redirecting(f"{other.url}/elsewhere?signature=x", layer))
        _, error = failure_of(puller)
        assert isinstance(error, RemoteError)
        assert error.message == f'status 400 from "{other.url}/elsewhere"'


def test_a_redirect_within_the_origin_keeps_them(origin: FakeOrigin, puller: Puller, layer: Layer) -> None:
    origin.content["/elsewhere"] = DATA
    origin.faults.append(redirecting("/elsewhere", layer))
    check(puller, layer)
    moved = [asked for asked in origin.log if asked.path == "/elsewhere"]
    assert moved and all(asked.headers["authorization"] == "Bearer secret" for asked in moved)


def test_a_circle_of_redirects(origin: FakeOrigin, puller: Puller, layer: Layer) -> None:
    origin.faults.append(redirecting(f"/blobs/{layer.digest}", layer))
    _, error = failure_of(puller)
    assert isinstance(error, RemoteError) and "redirects more than 10 times" in error.message


SECRET = {"authorization": "Bearer secret"}


@pytest.mark.parametrize(
    ("target", "keeps"),
    [
        ("https://registry.example/other", True),
        ("https://REGISTRY.example:443/other", True),
        ("other", True),
        ("//registry.example/other", True),
        ("https://registry.example:8443/other", False),
        ("https://cdn.example/other", False),
        ("https://registry.example.evil.example/", False),
        ("https://registry.example@evil.example/", None),
        ("http://registry.example/other", None),
        ("http://cdn.example/other", None),
        ("ftp://registry.example/other", None),
        ("file:///etc/passwd", None),
        ("https://[::1", None),
    ],
)
def test_where_redirects_may_lead(target: str, keeps: bool | None) -> None:
    here = Location(url="https://registry.example/blob", headers=SECRET)
    if keeps is None:
        with pytest.raises(RemoteError):
            next_location(here, target, allow_http=False)
    else:
        assert bool(next_location(here, target, allow_http=False).headers) is keeps


def test_headers_that_were_left_behind_do_not_come_back() -> None:
    here = Location(url="https://registry.example/blob", headers=SECRET)
    there = next_location(here, "https://cdn.example/", allow_http=False)
    assert not next_location(there, "https://registry.example/blob", allow_http=False).headers


def test_an_insecure_registry_may_lead_to_an_insecure_store() -> None:
    here = Location(url="http://registry.example/blob", headers=SECRET)
    assert not next_location(here, "http://cdn.example/", allow_http=True).headers
    # The same host without encryption is another origin than with it.
    assert not next_location(here, "https://registry.example/", allow_http=True).headers


@pytest.mark.parametrize("length", [True, False])
@pytest.mark.parametrize("data", [b"", b"small", DATA])
def test_sizes_that_nobody_knows(origin: FakeOrigin, puller: Puller, data: bytes, length: bool) -> None:
    layer = origin.add(data)
    origin.publish(msgspec.structs.replace(layer, size=0))

    def chunked(reply: Reply) -> bool:
        if reply.asked.path != f"/blobs/{layer.digest}":
            return False
        reply.head(200, {"transfer-encoding": "chunked"})
        if data:
            reply.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        reply.wfile.write(b"0\r\n\r\n")
        return True

    if not length:
        origin.faults.append(chunked)
    steps = [step for step in puller.pull() if step.digest == layer.digest]
    assert steps[-1].completed == len(data)
    assert puller.path(layer).read_bytes() == data and puller.leftovers() == []


def test_a_size_that_only_the_server_says_is_compared_with_the_disk(
    origin: FakeOrigin, puller: Puller, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer = origin.add(DATA)
    origin.publish(msgspec.structs.replace(layer, size=0))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=MARGIN + len(DATA) - 1))
    _, error = failure_of(puller)
    assert isinstance(error, CorectlError) and error.status == 507
    assert "a blob of 500000 bytes needs 0.0 GB more" in error.message
    assert len(origin.blob_requests(layer)) == 1


def test_a_body_of_a_size_that_nobody_says_has_an_end(
    origin: FakeOrigin, puller: Puller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "MAX_UNTOLD", 2**20)
    layer = origin.add(DATA)
    origin.publish(msgspec.structs.replace(layer, size=0))
    sent = 0

    def endless(reply: Reply) -> bool:
        nonlocal sent
        if reply.asked.path != f"/blobs/{layer.digest}":
            return False
        reply.head(200, {"transfer-encoding": "chunked"})
        while sent < 64 * MB:
            reply.wfile.write(b"10000\r\n" + bytes(0x10000) + b"\r\n")
            sent += 0x10000
        reply.wfile.write(b"0\r\n\r\n")
        return True

    origin.faults.append(endless)
    _, error = failure_of(puller)
    assert isinstance(error, RemoteError)
    assert error.message == "the registry sends 1048576 bytes or more, and has not said how many"
    assert sent < 64 * MB and not puller.path(layer).exists()
    leftover = puller.path(layer).with_name(f"{puller.path(layer).name}-partial")
    assert leftover.stat().st_size <= 2**20


def test_notes_are_such_as_others_write(tmp_path: Path) -> None:
    partial = tmp_path / "sha256-ab-partial"
    notes = Notes(partial)
    parts = [Part(0, 0, 100, 100), Part(1, 100, 50, 0)]
    notes.write([(parts[0], 100), (parts[1], 7)])
    assert json.loads((tmp_path / "sha256-ab-partial-1").read_bytes()) == {
        "N": 1,
        "Offset": 100,
        "Size": 50,
        "Completed": 7,
    }
    # As Go writes them.
    (tmp_path / "sha256-ab-partial-1").write_text('{"N":1,"Offset":100,"Size":50,"Completed":33}\n')
    assert Notes(partial).read(150) == [Part(0, 0, 100, 100), Part(1, 100, 50, 33)]
    assert Notes(partial).read(151) is None
    for bad in ("", "{", '{"N":1,"Offset":100,"Size":50,"Completed":51}', '{"N":1,"Offset":99,"Size":51}'):
        (tmp_path / "sha256-ab-partial-1").write_text(bad)
        assert Notes(partial).read(150) is None
    notes.remove()
    assert list(tmp_path.iterdir()) == []


def test_what_another_program_has_fetched_is_used(origin: FakeOrigin, puller: Puller, layer: Layer) -> None:
    """Parts of other sizes, with notes as Ollama writes them."""
    puller.blobs.mkdir()
    partial = puller.blobs / f"{layer.digest.replace(':', '-')}-partial"
    partial.write_bytes(DATA[:200_000] + bytes(300_000))
    for n, (offset, size, completed) in enumerate([(0, 300_000, 200_000), (300_000, 200_000, 0)]):
        note = {"N": n, "Offset": offset, "Size": size, "Completed": completed}
        Path(f"{partial}-{n}").write_text(json.dumps(note) + "\n")
    check(puller, layer)
    assert ranges(origin.blob_requests(layer)) == [(200_000, 299_999), (300_000, 499_999)]


@pytest.mark.skipif(not hasattr(os, "SEEK_HOLE"), reason="the system does not say where holes are")
def test_notes_are_not_believed_where_there_are_no_bytes(
    origin: FakeOrigin, puller: Puller, layer: Layer
) -> None:
    """After a power failure the notes may be there and the bytes not."""
    puller.blobs.mkdir()
    partial = puller.blobs / f"{layer.digest.replace(':', '-')}-partial"
    with partial.open("wb") as file:
        file.write(DATA[:65536])
        file.truncate(len(DATA))
    note = {"N": 0, "Offset": 0, "Size": len(DATA), "Completed": 400_000}
    Path(f"{partial}-0").write_text(json.dumps(note))
    check(puller, layer)
    assert min(ranges(origin.blob_requests(layer)))[0] <= 65536


def test_bytes_that_were_changed_on_the_disk_are_noticed(
    origin: FakeOrigin, puller: Puller, layer: Layer
) -> None:
    puller.blobs.mkdir()
    partial = puller.blobs / f"{layer.digest.replace(':', '-')}-partial"
    partial.write_bytes(b"x" * len(DATA))
    note = {"N": 0, "Offset": 0, "Size": len(DATA), "Completed": 400_000}
    Path(f"{partial}-0").write_text(json.dumps(note))
    _, error = failure_of(puller)
    assert isinstance(error, RemoteError) and error.message.startswith("digest mismatch")
    assert puller.leftovers() == []
    check(puller, layer)


def slowly(layer: Layer, seconds: float = 0.3) -> Callable[[Reply], bool]:
    def fault(reply: Reply) -> bool:
        if reply.asked.path == f"/blobs/{layer.digest}":
            time.sleep(seconds)
        return False

    return fault


def test_two_who_want_the_same_share_a_download(origin: FakeOrigin, puller: Puller, layer: Layer) -> None:
    origin.publish(layer, origin.add(b"x", MediaType.TEMPLATE), name="other")
    origin.faults.append(slowly(layer, 0.05))

    async def both(transfers: Any) -> Any:
        return await asyncio.gather(steps_of(transfers.pull("m")), steps_of(transfers.pull("other")))

    for steps in puller.run(both):
        assert [step.completed for step in steps if step.digest == layer.digest][-1] == layer.size
    asked = ranges(origin.blob_requests(layer))
    assert sum(last - first + 1 for first, last in asked) == len(DATA)
    assert puller.catalog.find(ModelName.parse("m")) and puller.catalog.find(ModelName.parse("other"))


def test_one_who_leaves_does_not_take_it_from_the_others(
    origin: FakeOrigin, puller: Puller, layer: Layer
) -> None:
    origin.faults.append(slowly(layer, 0.1))

    async def work(transfers: Any) -> Any:
        async with aclosing(transfers.pull("m")) as first:
            async for step in first:
                if step.digest == layer.digest:
                    second = asyncio.create_task(steps_of(transfers.pull("m")))
                    await asyncio.sleep(0.15)
                    break
        return await second

    assert puller.run(work)[-1].status == "success"
    asked = ranges(origin.blob_requests(layer))
    assert len({first for first, _ in asked}) == len(asked)


def test_a_registry_that_fails_does_not_fail_others(tmp_path: Path) -> None:
    """Two pulls of one digest, from two registries: the one that began it lies."""
    with running_origin() as good, running_origin() as bad:
        layer = good.add(DATA)
        good.publish(layer)
        bad.add(DATA)
        bad.content[f"/blobs/{layer.digest}"] = DATA[::-1]
        bad.publish(layer)
        bad.faults.append(slowly(layer, 0.05))
        puller = Puller(
            tmp_path,
            FakeRegistry(bad, name="bad", hosts=("bad.example",)),
            FakeRegistry(good, name="good", hosts=("good.example",)),
        )

        async def work(transfers: Any) -> Any:
            first = asyncio.create_task(steps_of(transfers.pull("bad.example/n/m")))
            while not bad.blob_requests(layer):  # noqa: ASYNC110 - another thread serves them
                await asyncio.sleep(0.005)
            second = asyncio.create_task(steps_of(transfers.pull("good.example/n/m")))
            return await asyncio.gather(first, second, return_exceptions=True)

        lied, steps = puller.run(work)
        assert isinstance(lied, RemoteError) and lied.message.startswith("digest mismatch")
        assert steps[-1].status == "success"
        assert puller.path(layer).read_bytes() == DATA


def test_another_process_that_fetches_the_same_is_waited_for(puller: Puller, layer: Layer) -> None:
    puller.blobs.mkdir()
    blob = puller.path(layer)
    partial = blob.with_name(f"{blob.name}-partial")
    partial.write_bytes(DATA)
    descriptor = os.open(partial, os.O_RDWR)
    fcntl.flock(descriptor, fcntl.LOCK_EX)

    def finish() -> None:
        partial.rename(blob)
        os.close(descriptor)

    threading.Timer(0.3, finish).start()
    steps = [step for step in puller.pull() if step.digest == layer.digest]
    assert steps[-1].completed == len(DATA)
    assert puller.leftovers() == []


CHILD = """
import asyncio, sys
from pathlib import Path
from tests.core.transfer_kit import FakeRegistry, Puller

class Elsewhere:
    url = sys.argv[2]

async def work(transfers):
    async for step in transfers.pull("m"):
        if step.completed:
            print(step.completed, flush=True)

Puller(Path(sys.argv[1]), FakeRegistry(Elsewhere())).run(work)
"""


@pytest.mark.parametrize("after", [1, 4, 9])
def test_a_server_that_is_killed_goes_on_where_it_was(
    origin: FakeOrigin, puller: Puller, layer: Layer, tmp_path: Path, after: int
) -> None:
    def trickle(reply: Reply) -> bool:
        """In small pieces, so that there is something to kill."""
        if (wanted := reply.asked.range) is None:
            return False
        first, last = wanted
        headers = {
            "content-length": str(last - first + 1),
            "content-range": f"bytes {first}-{last}/{len(DATA)}",
        }
        reply.head(206, headers)
        for position in range(first, last + 1, 2**14):
            reply.wfile.write(DATA[position : min(position + 2**14, last + 1)])
            reply.wfile.flush()
            time.sleep(0.02)
        return True

    origin.faults.append(trickle)
    command = [sys.executable, "-c", CHILD, str(tmp_path), origin.url]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    reached = [int(child.stdout.readline() or 0) for _ in range(after)]
    child.kill()
    # What was said before it died counts as well.
    reached += [int(line) for line in child.stdout.read().split()]
    child.wait()
    child.stdout.close()
    assert reached[0] and max(reached) < len(DATA)

    origin.faults.clear()
    before = len(origin.blob_requests(layer))
    steps = [step.completed for step in puller.pull() if step.digest == layer.digest]
    assert steps[1] >= max(reached)
    fetched = ranges(origin.blob_requests(layer)[before:])
    assert sum(last - first + 1 for first, last in fetched) <= len(DATA) - max(reached)
    assert puller.path(layer).read_bytes() == DATA and puller.leftovers() == []


def test_the_client_follows_nothing_by_itself(origin: FakeOrigin) -> None:
    from corectl.transfer.client import ask, make_client

    async def main() -> int:
        async with make_client() as http:
            return (await ask(http, "GET", f"{origin.url}/r")).status

    def elsewhere(reply: Reply) -> bool:
        reply.send(302, b"", {"location": "/x"})
        return True

    origin.faults.append(elsewhere)
    assert asyncio.run(main()) == 302
    assert [asked.path for asked in origin.log] == ["/r"]


def test_proxies_of_the_environment(origin: FakeOrigin, monkeypatch: pytest.MonkeyPatch) -> None:
    from corectl.transfer.client import ask, make_client

    monkeypatch.setenv("HTTP_PROXY", origin.url)
    monkeypatch.setenv("NO_PROXY", "direct.invalid")

    async def main(url: str) -> None:
        async with make_client() as http:
            await ask(http, "GET", url)

    asyncio.run(main("http://registry.invalid/v2/"))
    assert origin.log[0].path == "http://registry.invalid/v2/"
    with pytest.raises(RemoteError):
        asyncio.run(main("http://direct.invalid/v2/"))
    assert len(origin.log) == 1


def test_httpx_has_what_makes_large_reads() -> None:
    """It is an attribute of a class of the library: if it goes, pulls become slow and nothing else says so."""
    import httpcore

    assert isinstance(httpcore.AsyncHTTP11Connection.READ_NUM_BYTES, int)
