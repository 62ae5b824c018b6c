"""Files of this machine in the store: linked, referred to where they lie, and what happens when they change."""

from __future__ import annotations

import errno
import fcntl
import os
import time
from pathlib import Path

import pytest

from corectl.errors import BadModelFile, BadRequest
from corectl.model.manifest import Layer, MediaType, ModelConfig
from corectl.store import blobs as blobs_module
from corectl.store import disk
from corectl.store.blobs import BlobStore
from corectl.store.catalog import Catalog
from corectl.store.local_file import LocalFile
from corectl.store.references import Reference
from corectl.transfer.partial import PartialFile
from tests.core.store_kit import HELLO, add, digest_of, name


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "elsewhere" / "weights.gguf"
    path.parent.mkdir()
    path.write_bytes(b"hello")
    return path


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    return Catalog(tmp_path / "store")


def refer(catalog: Catalog, source: Path, model: str = "m") -> None:
    """Store a model whose licence is a file where it lies."""
    with LocalFile.open(source) as file:
        stored = catalog.blobs.refer(file, file.digest())
    layer = Layer(media_type=MediaType.LICENSE, digest=stored.digest, size=stored.size)
    catalog.install(name(model), catalog.manifest_bytes(ModelConfig(), [layer], []))


def all_files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()}


def open_files() -> set[str]:
    return {path.name for path in Path("/dev/fd").iterdir()}


def test_a_file_is_used_where_it_lies(catalog: Catalog, source: Path) -> None:
    refer(catalog, source)
    record = catalog.find(name("m"))
    assert record is not None
    record.check()
    assert record.layers[0].path == source
    assert record.licenses == ["hello"]
    # Whoever else reads the store finds the bytes under the blob's name.
    blob = catalog.blobs.path_of(HELLO)
    assert blob.is_symlink() and blob.read_bytes() == b"hello"
    assert catalog.blobs.exists(HELLO)


def test_removing_the_last_model_removes_the_reference_and_not_the_file(
    catalog: Catalog, source: Path
) -> None:
    refer(catalog, source)
    catalog.copy(name("m"), name("n"))
    catalog.delete(name("m"))
    assert catalog.blobs.exists(HELLO)
    catalog.delete(name("n"))
    assert source.read_bytes() == b"hello"
    assert all_files(catalog.blobs.folder.parent) == set()


@pytest.mark.parametrize("change", ["touched", "longer", "gone", "a folder"])
def test_a_file_that_changed_is_named(catalog: Catalog, source: Path, change: str) -> None:
    refer(catalog, source)
    if change == "touched":
        os.utime(source, (1, 1))
    elif change == "longer":
        source.write_bytes(b"hello and more")
    else:
        source.unlink()
    if change == "a folder":
        source.mkdir()
    record = catalog.find(name("m"))
    assert record is not None
    assert [one.name for one in catalog.list()] == [name("m")]
    with pytest.raises(BadModelFile, match=str(source)):
        record.check()
    assert not catalog.blobs.exists(HELLO)
    # Neither a copy of the model nor a model made of it may come to need bytes that are not here any more.
    with pytest.raises(BadRequest, match=str(source)):
        catalog.copy(name("m"), name("n"))
    with pytest.raises(BadModelFile, match=str(source)):
        catalog.adopt(record, [])
    catalog.delete(name("m"))
    assert all_files(catalog.blobs.folder.parent) == set()


def test_good_bytes_take_the_place_of_a_file_that_changed(catalog: Catalog, source: Path) -> None:
    refer(catalog, source)
    source.write_bytes(b"other")
    assert catalog.blobs.put(b"hello").created
    record = catalog.find(name("m"))
    assert record is not None
    record.check()
    assert record.licenses == ["hello"]
    assert source.read_bytes() == b"other"
    catalog.start()
    assert not list((catalog.blobs.folder.parent / "corectl" / "references").iterdir())


