"""Paths in create requests: only files in folders that the operator has named."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from corectl.errors import BadRequest, Canceled, Forbidden
from corectl.progress import Progress
from corectl.store.blobs import BlobStore
from corectl.store.catalog import Catalog
from corectl.store.create import CreateSpec
from corectl.store.imports import Imports
from tests.core.store_kit import HELLO


@pytest.fixture
def allowed(tmp_path: Path) -> Path:
    folder = tmp_path / "allowed"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "m.gguf").write_bytes(b"hello")
    (tmp_path / "secret").write_bytes(b"secret")
    return folder


@pytest.fixture
def blobs(tmp_path: Path) -> BlobStore:
    return BlobStore(tmp_path / "store")


def take(blobs: BlobStore, folders: list[str], path: str, *, in_place: bool = False) -> dict[str, str] | None:
    return take_all(blobs, folders, {"m.gguf": path}, in_place=in_place)


def take_all(
    blobs: BlobStore, folders: list[str], files: dict[str, str] | None, *, in_place: bool = False
) -> dict[str, str] | None:
    spec = CreateSpec(model="m", files=files, adapters=files)
    imports = Imports(Catalog(blobs.folder.parent), folders)
    before = {path.name for path in blobs.folder.glob("*")}
    taken = imports.take(spec, lambda step: None, in_place=in_place)
    after = {path.name for path in blobs.folder.glob("*")}
    assert {digest.replace(":", "-") for digest in imports.created} == after - before
    assert taken.files == taken.adapters
    return taken.files


@pytest.mark.parametrize("in_place", [False, True])
def test_an_allowed_file_becomes_a_blob(blobs: BlobStore, allowed: Path, in_place: bool) -> None:
    path = allowed / "deep" / "m.gguf"
    assert take(blobs, [str(allowed)], str(path), in_place=in_place) == {"m.gguf": HELLO}
    assert blobs.path_of(HELLO).is_symlink() == in_place
    assert blobs.path_of(HELLO).read_bytes() == b"hello"
    assert take(blobs, [str(allowed)], str(path), in_place=in_place) == {"m.gguf": HELLO}


def test_a_copy_ends_when_its_report_raises(
    blobs: BlobStore, allowed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Progress] = []

    def report(step: Progress) -> None:
        told.append(step)
        if len(told) == 2:
            raise Canceled("the server is stopping")

    monkeypatch.setattr(BlobStore, "link", lambda *_: None)
    spec = CreateSpec(model="m", files={"m.gguf": str(allowed / "deep" / "m.gguf")})
    with pytest.raises(Canceled):
        Imports(Catalog(blobs.folder.parent), [str(allowed)]).take(spec, report, in_place=False)
    assert [step.completed for step in told] == [5, 5]
    assert list(blobs.folder.iterdir()) == []


def test_digests_pass_and_nothing_stays_nothing(blobs: BlobStore) -> None:
    assert take(blobs, [], HELLO) == {"m.gguf": HELLO}
    assert take_all(blobs, [], None) is None


def test_other_paths_are_refused_alike_whether_there_is_a_file_or_not(
    blobs: BlobStore, allowed: Path, tmp_path: Path
) -> None:
    (allowed / "out").symlink_to(tmp_path)
    (allowed / "loop").symlink_to(allowed / "loop")
    (tmp_path / "allowed-not").mkdir()
    texts = [
        *(
            tmp_path / "secret",
            tmp_path / "absent",
            allowed,
            "/etc/passwd",
            "/dev/zero",
            "/",
            "/proc/self/mem",
        ),
        *(
            allowed / "out" / "secret",
            allowed / "deep" / ".." / ".." / "secret",
            tmp_path / "allowed-not" / "x",
        ),
        *(f"{allowed}/\0", "/" + "x" * 5000),
    ]
    said = set()
    for text in texts:
        with pytest.raises(Forbidden) as caught:
            take(blobs, [str(allowed)], str(text))
        said.add(caught.value.message)
    assert len(said) == 1 and "CORECTL_IMPORT_FOLDERS" in said.pop()
    with pytest.raises(Forbidden):
        take(blobs, [], str(allowed / "deep" / "m.gguf"))
    assert not blobs.folder.exists()


def test_a_link_inside_the_folder_is_followed_to_where_it_leads(blobs: BlobStore, allowed: Path) -> None:
    (allowed / "link").symlink_to(allowed / "deep" / "m.gguf")
    assert take(blobs, [str(allowed)], str(allowed / "link")) == {"m.gguf": HELLO}


def test_a_folder_that_is_itself_a_link(blobs: BlobStore, allowed: Path, tmp_path: Path) -> None:
    (tmp_path / "models").symlink_to(allowed)
    path = str(tmp_path / "models" / "deep" / "m.gguf")
    assert take(blobs, [str(tmp_path / "models")], path) == {"m.gguf": HELLO}


def test_what_is_no_file_there(blobs: BlobStore, allowed: Path) -> None:
    os.mkfifo(allowed / "fifo")
    for name in ("fifo", "deep", "absent"):
        with pytest.raises(BadRequest):
            take(blobs, [str(allowed)], str(allowed / name))
    assert not blobs.folder.exists()


def test_all_paths_are_checked_before_the_first_is_read(
    blobs: BlobStore, allowed: Path, tmp_path: Path
) -> None:
    files = {"a": str(allowed / "deep" / "m.gguf"), "b": str(tmp_path / "secret")}
    with pytest.raises(Forbidden, match='"b"'):
        take_all(blobs, [str(allowed)], files)
    assert not blobs.folder.exists()
