"""The catalog: models over blobs and manifests."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from pathlib import Path

import pytest

from corectl.errors import BadModelFile, BadRequest, NotFound
from corectl.store.catalog import Catalog
from tests.core.store_kit import add, digest_of, manifest_bytes, name


def test_records_tell_what_the_manifest_says(tmp_path: Path) -> None:
    catalog = Catalog(tmp_path)
    add(catalog, "Foo", b"one", b"three")
    record = catalog.find(name("FOO"))
    assert record is not None
    stored = catalog.manifests.read(name("foo"))
    assert record.digest == hashlib.sha256(stored.data).hexdigest()
    assert record.size == 3 + 5 + stored.manifest.config.size
    assert record.licenses == ["one", "three"]
    assert record.config.model_family == "llama"
    assert catalog.find(name("nothing")) is None


def test_models_are_listed_newest_first(tmp_path: Path) -> None:
    catalog = Catalog(tmp_path)
    for age, model in enumerate(("new", "older", "oldest")):
        add(catalog, model, b"one")
        path = tmp_path / "manifests" / name(model).relative_path
        os.utime(path, (time.time() - age, time.time() - age))
    assert [record.name.model for record in catalog.list()] == ["new", "older", "oldest"]


def test_shared_blobs_stay_until_the_last_model_goes(tmp_path: Path) -> None:
    catalog = Catalog(tmp_path)
    add(catalog, "a", b"shared", b"only a")
    catalog.copy(name("a"), name("me/b:v1"))
    first, second = catalog.find(name("a")), catalog.find(name("me/b:v1"))
    assert first is not None
    assert second is not None
    assert first.digest == second.digest
    catalog.delete(name("a"))
    assert catalog.blobs.exists(digest_of(b"shared"))
    catalog.delete(name("me/b:v1"))
    assert list((tmp_path / "blobs").iterdir()) == []


def test_copying_a_model_onto_itself_keeps_it(tmp_path: Path) -> None:
    catalog = Catalog(tmp_path)
    add(catalog, "a", b"one")
    catalog.copy(name("a"), name("A"))
    assert [record.name.short for record in catalog.list()] == ["a:latest"]
    assert catalog.blobs.exists(digest_of(b"one"))


def test_installing_over_a_model_removes_what_only_it_needed(tmp_path: Path) -> None:
    catalog = Catalog(tmp_path)
    add(catalog, "a", b"old")
    add(catalog, "a", b"new")
    assert not catalog.blobs.exists(digest_of(b"old"))
    kept = Catalog(tmp_path, prune=False)
    add(kept, "a", b"newer")
    assert kept.blobs.exists(digest_of(b"new"))


def test_a_manifest_without_its_blobs_is_not_installed(tmp_path: Path) -> None:
    catalog = Catalog(tmp_path)
    with pytest.raises(BadRequest, match="not found"):
        catalog.install(name("a"), manifest_bytes())
    with pytest.raises(BadModelFile):
        catalog.install(name("a"), manifest_bytes("sha256:../x"))
    assert catalog.list() == []


def test_missing_models_are_named(tmp_path: Path) -> None:
    catalog = Catalog(tmp_path)
    with pytest.raises(NotFound, match=r'^model "x:latest" not found$'):
        catalog.copy(name("x"), name("y"))
    with pytest.raises(NotFound, match=r"^model 'x:latest' not found$"):
        catalog.delete(name("x"))


def test_starting_removes_only_old_orphans(tmp_path: Path) -> None:
    catalog = Catalog(tmp_path)
    add(catalog, "a", b"needed")
    for data in (b"old", b"fresh"):
        catalog.blobs.put(data)
    leftover, partial = tmp_path / "blobs" / "tmp-x", tmp_path / "blobs" / f"sha256-{'b' * 64}-partial-3"
    for path in (leftover, partial):
        path.write_bytes(b"")
    for path in (leftover, partial):
        os.utime(path, (time.time() - 7200,) * 2)
    for data, days in ((b"old", 8), (b"needed", 8), (b"fresh", 6)):
        os.utime(catalog.blobs.path_of(digest_of(data)), (time.time() - days * 86400,) * 2)
    catalog.start()
    assert [catalog.blobs.exists(digest_of(data)) for data in (b"needed", b"old", b"fresh")] == [
        True,
        False,
        True,
    ]
    assert (leftover.exists(), partial.exists()) == (False, True)


def test_starting_removes_old_manifests_that_were_never_finished(tmp_path: Path) -> None:
    catalog = Catalog(tmp_path)
    add(catalog, "a", b"data")
    (folder,) = {path.parent for path in (tmp_path / "manifests").rglob("latest")}
    old, fresh = folder / ".tmp-old", folder / ".tmp-fresh"
    for path in (old, fresh):
        path.write_bytes(b"{")
    os.utime(old, (time.time() - 7200,) * 2)
    catalog.start()
    assert sorted(path.name for path in folder.iterdir()) == [".tmp-fresh", "latest"]


def test_a_download_that_broke_off_waits_for_a_week(tmp_path: Path) -> None:
    catalog = Catalog(tmp_path)
    catalog.blobs.put(b"fresh")
    partials = [tmp_path / "blobs" / f"sha256-{'b' * 64}-partial{part}" for part in ("", "-0")]
    for days, left in ((6, True), (8, False)):
        for path in partials:
            path.write_bytes(b"")
            os.utime(path, (time.time() - days * 86400,) * 2)
        catalog.start()
        assert [path.exists() for path in partials] == [left, left]


def test_many_threads_leave_one_whole_model(tmp_path: Path) -> None:
    catalog = Catalog(tmp_path)

    def work(number: int) -> None:
        for turn in range(10):
            add_locked(f"{number} {turn}".encode())

    def add_locked(data: bytes) -> None:
        with catalog.lock:
            add(catalog, "same", b"base", data)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(catalog.list()) == 1
    assert len(list((tmp_path / "blobs").iterdir())) == 3


def test_a_model_that_comes_and_goes_is_there_or_not_and_never_broken(tmp_path: Path) -> None:
    catalog, other = Catalog(tmp_path), Catalog(tmp_path)
    over = threading.Event()

    def change() -> None:
        for number in range(150):
            add(other, "m", b"license", family=f"family-{number}")
            if number % 3 == 0:
                other.delete(name("m"))
        over.set()

    changing = threading.Thread(target=change)
    changing.start()
    seen = set()
    try:
        while not over.is_set():
            found = catalog.find(name("m"))
            seen.add(None if found is None else found.config.model_family)
    finally:
        changing.join()
    assert None in seen and len(seen) > 10