def test_a_reference_is_replaced_by_one_to_another_place(catalog: Catalog, source: Path) -> None:
    refer(catalog, source)
    moved = source.rename(source.with_name("moved.gguf"))
    with LocalFile.open(moved) as file:
        assert catalog.blobs.refer(file, HELLO).created
    record = catalog.find(name("m"))
    assert record is not None
    assert record.layers[0].path == moved


def test_what_is_there_already_is_not_referred_to(catalog: Catalog, source: Path) -> None:
    catalog.blobs.put(b"hello")
    with LocalFile.open(source) as file:
        assert not catalog.blobs.refer(file, HELLO).created
    assert not catalog.blobs.path_of(HELLO).is_symlink()


def test_a_link_that_somebody_made_is_a_blob_like_others(catalog: Catalog, source: Path) -> None:
    add(catalog, "m", b"hello")
    blob = catalog.blobs.path_of(HELLO)
    blob.unlink()
    blob.symlink_to(source)
    record = catalog.find(name("m"))
    assert record is not None
    record.check()
    assert record.layers[0].path == blob
    catalog.delete(name("m"))
    assert not blob.is_symlink() and source.exists()


@pytest.mark.parametrize("record", [b"", b"{", b"[]", b'{"path":"/etc/passwd","size":5,"mtime_ns":1}'])
def test_a_damaged_record_makes_it_a_link_like_others(catalog: Catalog, source: Path, record: bytes) -> None:
    refer(catalog, source)
    path = catalog.blobs.folder.parent / "corectl" / "references" / HELLO.replace(":", "-")
    path.write_bytes(record)
    found = catalog.find(name("m"))
    assert found is not None
    assert (found.licenses, found.layers[0].path) == (["hello"], catalog.blobs.path_of(HELLO))
    catalog.start()
    assert not path.exists()


def test_an_old_reference_that_no_model_needs_is_removed_at_the_start(catalog: Catalog, source: Path) -> None:
    with LocalFile.open(source) as file:
        catalog.blobs.refer(file, HELLO)
    blob = catalog.blobs.path_of(HELLO)
    catalog.start()
    assert blob.is_symlink()
    os.utime(blob, (time.time() - 8 * 86400,) * 2, follow_symlinks=False)
    catalog.start()
    assert not blob.is_symlink() and source.exists()


def test_references_outlive_a_disk_that_is_not_there(catalog: Catalog, source: Path) -> None:
    refer(catalog, source)
    blobs = catalog.blobs.folder
    away = blobs.rename(blobs.with_name("away"))
    blobs.symlink_to("not-mounted")
    catalog.start()
    blobs.unlink()
    away.rename(blobs)
    source.write_bytes(b"other")
    assert "has changed" in catalog.blobs.references.problem(catalog.blobs.path_of(HELLO))


def test_bytes_that_changed_are_not_copied_under_the_old_digest(catalog: Catalog, source: Path) -> None:
    refer(catalog, source)
    record = catalog.find(name("m"))
    assert record is not None
    source.write_bytes(b"other")
    with pytest.raises(BadRequest, match="has changed"):
        catalog.adopt(record, [])
    assert catalog.blobs.path_of(HELLO).is_symlink()


def test_a_linked_file_is_as_old_as_its_link(catalog: Catalog, source: Path) -> None:
    os.utime(source, (1, 1))
    catalog.blobs.link_or_copy(source, HELLO)
    catalog.start()
    assert catalog.blobs.exists(HELLO)


def test_only_files_of_ones_own_are_linked(
    catalog: Catalog, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: source.stat().st_uid + 1)
    monkeypatch.setattr(blobs_module, "clone", lambda source, target: False)
    with LocalFile.open(source) as file:
        assert catalog.blobs.link(file, HELLO) is None
    assert catalog.blobs.link_or_copy(source, HELLO).created
    assert not catalog.blobs.path_of(HELLO).samefile(source)
    assert all_files(catalog.blobs.folder) == {HELLO.replace(":", "-")}


