"""Blobs, manifests and the catalog over them."""

import errno
import hashlib
import logging
import os
import threading
import time
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from corectl.errors import BadModelFile, BadRequest, NotFound
from corectl.model.manifest import CONFIG_TYPE, Layer, Manifest, MediaType, ModelConfig
from corectl.model.name import ModelName
from corectl.model.record import ModelRecord, StoredLayer
from corectl.registry.bounded import BoundedRegistry
from corectl.store.blobs import BlobStore
from corectl.store.catalog import Catalog
from corectl.store.encoding import layer_json
from corectl.store.local_file import LocalFile
from corectl.store.manifests import ManifestStore
from corectl.store.remote import remote_url


def digest_of(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


HELLO = digest_of(b"hello")
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


def name(text: str) -> ModelName:
    return ModelName.parse(text)


def add(catalog: Catalog, model: str, *layers: bytes, family: str = "llama") -> None:
    """Store a model whose licenses are `layers`."""
    stored = [catalog.blobs.put(data) for data in layers]
    entries = [Layer(media_type=MediaType.LICENSE, digest=one.digest, size=one.size) for one in stored]
    catalog.install(name(model), catalog.manifest_bytes(ModelConfig(model_family=family), entries, []))


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


def manifest_bytes(config: str = HELLO) -> bytes:
    return layer_json(Manifest(config=Layer(media_type=CONFIG_TYPE, digest=config, size=5), layers=()))


def test_manifests_are_found_in_any_case_and_keep_their_spelling(tmp_path: Path) -> None:
    store = ManifestStore(tmp_path)
    assert store.write(name("Example/Foo:Bar"), b"{}").short == "Example/Foo:Bar"
    assert store.write(name("example/FOO:bar"), manifest_bytes()).short == "Example/Foo:Bar"
    assert [found.short for found in store.names()] == ["Example/Foo:Bar"]
    stored = store.read(name("EXAMPLE/foo:BAR"))
    assert (stored.name.short, stored.data) == ("Example/Foo:Bar", manifest_bytes())
    assert stored.modified_at.tzinfo is UTC


def test_junk_in_the_folder_is_passed_over(tmp_path: Path) -> None:
    store = ManifestStore(tmp_path)
    store.write(name("good"), manifest_bytes())
    library = tmp_path / "manifests" / "registry.ollama.ai" / "library"
    (library / ".DS_Store").write_text("x")
    (library / "good" / ".tmp-abc").write_text("x")
    (library / "good" / "-bad").write_text("x")
    (library / "b\u212a").mkdir()
    (library / "b\u212a" / "latest").write_text("x")
    (tmp_path / "manifests" / "file").write_text("x")
    assert [found.short for found in store.names()] == ["good:latest"]
    assert store.locate(name("bk")) is None


def test_deleting_removes_empty_folders_only(tmp_path: Path) -> None:
    store = ManifestStore(tmp_path)
    store.write(name("a:1"), manifest_bytes())
    store.write(name("a:2"), manifest_bytes())
    store.delete(name("A:1"))
    assert [found.short for found in store.names()] == ["a:2"]
    store.delete(name("a:2"))
    assert list((tmp_path / "manifests").iterdir()) == []
    with pytest.raises(NotFound, match=r"^model 'a:2' not found$"):
        store.delete(name("a:2"))


def test_a_linked_folder_works(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    root = tmp_path / "root" / "manifests" / "registry.ollama.ai"
    root.mkdir(parents=True)
    (root / "library").symlink_to(elsewhere)
    store = ManifestStore(tmp_path / "root")
    store.write(name("m"), manifest_bytes())
    assert (elsewhere / "m" / "latest").exists()
    assert store.read(name("m")).data == manifest_bytes()
    store.delete(name("m"))
    assert elsewhere.exists()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[]",
        b"\xff\xfe",
        b"[" * 100_000,
        manifest_bytes("sha256:../../canary"),
        manifest_bytes().replace(b'"size":5', b'"size":-5'),
        b'{"schemaVersion":2,"mediaType":"x","config":{"mediaType":"x","digest":"","size":0},"layers":null}',
    ],
)
def test_broken_manifests_are_skipped_with_a_warning(
    tmp_path: Path, data: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    catalog = Catalog(tmp_path)
    add(catalog, "good", b"one")
    catalog.manifests.write(name("bad"), data)
    with caplog.at_level(logging.WARNING):
        assert [record.name.short for record in catalog.list()] == ["good:latest"]
    assert "bad:latest" in caplog.text
    with pytest.raises(BadModelFile):
        catalog.find(name("bad"))


def test_no_blob_is_removed_while_a_manifest_is_broken(tmp_path: Path) -> None:
    catalog = Catalog(tmp_path)
    add(catalog, "good", b"one")
    catalog.manifests.write(name("bad"), b"{")
    catalog.delete(name("good"))
    assert catalog.blobs.exists(digest_of(b"one"))
    catalog.delete(name("bad"))
    assert catalog.list() == []


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
    ancient = time.time() - 7200
    for path in (
        leftover,
        partial,
        *(catalog.blobs.path_of(digest_of(data)) for data in (b"old", b"needed")),
    ):
        os.utime(path, (ancient, ancient))
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


class Shelf:
    """A registry with one model that lies in a folder of its own."""

    name = "shelf"

    def __init__(self, folder: Path, model: str = "packed") -> None:
        folder.mkdir()
        path = folder / "weights"
        path.write_bytes(b"packed bytes")
        layer = StoredLayer(
            media_type=MediaType.LICENSE, digest=digest_of(b"packed bytes"), size=12, path=path
        )
        self.record = ModelRecord(
            name=name(model),
            digest="0" * 64,
            size=12,
            modified_at=datetime(2020, 1, 1, tzinfo=UTC),
            config=ModelConfig(model_family="llama"),
            layers=(layer,),
            origin="llm-packed",
        )

    def list(self) -> Iterable[ModelRecord]:
        return [self.record]

    def find(self, name: ModelName) -> ModelRecord | None:
        return self.record if name.key == self.record.name.key else None


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


def test_packaged_models_are_offered_behind_stored_ones(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path / "shelf")
    catalog = Catalog(tmp_path / "store", [shelf])
    assert [record.origin for record in catalog.list()] == ["llm-packed"]
    assert catalog.find(name("PACKED")) is shelf.record
    add(catalog, "packed", b"mine")
    assert [record.origin for record in catalog.list()] == ["store"]


def test_a_packaged_model_is_copied_by_linking(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path / "shelf")
    catalog = Catalog(tmp_path / "store", [shelf])
    catalog.copy(name("packed"), name("mine"))
    record = catalog.find(name("mine"))
    assert record is not None
    assert record.layers[0].path.samefile(tmp_path / "shelf" / "weights")
    catalog.delete(name("mine"))
    assert (tmp_path / "shelf" / "weights").exists()


def test_the_store_is_free_while_a_packaged_model_is_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its weights may be large, and on another file system. Nobody removes them before the model is there."""
    asked: list[str] = []
    read = LocalFile.pieces

    def pieces(file: LocalFile) -> Iterator[memoryview]:
        def remove() -> None:
            catalog.blobs.put(b"packed bytes")
            catalog.discard([digest_of(b"packed bytes")])

        other = threading.Thread(target=remove, daemon=True)
        other.start()
        other.join(5)
        assert not other.is_alive(), "the store is locked"
        asked.append(file.path.name)
        yield from read(file)

    monkeypatch.setattr(BlobStore, "link", lambda *args: None)
    monkeypatch.setattr(LocalFile, "pieces", pieces)
    catalog = Catalog(tmp_path / "store", [Shelf(tmp_path / "shelf")])
    catalog.copy(name("packed"), name("mine"))
    assert asked == ["weights"]
    record = catalog.find(name("mine"))
    assert record is not None and record.licenses == ["packed bytes"]


def test_a_packaged_model_that_cannot_be_copied_leaves_nothing(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path / "shelf")
    catalog = Catalog(tmp_path / "store", [shelf])
    (tmp_path / "store" / "manifests").mkdir(parents=True)
    (tmp_path / "store" / "manifests" / "registry.ollama.ai").write_bytes(b"in the way")
    with pytest.raises(OSError, match=r"registry\.ollama\.ai"):
        catalog.copy(name("packed"), name("mine"))
    assert list(catalog.blobs.folder.iterdir()) == []


def test_a_packaged_model_cannot_be_deleted(tmp_path: Path) -> None:
    catalog = Catalog(tmp_path / "store", [Shelf(tmp_path / "shelf")])
    with pytest.raises(BadRequest, match="from llm-packed; remove it there"):
        catalog.delete(name("packed"))


def test_a_registry_that_fails_does_not_hide_the_store(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(Shelf):
        def list(self) -> Iterable[ModelRecord]:
            raise RuntimeError("broken")

    catalog = Catalog(tmp_path / "store", [BoundedRegistry(Broken(tmp_path / "shelf"))])
    add(catalog, "mine", b"one")
    assert [record.name.model for record in catalog.list()] == ["mine"]
    assert "shelf" in caplog.text


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


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("", "http://localhost:11434"),
        ("/foo/bar", "http://localhost:11434/foo/bar"),
        ("/foo/../bar", "http://localhost:11434/bar"),
        ("example.com", "http://example.com:11434"),
        ("example.com:8080", "http://example.com:8080"),
        ("http://example.com/", "http://example.com:11434"),
        ("https://example.com:8080/path/../other", "https://example.com:8080/other"),
        ("ollama.com", "https://ollama.com:443"),
        ("http://ollama.com", "https://ollama.com:443"),
        ("http://[::1]:8080", "http://[::1]:8080"),
    ],
)
def test_addresses_of_remote_models_are_completed(text: str, url: str) -> None:
    assert remote_url(text) == url
    assert remote_url(url) == url


@pytest.mark.parametrize(
    "text", ["http://[::1]:namedport", "ftp://x", "http://", "http://u:p@x", "http://x?y", "http://[z"]
)
def test_other_addresses_are_refused(text: str) -> None:
    with pytest.raises(BadRequest, match="bad remote"):
        remote_url(text)


def test_nobody_waits_for_a_registry_while_the_store_is_locked(tmp_path: Path) -> None:
    """One that asks another machine may take seconds."""
    free: list[bool] = []

    class Slow:
        name = "slow"

        def list(self) -> Iterable[ModelRecord]:
            return ()

        def find(self, name: ModelName) -> ModelRecord | None:
            def take() -> None:
                with catalog.lock:
                    free.append(True)

            other = threading.Thread(target=take, daemon=True)
            other.start()
            other.join(5)
            free.append(not other.is_alive())
            return None

    catalog = Catalog(tmp_path, [Slow()])
    with pytest.raises(NotFound):
        catalog.delete(name("x"))
    with pytest.raises(NotFound):
        catalog.copy(name("x"), name("y"))
    assert free == [True] * 4


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
