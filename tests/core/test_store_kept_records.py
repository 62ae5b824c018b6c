"""Records that are kept between two requests, and what makes them be read again."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from corectl.errors import BadModelFile
from corectl.model.manifest import Layer, MediaType, ModelConfig
from corectl.model.record import ModelRecord
from corectl.store import catalog as catalog_module
from corectl.store import kept_records
from corectl.store.catalog import Catalog
from corectl.store.local_file import LocalFile
from corectl.store.manifests import StoredManifest
from tests.core.store_kit import add, name


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    return Catalog(tmp_path)


def find(catalog: Catalog, model: str = "m") -> ModelRecord:
    record = catalog.find(name(model))
    assert record is not None
    return record


def refer(catalog: Catalog, source: Path) -> None:
    """Store a model whose licence is a file where it lies."""
    with LocalFile.open(source) as file:
        stored = catalog.blobs.refer(file, file.digest())
    layer = Layer(media_type=MediaType.LICENSE, digest=stored.digest, size=stored.size)
    catalog.install(name("m"), catalog.manifest_bytes(ModelConfig(), [layer], []))


def test_a_record_is_kept_and_its_texts_with_it(catalog: Catalog) -> None:
    add(catalog, "m", b"one")
    first = find(catalog)
    assert first.licenses == ["one"]
    assert find(catalog) is first
    # Under another spelling it is looked for.
    assert find(catalog, "M") == first


def test_what_replaces_a_model_is_found_at_once(catalog: Catalog) -> None:
    add(catalog, "m", b"one")
    find(catalog)
    # Another server on the same store: nothing tells this one.
    add(Catalog(catalog.blobs.folder.parent), "m", b"two")
    assert find(catalog).licenses == ["two"]
    Catalog(catalog.blobs.folder.parent).delete(name("m"))
    assert catalog.find(name("m")) is None


def test_a_layer_that_goes_is_missed(catalog: Catalog) -> None:
    add(catalog, "m", b"one")
    record = find(catalog)
    assert record.licenses == ["one"]
    record.layers[0].path.unlink()
    with pytest.raises(BadModelFile):
        _ = find(catalog).licenses


def test_a_file_elsewhere_that_changes_is_a_problem(catalog: Catalog, tmp_path: Path) -> None:
    source = tmp_path / "licence"
    source.write_bytes(b"hello")
    refer(catalog, source)
    assert find(catalog) is find(catalog)
    status = source.stat()
    os.utime(source, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    broken = find(catalog)
    assert "has changed" in broken.problem
    # It may be declared sound without being touched: by `corectl verify`.
    assert find(catalog) is not broken


def test_a_large_text_is_not_kept(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_records, "_MAX_TEXT", 3)
    add(catalog, "small", b"one")
    add(catalog, "large", b"four")
    assert find(catalog, "small") is find(catalog, "small")
    assert find(catalog, "large") is not find(catalog, "large")


def test_only_so_many_are_kept(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_records, "_MOST", 2)
    for model in ("a", "b", "c"):
        add(catalog, model, b"one")
    first = find(catalog, "a")
    find(catalog, "b")
    assert find(catalog, "a") is first
    find(catalog, "c")
    assert find(catalog, "a") is not first


def test_a_manifest_that_is_replaced_while_it_is_read_is_not_kept(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(catalog, "m", b"one")
    make = catalog._record

    def replaced(stored: StoredManifest) -> ModelRecord:
        record = make(stored)
        add(Catalog(catalog.blobs.folder.parent, prune=False), "m", b"two")
        return record

    monkeypatch.setattr(catalog, "_record", replaced)
    assert find(catalog).licenses == ["one"]
    monkeypatch.undo()
    assert find(catalog).licenses == ["two"]


def test_a_file_that_is_replaced_while_it_is_looked_at_is_not_kept(
    catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "licence"
    source.write_bytes(b"one")
    refer(catalog, source)

    def replaced(record: ModelRecord, manifest: Path) -> list[kept_records.FileState]:
        source.write_bytes(b"another")
        return kept_records.file_states(record, manifest)

    monkeypatch.setattr(catalog_module, "file_states", replaced)
    assert find(catalog).problem == ""
    monkeypatch.undo()
    assert "has changed" in find(catalog).problem
