"""Models that installed distributions ship."""

from __future__ import annotations

import base64
import hashlib
import importlib
import importlib.metadata
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from corectl.model.gguf import Header, header_of
from corectl.model.manifest import MediaType
from corectl.model.name import ModelName
from corectl_packaged import corectl_registries, registry
from corectl_packaged.registry import GROUP, PackagedModels
from tests.core.fake import write_distribution

EXPLODES = "raise RuntimeError('imported')"


class Site:
    """A folder of installed distributions with models."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def package(self, package: str, *files: str, size: int = 32) -> list[Path]:
        """A package that must not be imported, with these model files."""
        (self.folder / package).mkdir(parents=True)
        (self.folder / package / "__init__.py").write_text(EXPLODES)
        return [self._model(self.folder / package / name, size) for name in files]

    @staticmethod
    def _model(path: Path, size: int) -> Path:
        writer = gguf.GGUFWriter(str(path), "llama")
        writer.add_file_type(1)
        writer.add_tensor("token_embd.weight", np.ones(size, np.float32))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return path

    def install(self, dist: str, models: dict[str, str], *, record: dict[Path, str] | None = None) -> None:
        """A distribution that offers models (name to package), with these hashes in its RECORD."""
        lines = (f"{path.relative_to(self.folder)},{text},1\n" for path, text in (record or {}).items())
        write_distribution(self.folder, dist, {GROUP: models}, record="".join(lines))
        importlib.invalidate_caches()


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """Only what the test installs is there."""
    monkeypatch.syspath_prepend(str(tmp_path))
    paths = [str(tmp_path)]

    def only_here(**select: Any) -> Any:
        found = [
            entry for dist in importlib.metadata.distributions(path=paths) for entry in dist.entry_points
        ]
        return importlib.metadata.EntryPoints(found).select(**select)

    monkeypatch.setattr(importlib.metadata, "entry_points", only_here)
    monkeypatch.setattr(registry, "KNOWN", {})
    registry._hash.cache_clear()
    yield Site(tmp_path)
    assert not [name for name in sys.modules if name.startswith("site_")], "a package was imported"


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def recorded(digest: bytes) -> str:
    return "sha256=" + base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def names() -> list[str]:
    return [record.name.short for record in PackagedModels().list()]


def digest_of(name: str) -> str:
    record = PackagedModels().find(ModelName.parse(name))
    assert record is not None
    return record.layers[0].digest


def test_it_is_offered_by_its_name() -> None:
    assert [offered.name for offered in corectl_registries()] == ["packaged"]


def test_a_model_is_used_where_it_lies(site: Site) -> None:
    (path,) = site.package("site_tiny", "model.gguf")
    site.install("tiny-model", {"tiny": "site_tiny"})
    (record,) = PackagedModels().list()
    assert record.name.short == "tiny:latest"
    assert record.origin == "package tiny-model 1.0"
    assert record.weights == path and record.layers[0].media_type == MediaType.MODEL
    assert record.layers[0].digest == f"sha256:{sha256(path)}"
    assert record.layers[0].size == path.stat().st_size < record.size
    assert (record.config.model_format, record.config.model_family) == ("gguf", "llama")
    assert (record.config.model_type, record.config.file_type) == ("32", "F16")
    assert record.modified_at.timestamp() == pytest.approx(path.stat().st_mtime)
    assert len(record.digest) == 64


@pytest.mark.parametrize(
    "asked", ["tiny", "TINY:latest", "library/Tiny", "registry.ollama.ai/library/tiny:latest"]
)
def test_find_ignores_case_and_defaults(site: Site, asked: str) -> None:
    site.package("site_tiny", "model.gguf")
    site.install("tiny-model", {"Tiny": "site_tiny"})
    found = PackagedModels().find(ModelName.parse(asked))
    assert found is not None and found.name.model == "Tiny"
    assert PackagedModels().find(ModelName.parse("tiny:1b")) is None


def test_what_is_known_of_a_file_holds_until_it_changes(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    (path,) = site.package("site_tiny", "model.gguf")
    site.install("tiny-model", {"tiny": "site_tiny"})
    models, reads = PackagedModels(), []

    def read(file: Path) -> Header:
        reads.append(file)
        return header_of(file)

    monkeypatch.setattr(registry, "header_of", read)
    name = ModelName.parse("tiny")
    first = models.find(name)
    assert models.find(name) is first and list(models.list()) == [first] and reads == [path]
    site._model(path, 64)
    os.utime(path, (1e9, 1e9))
    second = models.find(name)
    assert first is not None and second is not None
    assert second.size > first.size and second.layers[0].digest == f"sha256:{sha256(path)}"
    path.unlink()
    assert models.find(name) is None


def test_names_may_have_tags(site: Site) -> None:
    site.package("site_tiny", "model.gguf")
    write_distribution(site.folder, "tagged", {GROUP: {"me/tiny": "site_tiny"}})
    assert names() == ["me/tiny:latest"]


def test_the_hash_that_the_installer_recorded_saves_reading(site: Site) -> None:
    (path,) = site.package("site_tiny", "model.gguf")
    site.install("tiny-model", {"tiny": "site_tiny"}, record={path: recorded(b"\x01" * 32)})
    assert digest_of("tiny") == "sha256:" + "01" * 32


def test_two_files_of_one_name_in_a_distribution_keep_their_own_hashes(site: Site) -> None:
    (one,) = site.package("site_one", "model.gguf", size=32)
    (two,) = site.package("site_two", "model.gguf", size=64)
    record = {path: recorded(hashlib.sha256(path.read_bytes()).digest()) for path in (one, two)}
    site.install("two-models", {"one": "site_one", "two": "site_two"}, record=record)
    assert digest_of("one") == f"sha256:{sha256(one)}"
    assert digest_of("two") == f"sha256:{sha256(two)}"


@pytest.mark.parametrize("text", ["", "md5=abc", "sha256=", "sha256=!!!", "sha256=abc", "sha256=ä"])
def test_a_record_that_is_no_hash_is_not_believed(site: Site, text: str) -> None:
    (path,) = site.package("site_tiny", "model.gguf")
    site.install("tiny-model", {"tiny": "site_tiny"}, record={path: text})
    assert digest_of("tiny") == f"sha256:{sha256(path)}"


def test_a_file_that_changes_gets_another_hash(site: Site) -> None:
    (path,) = site.package("site_tiny", "model.gguf")
    site.install("tiny-model", {"tiny": "site_tiny"})
    before = digest_of("tiny")
    path.write_bytes(path.read_bytes() + b"more")
    assert digest_of("tiny") == f"sha256:{sha256(path)}" != before


DAMAGED = {
    "no_package": {"bad": "site_none"},
    "no_file": {"bad": "site_empty"},
    "two_files": {"bad": "site_double"},
    "module": {"bad": "site_module"},
    "header": {"bad": "site_header"},
    "inner": {"bad": "site_empty.inner"},
    "name": {"not a name!": "site_good"},
    "value": {"bad": "???"},
}


@pytest.mark.parametrize("what", DAMAGED)
def test_a_damaged_offer_is_logged_and_spoils_no_other(
    site: Site, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    site.package("site_good", "model.gguf")
    site.package("site_empty")
    site.package("site_double", "a.gguf", "b.gguf")
    (header,) = site.package("site_header", "model.gguf")
    header.write_bytes(b"GGUF")
    (site.folder / "site_module.py").write_text(EXPLODES)
    site.install("good", {"good": "site_good"})
    site.install("damaged", DAMAGED[what])
    with caplog.at_level(logging.WARNING):
        assert names() == ["good:latest"]
    assert len(caplog.records) == 1
    assert PackagedModels().find(ModelName.parse("good")) is not None
    assert PackagedModels().find(ModelName.parse("bad")) is None


def test_each_name_is_offered_once(site: Site) -> None:
    site.package("site_a", "model.gguf", size=32)
    site.package("site_b", "model.gguf", size=64)
    site.install("dist-b", {"TINY": "site_b"})
    site.install("dist-a", {"tiny": "site_a"})
    assert names() == ["TINY:latest"]
    assert digest_of("tiny") == f"sha256:{sha256(site.folder / 'site_b' / 'model.gguf')}"


def test_known_distributions_that_do_not_know_us(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.package("site_known", "model.gguf")
    write_distribution(site.folder, "knows-nothing", {})
    importlib.invalidate_caches()
    known = {"known": ("knows-nothing", "site_known"), "absent": ("not-installed-at-all", "site_absent")}
    monkeypatch.setattr(registry, "KNOWN", known)
    assert names() == ["known:latest"]
    site.package("site_own", "model.gguf", size=64)
    site.install("own", {"Known": "site_own"})
    assert names() == ["Known:latest"]
