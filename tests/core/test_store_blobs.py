"""Blobs by their digests: written once, whole or not at all."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path

import msgspec
import pytest

from corectl.errors import BadRequest
from corectl.store.blobs import BlobStore
from tests.core.store_kit import HELLO, digest_of

BAD_DIGESTS = [
    *(
        "",
        "sha256:",
        "sha256:../x",
        "sha256:" + "A" * 64,
        "sha256:" + "a" * 63,
        "sha256:" + "a" * 65,
        "a" * 64,
    ),
    *(
        "sha256:" + "a" * 64 + "\0",
        "sha256:" + "a" * 64 + "\n",
        "sha512:" + "a" * 64,
        "sha256:%2e%2e",
        "sha256/" + "a" * 64,
    ),
]


@pytest.mark.parametrize("digest", BAD_DIGESTS)
def test_bad_digests_are_refused(tmp_path: Path, digest: str) -> None:
    with pytest.raises(BadRequest, match=r"^invalid digest format$"):
        BlobStore(tmp_path).path_of(digest)


def test_both_forms_of_a_digest_name_one_file(tmp_path: Path) -> None:
    store = BlobStore(tmp_path)
    assert store.path_of(HELLO) == store.path_of(HELLO.replace(":", "-"))
    assert store.path_of(HELLO).name == HELLO.replace(":", "-")


def test_a_blob_is_written_once(tmp_path: Path) -> None:
    store = BlobStore(tmp_path)
    assert msgspec.structs.astuple(store.put(b"hello")) == (HELLO, 5, True)
    assert store.put(b"hello").created is False
    assert store.exists(HELLO)
    assert store.path_of(HELLO).read_bytes() == b"hello"
    assert store.path_of(HELLO).stat().st_mode & 0o777 == 0o644
    assert len(list((tmp_path / "blobs").iterdir())) == 1


def test_a_wrong_digest_leaves_nothing(tmp_path: Path) -> None:
    store = BlobStore(tmp_path)
    expected = "sha256:" + "a" * 64
    with pytest.raises(BadRequest) as caught, store.writer() as out:
        out.write(b"hel")
        out.write(b"lo")
        out.commit(expected)
    assert caught.value.message == f'digest mismatch, expected "{expected}", got "{HELLO}"'
    assert list((tmp_path / "blobs").iterdir()) == []


def test_a_writer_that_is_left_leaves_nothing(tmp_path: Path) -> None:
    store = BlobStore(tmp_path)
    with store.writer() as out:
        out.write(b"hello")
        assert not store.exists(HELLO)
    assert list((tmp_path / "blobs").iterdir()) == []


def test_a_file_elsewhere_is_linked(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"hello")
    store = BlobStore(tmp_path / "store")
    assert store.link_or_copy(source, HELLO).created
    assert store.path_of(HELLO).samefile(source)
    assert not store.link_or_copy(source, HELLO).created


def test_a_file_that_cannot_be_linked_is_copied_and_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Path, target: Path) -> None:
        raise OSError(errno.EXDEV, "another device")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    source = tmp_path / "source"
    source.write_bytes(b"hello")
    store = BlobStore(tmp_path / "store")
    with pytest.raises(BadRequest, match="digest mismatch"):
        store.link_or_copy(source, digest_of(b"other"))
    assert store.link_or_copy(source, HELLO).created
    assert not store.path_of(HELLO).samefile(source)


def test_what_is_no_file_is_not_stored(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(BadRequest, match="not a regular file"):
        BlobStore(tmp_path).link_or_copy(tmp_path / "fifo", HELLO)


def test_legacy_names_are_renamed(tmp_path: Path) -> None:
    folder = tmp_path / "blobs"
    folder.mkdir()
    (folder / HELLO).write_bytes(b"hello")
    (folder / "sha259:5678").write_bytes(b"?")
    (folder / "nested").mkdir()
    (folder / "nested" / HELLO).write_bytes(b"hello")
    store = BlobStore(tmp_path)
    store.rename_legacy()
    assert store.exists(HELLO)
    assert (folder / "sha259:5678").exists()
    assert (folder / "nested" / HELLO).exists()


def test_a_folder_in_use_is_no_leftover(tmp_path: Path) -> None:
    """However long somebody works in it."""
    blobs = BlobStore(tmp_path)
    with blobs.scratch() as folder:
        os.utime(folder, (0, 0))
        BlobStore(tmp_path).remove_leftovers(older_than_s=60, partial_s=60)
        assert folder.is_dir()
    assert not folder.exists()


def test_a_folder_that_nobody_uses_any_more_goes_soon(tmp_path: Path) -> None:
    """It may hold most of a model; nobody has to wait for an hour."""
    blobs = BlobStore(tmp_path)
    for name, age in (("tmp-old", 120), ("tmp-new", 0)):
        folder = tmp_path / "blobs" / name
        folder.mkdir(parents=True)
        (folder / "model.gguf").write_bytes(b"half")
        os.utime(folder, (time.time() - age,) * 2)
    blobs.remove_leftovers(older_than_s=3600, partial_s=3600)
    assert [path.name for path in (tmp_path / "blobs").iterdir()] == ["tmp-new"]