def test_a_clone_comes_before_a_link(catalog: Catalog, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on Btrfs and XFS; the request is the one that the kernel knows, and its answer is written here."""

    def ioctl(target: int, request: int, argument: int) -> int:
        assert request == 0x40049409
        os.write(target, os.pread(argument, 100, 0))
        return 0

    monkeypatch.setattr(fcntl, "ioctl", ioctl)
    with LocalFile.open(source) as file:
        stored = catalog.blobs.link(file, HELLO)
    blob = catalog.blobs.path_of(HELLO)
    assert stored is not None and stored.created
    assert blob.read_bytes() == b"hello" and not blob.samefile(source)
    assert blob.stat().st_mode & 0o777 == 0o644


def test_a_full_disk_is_not_taken_for_a_file_system_that_cannot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ioctl(*args: object) -> int:
        raise OSError(errno.ENOSPC, "no space left on device")

    monkeypatch.setattr(fcntl, "ioctl", ioctl)
    with pytest.raises(OSError, match="no space"):
        disk.clone(0, 1)


def test_a_file_that_changes_while_it_is_read_is_not_stored(catalog: Catalog, source: Path) -> None:
    with LocalFile.open(source) as file:
        digest = file.digest()
        source.write_bytes(b"other bytes")
        for store in (catalog.blobs.refer, catalog.blobs.link):
            with pytest.raises(BadRequest, match="has changed while it was read"):
                store(file, digest)
    assert all_files(catalog.blobs.folder.parent) == set()


def test_a_file_that_is_replaced_while_it_is_read_is_not_linked(
    catalog: Catalog, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blobs_module, "clone", lambda source, target: False)
    with LocalFile.open(source) as file:
        digest = file.digest()
        source.unlink()
        source.write_bytes(b"other")
        with pytest.raises(BadRequest, match="replaced"):
            catalog.blobs.link(file, digest)
    assert not catalog.blobs.exists(digest)


def test_only_regular_files_are_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "link").symlink_to("/dev/zero")
    for path in (tmp_path, tmp_path / "fifo", tmp_path / "link"):
        with pytest.raises(BadRequest, match="not a regular file"):
            LocalFile.open(path)


def test_no_link_is_followed_inside_a_folder(tmp_path: Path) -> None:
    (tmp_path / "in" / "deep").mkdir(parents=True)
    (tmp_path / "in" / "deep" / "file").write_bytes(b"hello")
    (tmp_path / "secret").write_bytes(b"secret")
    (tmp_path / "in" / "link").symlink_to(tmp_path / "secret")
    (tmp_path / "in" / "out").symlink_to(tmp_path)
    os.mkfifo(tmp_path / "in" / "fifo")
    with LocalFile.open_inside(tmp_path / "in", tmp_path / "in" / "deep" / "file") as file:
        assert file.digest() == HELLO
    for part in ("link", "out/secret", "fifo", "deep"):
        with pytest.raises((OSError, BadRequest)):
            LocalFile.open_inside(tmp_path / "in", tmp_path / "in" / part)


def test_a_reference_tells_what_to_do(tmp_path: Path) -> None:
    gone = Reference(str(tmp_path / "gone"), 1, 1)
    assert "No such file" in gone.problem and "create the model again" in gone.problem


def test_what_is_held_is_not_removed_by_any_server(tmp_path: Path) -> None:
    one, other = Catalog(tmp_path), Catalog(tmp_path)
    add(one, "m", b"hello")
    with one.holding([HELLO]):
        other.delete(name("m"))
        assert other.blobs.exists(HELLO)
        os.utime(other.blobs.path_of(HELLO), (1, 1))
        other.start()
        other.discard([HELLO])
        assert other.blobs.exists(HELLO)
    other.discard([HELLO])
    assert all_files(tmp_path) == set()


def test_others_see_what_is_held(tmp_path: Path) -> None:
    catalog = Catalog(tmp_path)
    with catalog.holding([HELLO]):
        (hold,) = (tmp_path / "corectl" / "holds").iterdir()
        assert hold.stat().st_mode & 0o777 == 0o664


def test_a_hold_that_cannot_be_read_may_hold_anything(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    catalog = Catalog(tmp_path)
    add(catalog, "m", b"hello")
    hold = tmp_path / "corectl" / "holds" / "unreadable"
    hold.mkdir(parents=True)
    catalog.delete(name("m"))
    assert catalog.blobs.exists(HELLO) and "what others hold" in caplog.text
    hold.rmdir()
    catalog.discard([HELLO])
    assert not catalog.blobs.exists(HELLO)


def test_a_hold_ends_with_its_holder(tmp_path: Path) -> None:
    catalog = Catalog(tmp_path)
    catalog.blobs.put(b"hello")
    folder = tmp_path / "corectl" / "holds"
    folder.mkdir(parents=True)
    (folder / "of-a-process-that-was-killed").write_text(f"{HELLO}\n")
    catalog.discard([HELLO])
    assert all_files(tmp_path) == set()


def test_without_locks_a_hold_counts_for_a_week(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> None:
        raise OSError(errno.ENOTSUP, "not supported")

    catalog = Catalog(tmp_path)
    catalog.blobs.put(b"hello")
    folder = tmp_path / "corectl" / "holds"
    folder.mkdir(parents=True)
    (folder / "hold").write_text(f"{HELLO}\n")
    monkeypatch.setattr(fcntl, "flock", refuse)
    catalog.discard([HELLO])
    assert catalog.blobs.exists(HELLO)
    os.utime(folder / "hold", (time.time() - 8 * 86400,) * 2)
    catalog.discard([HELLO])
    assert all_files(tmp_path) == set()


def test_one_server_works_on_a_file_system_without_locks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object) -> None:
        raise OSError(errno.ENOTSUP, "not supported")

    monkeypatch.setattr(fcntl, "flock", refuse)
    catalog = Catalog(tmp_path)
    add(catalog, "m", b"hello")
    with catalog.holding([HELLO]):
        catalog.delete(name("m"))
        assert catalog.blobs.exists(HELLO)
    partial = PartialFile(catalog.blobs.path_of(digest_of(b"other")))
    assert partial.open()
    partial.write([b"other"], 0)
    partial.adopt()
    partial.close()
    assert catalog.blobs.exists(digest_of(b"other"))


@pytest.mark.parametrize("reason", [errno.EWOULDBLOCK, errno.EIO])
def test_a_partial_file_that_is_not_taken_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reason: int
) -> None:
    def refuse(*args: object) -> None:
        raise OSError(reason, "refused")

    def fail(*args: object) -> bool:
        raise OSError(errno.EIO, "the disk is broken")

    monkeypatch.setattr(fcntl, "flock", refuse)
    monkeypatch.setattr(os.path, "samestat", fail)
    partial = PartialFile(tmp_path / "blob")
    before = open_files()
    if reason == errno.EWOULDBLOCK:
        assert not partial.open()
    else:
        with pytest.raises(OSError, match="broken"):
            partial.open()
    assert open_files() == before


def test_a_store_that_cannot_be_written_to_is_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    catalog = Catalog(tmp_path)
    add(catalog, "m", b"hello")
    catalog.blobs.put(b"old")
    os.utime(catalog.blobs.path_of(digest_of(b"old")), (1, 1))

    def refuse(self: Path, missing_ok: bool = False) -> None:
        raise OSError(errno.EROFS, "read-only file system")

    monkeypatch.setattr(Path, "unlink", refuse)
    catalog.start()
    assert "not tidied up" in caplog.text
    record = catalog.find(name("m"))
    assert record is not None and record.licenses == ["hello"]


def test_both_kinds_of_digests_are_removed(tmp_path: Path) -> None:
    store = BlobStore(tmp_path)
    store.put(b"hello")
    assert store.remove(HELLO.replace(":", "-"))
    assert not store.remove(HELLO)
