"""One blob, and everything that can go wrong on its way."""

from __future__ import annotations

import shutil
import threading
from collections import Counter, deque
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest

from corectl.errors import CorectlError, NotFound, RemoteError
from corectl.model.manifest import Layer
from corectl.transfer import download
from corectl.transfer.parts import Part, front_of, next_run, plan, span_of
from corectl.transfer.room import MARGIN
from corectl.transfer.rules import MB, Rules
from tests.core.download_kit import DATA, check, half, once, ranges
from tests.core.transfer_kit import (
    QUICK,
    FakeOrigin,
    FakeRegistry,
    Puller,
    Reply,
    failure_of,
)


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
        reply.part(first, last, len(DATA))
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
