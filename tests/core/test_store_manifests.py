"""Manifests by the names of models, also broken ones."""

from __future__ import annotations

import logging
import os
from datetime import UTC
from pathlib import Path

import pytest

from corectl.errors import BadModelFile, NotFound
from corectl.store.catalog import Catalog
from corectl.store.manifests import ManifestStore
from tests.core.store_kit import add, digest_of, manifest_bytes, name


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


@pytest.mark.parametrize("part", ["", "registry.ollama.ai", "registry.ollama.ai/library"])
def test_no_blob_is_removed_while_a_folder_is_on_a_disk_that_is_not_there(tmp_path: Path, part: str) -> None:
    catalog = Catalog(tmp_path)
    add(catalog, "m", b"one")
    os.utime(catalog.blobs.path_of(digest_of(b"one")), (1, 1))
    folder = tmp_path / "manifests" / part
    away = folder.rename(tmp_path / "away")
    folder.symlink_to("not-mounted")
    assert catalog.list() == []
    catalog.start()
    folder.unlink()
    away.rename(folder)
    assert [record.name.short for record in catalog.list()] == ["m:latest"]
    assert catalog.blobs.exists(digest_of(b"one"))


def test_no_blob_is_removed_while_a_manifest_is_broken(tmp_path: Path) -> None:
    catalog = Catalog(tmp_path)
    add(catalog, "good", b"one")
    catalog.manifests.write(name("bad"), b"{")
    catalog.delete(name("good"))
    assert catalog.blobs.exists(digest_of(b"one"))
    catalog.delete(name("bad"))
    assert catalog.list() == []
