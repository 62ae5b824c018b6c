"""Creating models beside everything else that happens to a store: nobody waits, and nothing that is needed goes."""

from __future__ import annotations

import os
import threading

import pytest

from corectl.errors import NotFound
from corectl.model.name import ModelName
from corectl.store.catalog import Catalog
from tests.core.create_kit import Bench

SOON = 20
"""Seconds after which a thread that should not have waited is taken to wait for ever."""


def in_thread(work: object) -> None:
    """Does it on another thread, which does not have this one's locks."""
    thread = threading.Thread(target=work, daemon=True)  # type: ignore[arg-type]
    thread.start()
    thread.join(SOON)
    assert not thread.is_alive(), "it waits for the create"


def test_others_go_on_while_a_job_runs(bench: Bench) -> None:
    bench.create("half", files={"m.gguf": bench.upload(file_type=1)})
    bench.create("old", from_="half", system="old")
    other = Bench(bench.root)

    def others() -> None:
        other.create("new", from_="half", system="new")
        other.catalog.copy(ModelName.parse("half"), ModelName.parse("copy"))
        other.catalog.delete(ModelName.parse("old"))

    bench.workshop.during = lambda: in_thread(others)
    bench.create("small", from_="half", quantize="q8_0")
    assert {record.name.model for record in bench.catalog.list()} == {"half", "new", "copy", "small"}


def test_what_is_read_is_not_removed_meanwhile(bench: Bench) -> None:
    """Another server on the store deletes the base, and starts once more with everything too old."""
    bench.create("half", files={"m.gguf": bench.upload(file_type=1)}, system="Be brief.", license="MIT")

    def others() -> None:
        other = Catalog(bench.root)
        other.delete(ModelName.parse("half"))
        for path in (bench.root / "blobs").iterdir():
            os.utime(path, (0, 0))
        Catalog(bench.root).start()

    bench.workshop.during = lambda: in_thread(others)
    bench.create("small", from_="half", quantize="q8_0")
    record = bench.get("small")
    assert (record.system, record.licenses) == ("Be brief.", ["MIT"])
    assert all(layer.path.is_file() for layer in record.layers)
    assert bench.catalog.find(ModelName.parse("half")) is None


def test_uploads_are_not_removed_before_their_create_has_ended(bench: Bench) -> None:
    upload = bench.upload(file_type=1)
    adapter = bench.upload(kind="adapter")

    def others() -> None:
        for path in (bench.root / "blobs").iterdir():
            os.utime(path, (0, 0))
        Catalog(bench.root).start()

    bench.workshop.during = lambda: in_thread(others)
    bench.create("small", files={"m.gguf": upload}, adapters={"a.gguf": adapter}, quantize="q8_0")
    assert all(layer.path.is_file() for layer in bench.get("small").layers)


def test_a_failed_create_takes_nothing_that_another_one_needs(bench: Bench) -> None:
    """Both find the same blob to be there, which one of them has made."""
    bench.create("half", files={"m.gguf": bench.upload(file_type=1)})
    other = Bench(bench.root)

    def fail() -> None:
        in_thread(lambda: other.create("second", from_="half", quantize="q8_0", system="same"))
        raise RuntimeError

    bench.workshop.during = fail
    with pytest.raises(RuntimeError):
        bench.create("first", from_="half", quantize="q8_0", system="same")
    record = other.get("second")
    assert record.system == "same" and all(layer.path.is_file() for layer in record.layers)


def test_two_that_make_the_same_share_its_blobs(bench: Bench) -> None:
    bench.create("half", files={"m.gguf": bench.upload(file_type=1)})
    other = Bench(bench.root)
    bench.workshop.during = lambda: in_thread(lambda: other.create("b", from_="half", quantize="q8_0"))
    bench.create("a", from_="half", quantize="q8_0")
    assert bench.get("a").layers == bench.get("b").layers


def test_a_base_whose_files_are_gone_is_named(bench: Bench) -> None:
    upload = bench.upload()
    bench.create("base", files={"m.gguf": upload})
    bench.catalog.blobs.path_of(upload).unlink()
    with pytest.raises(NotFound, match="files of 'base:latest' are missing"):
        bench.create("x", from_="base")
