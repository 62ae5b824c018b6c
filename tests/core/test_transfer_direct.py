"""Bodies that are taken straight from their connection, and those that are not."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from corectl.errors import RemoteError
from corectl.model.manifest import Layer
from corectl.transfer import direct, workers, writing
from corectl.transfer.partial import STEP, PartialFile
from corectl.transfer.parts import Part
from corectl.transfer.spread import Spread
from tests.core.download_kit import DATA
from tests.core.transfer_kit import (
    FIRST,
    QUICK,
    FakeOrigin,
    FakeRegistry,
    Puller,
    Reply,
    failure_of,
    random_bytes,
    running_origin,
)
from tests.registry.certificates import Authority

PATIENT = msgspec.structs.replace(QUICK, stall=60.0)


@pytest.fixture
def puller(tmp_path: Path, origin: FakeOrigin) -> Puller:
    return Puller(tmp_path / "store", FakeRegistry(origin), rules=PATIENT)


@pytest.fixture
def received(monkeypatch: pytest.MonkeyPatch) -> dict[int, int]:
    """How many bytes a thread was to receive, by the port of its connection."""
    counts: dict[int, int] = {}
    receive = direct.receive

    def noting(connection: Any, spread: Spread, count: int, *rest: Any) -> None:
        counts[connection.getsockname()[1]] = count
        receive(connection, spread, count, *rest)

    monkeypatch.setattr(writing, "receive", noting)
    return counts


def patient(received: dict[int, int]) -> Callable[[Reply], bool]:
    """Sends the beginning of each part, and the rest when a thread is there for it."""

    def fault(reply: Reply) -> bool:
        if (wanted := reply.asked.range) is None:
            return False
        first, last = wanted
        reply.part(first, last, len(DATA))
        reply.wfile.write(DATA[first : first + FIRST])
        reply.wfile.flush()
        until = time.monotonic() + 20
        while reply.client_address[1] not in received and time.monotonic() < until:
            time.sleep(0.002)
        reply.wfile.write(DATA[first + FIRST : last + 1])
        return True

    return fault


def check(puller: Puller, layer: Layer) -> None:
    assert puller.pull()[-1].status == "success"
    assert puller.path(layer).read_bytes() == DATA
    assert puller.leftovers() == []


def test_large_bodies_are_received_by_threads(
    origin: FakeOrigin, puller: Puller, layer: Layer, received: dict[int, int]
) -> None:
    """It needs what the libraries do not promise: if that goes, pulls become slow and nothing else says so."""
    origin.faults.append(patient(received))
    check(puller, layer)
    assert list(received.values()) == [len(DATA) // 4 - FIRST] * 4


def test_a_body_in_chunks_is_not(
    origin: FakeOrigin, puller: Puller, layer: Layer, received: dict[int, int]
) -> None:
    def chunked(reply: Reply) -> bool:
        if (wanted := reply.asked.range) is None:
            return False
        first, last = wanted
        content_range = f"bytes {first}-{last}/{len(DATA)}"
        reply.head(206, {"transfer-encoding": "chunked", "content-range": content_range})
        for position in range(first, last + 1, 10_000):
            piece = DATA[position : min(position + 10_000, last + 1)]
            reply.wfile.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
        reply.wfile.write(b"0\r\n\r\n")
        return True

    origin.faults.append(chunked)
    check(puller, layer)
    assert not received


def test_nor_is_an_encrypted_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, received: dict[int, int]
) -> None:
    authority = Authority(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    with running_origin(authority.context()) as origin:
        layer = origin.add(DATA)
        origin.publish(layer)
        check(Puller(tmp_path / "store", FakeRegistry(origin)), layer)
    assert not received


def test_without_a_free_thread_the_loop_receives(
    puller: Puller, layer: Layer, received: dict[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers.Workers, "free", False)
    check(puller, layer)
    assert not received


def test_threads_are_free_again(puller: Puller, layer: Layer, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[workers.Threads] = []

    class Noted(workers.Threads):
        def __init__(self) -> None:
            super().__init__()
            made.append(self)

    monkeypatch.setattr("corectl.transfer.sharing.Threads", Noted)
    check(puller, layer)
    assert [threads.free for threads in made] == [workers.BODIES]


@pytest.mark.parametrize("error", [OSError(9, "Bad file descriptor"), OSError(24, "Too many open files")])
def test_a_connection_that_cannot_be_had_once_more_is_left_to_the_loop(
    puller: Puller,
    layer: Layer,
    received: dict[int, int],
    monkeypatch: pytest.MonkeyPatch,
    error: OSError,
) -> None:
    def refuse(_: Any) -> Any:
        raise error

    monkeypatch.setattr(writing, "connection_of", refuse)
    check(puller, layer)
    assert not received


def test_a_thread_that_cannot_be_started_takes_no_place(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> list[str]:
        threads = workers.Threads()
        work, done = workers.Workers(threads), list[str]()

        def fail(*_: Any) -> Any:
            raise RuntimeError("can't start new thread")

        monkeypatch.setattr(threads.bodies, "submit", fail)
        for _ in range(2 * workers.BODIES):
            with pytest.raises(RuntimeError):
                work.start_body(lambda: done.append("never"))
        assert threads.free == workers.BODIES and work.free
        monkeypatch.undo()
        await work.start_body(lambda: done.append("now"))
        await work.settled()
        await asyncio.sleep(0)
        assert threads.free == workers.BODIES
        threads.close()
        return done

    assert asyncio.run(story()) == ["now"]


def test_without_a_thread_to_be_started_the_loop_receives(
    puller: Puller, layer: Layer, received: dict[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> Any:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(workers.Workers, "start_body", fail)
    check(puller, layer)
    assert not received


def test_what_breaks_meanwhile_goes_on_where_it_was(
    origin: FakeOrigin, puller: Puller, layer: Layer, received: dict[int, int]
) -> None:
    broken: list[int] = []

    def breaks(reply: Reply) -> bool:
        if (wanted := reply.asked.range) is None or wanted[0] in broken:
            return False
        first, last = wanted
        broken.append(first + 70_000)
        if last - first + 1 <= 70_000:
            return False
        reply.part(first, last, len(DATA))
        reply.wfile.write(DATA[first : first + FIRST])
        reply.wfile.flush()
        time.sleep(0.05)
        reply.wfile.write(DATA[first + FIRST : first + 70_000])
        reply.drop()
        return True

    origin.faults.append(breaks)
    check(puller, layer)
    asked = [item.range for item in origin.blob_requests(layer) if item.range]
    assert received and sum(last - first + 1 for first, last in asked) == len(DATA) + 4 * (125_000 - 70_000)


def stalling(released: threading.Event, came: int) -> Any:
    """Sends so much of each part, and then nothing until it is released."""

    def fault(reply: Reply) -> bool:
        if (wanted := reply.asked.range) is None:
            return False
        first, last = wanted
        reply.part(first, last, len(DATA))
        reply.wfile.write(DATA[first : first + came])
        reply.wfile.flush()
        released.wait(60)
        reply.drop()
        return True

    return fault


def test_who_leaves_does_not_wait_for_a_body_that_stalls(
    origin: FakeOrigin, puller: Puller, layer: Layer, received: dict[int, int]
) -> None:
    released = threading.Event()
    origin.faults.append(stalling(released, 40_000))

    async def leave(transfers: Any) -> float:
        async with aclosing(transfers.pull("m")) as steps:
            async for step in steps:
                if step.digest == layer.digest and step.completed >= 2**15:
                    break
            while not received:  # noqa: ASYNC110 - another thread receives
                await asyncio.sleep(0.005)
            left = time.monotonic()
        return time.monotonic() - left

    try:
        assert puller.run(leave) < 20
    finally:
        released.set()
    origin.faults.clear()
    before = len(origin.blob_requests(layer))
    check(puller, layer)
    firsts = [asked.range[0] for asked in origin.blob_requests(layer)[before:] if asked.range]
    # All 40,000 bytes of the first part were kept, not only whole pieces.
    assert min(firsts) == 40_000


def test_a_connection_that_ends_early_is_told_of(
    origin: FakeOrigin, layer: Layer, tmp_path: Path, received: dict[int, int]
) -> None:
    released = threading.Event()
    released.set()
    origin.faults.append(stalling(released, 0))
    rules = msgspec.structs.replace(QUICK, tries=2)
    _, error = failure_of(Puller(tmp_path / "store", FakeRegistry(origin), rules=rules))
    assert isinstance(error, RemoteError) and error.message.startswith("max retries exceeded: Get ")


@pytest.mark.parametrize("sizes", [[1], [STEP], [STEP + 1], [STEP - 1, 1, STEP, 7], [3 * STEP + 5, 0, 9], []])
def test_pieces_of_any_size_are_written(tmp_path: Path, sizes: list[int]) -> None:
    pieces = [random_bytes(size, seed) for seed, size in enumerate(sizes)]
    file = PartialFile(tmp_path / "blob")
    assert file.open()
    try:
        assert file.write(pieces, 11) == sum(sizes)
    finally:
        file.close()
    assert file.path.read_bytes()[11:] == b"".join(pieces)


@given(st.data())
def test_bytes_go_where_they_are_missing(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Whatever is there already, and in whatever pieces a body comes, also one that is longer than the blob."""
    sizes = data.draw(st.lists(st.integers(1, 50), min_size=1, max_size=6))
    parts, offset = [], 0
    for n, size in enumerate(sizes):
        parts.append(Part(n, offset, size, data.draw(st.integers(0, size))))
        offset += size
    content = random.Random(offset).randbytes(offset)
    body = content + bytes(data.draw(st.integers(0, 9)))
    file = PartialFile(tmp_path_factory.mktemp("blobs") / "blob")
    assert file.open()
    try:
        for part in parts:
            file.write([content[part.offset : part.front]], part.offset)
        spread = Spread(file, parts, 0)
        while body:
            cut = data.draw(st.lists(st.integers(1, 60), min_size=1, max_size=3))
            pieces = []
            for size in cut:
                pieces.append(memoryview(body[:size]))
                body = body[size:]
            before = sum(part.completed for part in parts)
            spread.put(pieces)
            assert sum(part.completed for part in parts) >= before
    finally:
        file.close()
    assert all(part.done for part in parts)
    assert file.path.read_bytes() == content
