"""Files that the command line puts into the store of a server on this machine, while others use that store."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest

from corectl.cli.client import Client
from corectl.cli.local_store import place
from corectl.store.catalog import Catalog
from corectl.store.local_file import LocalFile
from corectl.store.references import References
from tests.core.store_kit import HELLO, add, name


class Asked:
    """A server that is asked for one blob."""

    def __init__(self, answer: Callable[[], bool]) -> None:
        self._answer = answer

    def has_blob(self, digest: str) -> bool:
        assert digest == HELLO
        return self._answer()


@pytest.fixture
def store(tmp_path: Path) -> Catalog:
    (tmp_path / "weights.gguf").write_bytes(b"hello")
    return Catalog(tmp_path / "store")


def put(store: Catalog, answer: Callable[[], bool], *, in_place: bool) -> bool:
    with LocalFile.open(store.blobs.folder.parent.parent / "weights.gguf") as file:
        return place(cast(Client, Asked(answer)), store, file, HELLO, in_place=in_place)


@pytest.mark.parametrize("in_place", [False, True])
def test_what_another_server_does_not_have_goes_again(store: Catalog, in_place: bool) -> None:
    assert put(store, lambda: True, in_place=in_place)
    store.discard([HELLO])
    assert not put(store, lambda: False, in_place=in_place)
    assert [path for path in store.blobs.folder.parent.rglob("*") if not path.is_dir()] == []


@pytest.mark.parametrize("in_place", [False, True])
def test_what_a_model_has_come_to_need_stays(store: Catalog, in_place: bool) -> None:
    def used() -> bool:
        add(Catalog(store.blobs.folder.parent), "m", b"hello")
        return False

    assert not put(store, used, in_place=in_place)
    record = store.find(name("m"))
    assert record is not None and record.licenses == ["hello"]


def test_what_somebody_holds_stays(store: Catalog) -> None:
    with store.holding([HELLO]):
        assert not put(store, lambda: False, in_place=False)
        assert store.blobs.exists(HELLO)


def test_nobody_tidies_up_while_a_reference_is_made(store: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the record and the link the record belongs to nothing."""
    write = References._write_record
    other = threading.Thread(target=Catalog(store.blobs.folder.parent).start)

    def meanwhile(references: References, name: str, data: bytes) -> None:
        write(references, name, data)
        other.start()
        other.join(0.2)

    monkeypatch.setattr(References, "_write_record", meanwhile)
    assert put(store, lambda: True, in_place=True)
    other.join()
    assert store.blobs.references.find(store.blobs.path_of(HELLO)) is not None
