"""Verifying a store: what is found, whom it belongs to, and what is said to do."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from corectl.errors import Busy, Canceled, NotFound
from corectl.progress import Progress
from corectl.store.catalog import Catalog
from corectl.store.verify import Problem, Verified, verify
from tests.core.store_kit import HELLO, add, digest_of, name
from tests.core.test_store_in_place import refer


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    return Catalog(tmp_path / "store")


def check(catalog: Catalog, *names: str) -> Verified:
    return verify(catalog, [name(text) for text in names], lambda step: None)


def only(problems: Sequence[Problem]) -> Problem:
    assert len(problems) == 1, problems
    return problems[0]


def test_a_sound_store_has_no_problems(catalog: Catalog) -> None:
    add(catalog, "a", b"hello", b"more")
    add(catalog, "b", b"hello")
    catalog.blobs.put(b"needed by nobody")
    found = check(catalog)
    assert found.problems == ()
    assert found.blobs == len(list(catalog.blobs.folder.iterdir())) == 4
    assert found.bytes == sum(path.stat().st_size for path in catalog.blobs.folder.iterdir())


def test_an_empty_store_is_sound(catalog: Catalog) -> None:
    assert check(catalog) == Verified(blobs=0, bytes=0, problems=())


def test_a_damaged_blob_names_all_its_models(catalog: Catalog) -> None:
    add(catalog, "a", b"hello", b"more")
    add(catalog, "me/b:v1", b"hello")
    add(catalog, "c", b"more")
    catalog.blobs.path_of(HELLO).write_bytes(b"hellO")
    problem = only(check(catalog).problems)
    assert (problem.kind, problem.digest, problem.models) == ("damaged", HELLO, ("a:latest", "me/b:v1"))
    assert digest_of(b"hellO") in problem.detail
    assert "corectl rm a:latest me/b:v1" in problem.remedy
    # What is said does help.
    catalog.delete(name("a"))
    catalog.delete(name("me/b:v1"))
    add(catalog, "a", b"hello")
    assert check(catalog).problems == ()


def test_a_missing_blob(catalog: Catalog) -> None:
    add(catalog, "a", b"hello")
    catalog.blobs.path_of(HELLO).unlink()
    problem = only(check(catalog).problems)
    assert (problem.kind, problem.digest, problem.models) == ("missing", HELLO, ("a:latest",))


def test_what_is_no_file(catalog: Catalog) -> None:
    add(catalog, "a", b"hello")
    path = catalog.blobs.path_of(HELLO)
    path.unlink()
    os.mkfifo(path)
    assert only(check(catalog).problems).kind == "unreadable"


def test_a_damaged_manifest(catalog: Catalog) -> None:
    add(catalog, "a", b"hello")
    catalog.manifests.write(name("bad"), b"{")
    problem = only(check(catalog).problems)
    assert (problem.kind, problem.digest, problem.models) == ("manifest", "", ("bad:latest",))
    assert "corectl rm bad:latest" in problem.remedy
    catalog.delete(name("bad"))
    assert check(catalog).problems == ()


def test_damage_that_concerns_nobody_is_found_as_well(catalog: Catalog) -> None:
    """A model that comes to need these bytes would not get others: what is there is not written again."""
    catalog.blobs.put(b"hello")
    catalog.blobs.path_of(HELLO).write_bytes(b"hellO")
    problem = only(check(catalog).problems)
    assert (problem.kind, problem.models) == ("damaged", ())
    assert "no model needs it" in problem.remedy


def test_only_the_models_that_were_named(catalog: Catalog) -> None:
    add(catalog, "a", b"hello")
    add(catalog, "b", b"other")
    catalog.blobs.path_of(HELLO).write_bytes(b"hellO")
    found = check(catalog, "B")
    assert (found.blobs, found.problems) == (2, ())
    assert only(check(catalog, "b", "A").problems).models == ("a:latest",)
    with pytest.raises(NotFound, match="model 'nothing:latest' not found"):
        check(catalog, "nothing")


def test_a_file_elsewhere_that_has_other_bytes(catalog: Catalog, tmp_path: Path) -> None:
    source = tmp_path / "weights.gguf"
    source.write_bytes(b"hello")
    refer(catalog, source)
    assert check(catalog).problems == ()
    status = source.stat()
    source.write_bytes(b"hellO")
    os.utime(source, ns=(status.st_atime_ns, status.st_mtime_ns))
    problem = only(check(catalog).problems)
    assert (problem.kind, problem.models) == ("changed", ("m:latest",))
    assert str(source) in problem.detail
    source.unlink()
    problem = only(check(catalog).problems)
    assert problem.kind == "missing" and str(source) in problem.detail


def test_a_file_elsewhere_that_was_only_touched_is_sound_again(catalog: Catalog, tmp_path: Path) -> None:
    source = tmp_path / "weights.gguf"
    source.write_bytes(b"hello")
    refer(catalog, source)
    os.utime(source, (1, 1))
    assert not catalog.blobs.exists(HELLO)
    assert check(catalog).problems == ()
    assert catalog.blobs.exists(HELLO)


def test_a_hard_link_that_was_written_to(catalog: Catalog, tmp_path: Path) -> None:
    """The one danger of linking a file: who writes to it writes to the store."""
    source = tmp_path / "weights.gguf"
    source.write_bytes(b"hello")
    catalog.blobs.link_or_copy(source, HELLO)
    add(catalog, "a", b"hello")
    with source.open("r+b") as file:
        file.write(b"J")
    if catalog.blobs.path_of(HELLO).samefile(source):
        assert only(check(catalog).problems).kind == "damaged"
    else:
        assert check(catalog).problems == ()


def test_a_model_that_goes_meanwhile_is_no_problem(catalog: Catalog) -> None:
    add(catalog, "a", b"hello", b"more")
    steps: list[Progress] = []

    def report(step: Progress) -> None:
        if not steps:
            catalog.delete(name("a"))
        steps.append(step)

    assert verify(catalog, [], report).problems == ()
    assert steps[0].total == steps[0].completed > 0
    assert steps[0].status == f"verifying {steps[0].digest}"


def test_a_reference_that_goes_while_its_file_is_read_stays_away(catalog: Catalog, tmp_path: Path) -> None:
    source = tmp_path / "weights.gguf"
    source.write_bytes(b"hello")
    refer(catalog, source)
    os.utime(source, (1, 1))

    def report(step: Progress) -> None:
        if step.digest == HELLO:
            catalog.delete(name("m"))

    assert verify(catalog, [], report).problems == ()
    assert [path for path in (tmp_path / "store").rglob("*") if not path.is_dir()] == []


def test_one_at_a_time_and_what_the_listener_raises_ends_it(catalog: Catalog) -> None:
    add(catalog, "a", b"hello")

    def ask_again(step: Progress) -> None:
        with pytest.raises(Busy):
            check(catalog)
        raise Canceled("gone")

    with pytest.raises(Canceled):
        verify(catalog, [], ask_again)
    assert check(catalog).problems == ()
