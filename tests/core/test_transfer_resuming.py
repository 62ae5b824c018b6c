"""Downloads that somebody has begun: before a crash, in another program, or at the same time."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from corectl.errors import RemoteError
from corectl.model.manifest import Layer, MediaType
from corectl.model.name import ModelName
from corectl.transfer.partial import PartialFile
from corectl.transfer.parts import Notes, Part
from tests.core.download_kit import DATA, check, ranges
from tests.core.transfer_kit import (
    FakeOrigin,
    FakeRegistry,
    Puller,
    Reply,
    failure_of,
    running_origin,
    steps_of,
)


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
    # A power failure may have taken bytes that were noted.
    notes.write([(parts[1], 40)])
    notes.write([(parts[1], 7)])
    assert Notes(partial).read(150) == [Part(0, 0, 100, 100), Part(1, 100, 50, 7)]
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


def test_one_who_leaves_at_once_does_not_keep_the_file(
    puller: Puller, layer: Layer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread that takes the file goes on when nobody waits for it any more."""
    begun, go_on = threading.Event(), threading.Event()
    take = PartialFile.open

    def slowly(file: PartialFile) -> bool:
        begun.set()
        go_on.wait(10)
        return take(file)

    async def work(transfers: Any) -> Any:
        monkeypatch.setattr(PartialFile, "open", slowly)
        first = asyncio.ensure_future(steps_of(transfers.pull("m")))
        await asyncio.to_thread(begun.wait, 10)
        first.cancel()
        await asyncio.sleep(0)
        go_on.set()
        await asyncio.gather(first, return_exceptions=True)
        return await asyncio.wait_for(steps_of(transfers.pull("m")), 30)

    assert puller.run(work)[-1].status == "success"
    assert puller.path(layer).read_bytes() == DATA


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
        reply.part(first, last, len(DATA))
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
