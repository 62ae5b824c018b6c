"""Models that registries offer beside those in the store."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from corectl.errors import BadRequest, NotFound
from corectl.model.manifest import MediaType, ModelConfig
from corectl.model.name import ModelName
from corectl.model.record import ModelRecord, StoredLayer
from corectl.registry.bounded import BoundedRegistry
from corectl.store.blobs import BlobStore
from corectl.store.catalog import Catalog
from corectl.store.local_file import LocalFile
from tests.core.store_kit import add, digest_of, name


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
