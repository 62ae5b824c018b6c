"""Models in the cache of huggingface_hub: what is offered, under which name, and what is left out."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest

from corectl.model.manifest import MediaType
from corectl.model.name import ModelName
from corectl.model.record import ModelRecord
from corectl.store.catalog import Catalog
from corectl_hfcache.registry import HuggingFaceCache, cache_folder

HEADER = b'{"w":{"dtype":"F16","shape":[2,2],"data_offsets":[0,8]}}'
CONFIG = {"model_type": "llama", "torch_dtype": "bfloat16", "max_position_embeddings": 64, "hidden_size": 2}


class Cache:
    """A cache as huggingface_hub lays it out."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def add(self, repository: str, revision: str = "a" * 40, *, main: bool = True, **files: bytes) -> Path:
        """Writes a revision; further files by keyword, with `_` for the dot in their names."""
        folder = self.root / f"models--{repository.replace('/', '--')}"
        snapshot = folder / "snapshots" / revision
        (folder / "blobs").mkdir(parents=True, exist_ok=True)
        snapshot.mkdir(parents=True)
        weights = len(HEADER).to_bytes(8, "little") + HEADER + bytes(8)
        content = {"model_safetensors": weights, "config_json": json.dumps(CONFIG).encode(), **files}
        for name, data in content.items():
            large = name.endswith("safetensors")
            blob = folder / "blobs" / (hashlib.sha256 if large else hashlib.sha1)(data).hexdigest()
            blob.write_bytes(data)
            link = snapshot / name.replace("_", ".")
            link.symlink_to(os.path.relpath(blob, snapshot))
        if main:
            (folder / "refs").mkdir(exist_ok=True)
            (folder / "refs" / "main").write_text(revision)
        return snapshot


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cache:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    return Cache(tmp_path / "hub")


def find(text: str) -> ModelRecord | None:
    return HuggingFaceCache().find(ModelName.parse(text))


def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    assert cache_folder() == Path("~/.cache/huggingface/hub").expanduser()
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert cache_folder() == Path("/x/huggingface/hub")
    monkeypatch.setenv("HF_HOME", "/h")
    assert cache_folder() == Path("/h/hub")
    monkeypatch.setenv("HF_HUB_CACHE", "/c")
    assert cache_folder() == Path("/c")


def test_without_a_cache_nothing_is_offered(cache: Cache) -> None:
    assert list(HuggingFaceCache().list()) == []
    assert find("hf.co/owner/model") is None


def test_a_model_is_offered_where_it_lies(cache: Cache) -> None:
    snapshot = cache.add("Owner/Some-Model", tokenizer_json=b"{}", README_md=b"# no part of the model")
    (record,) = HuggingFaceCache().list()
    assert record == find("hf.co/owner/some-model:latest")
    assert (record.name.short, record.origin) == ("hf.co/Owner/Some-Model:latest", "the Hugging Face cache")
    assert (record.config.model_format, record.config.model_family, record.config.file_type) == (
        *("safetensors", "llama", "BF16"),
    )
    assert record.files is not None
    assert set(record.files.named) == {"model.safetensors", "config.json", "tokenizer.json"}
    assert record.weights == record.files.weights == snapshot / "model.safetensors"
    weights = record.layers[0]
    assert weights.media_type == MediaType.MODEL
    for layer in record.layers:
        assert layer.digest == f"sha256:{hashlib.sha256(layer.path.read_bytes()).hexdigest()}"


def test_other_names_are_not_found_here(cache: Cache) -> None:
    cache.add("owner/model")
    for text in (
        "model",
        "owner/model",
        "hf.co/owner/other",
        "hf.co/owner/model:q4",
        "example.com/owner/model",
    ):
        assert find(text) is None


def test_the_revision_called_main_counts_else_the_newest(cache: Cache) -> None:
    cache.add("o/m", "a" * 40)
    newer = cache.add("o/m", "b" * 40, main=False)
    os.utime(newer, (2_000_000_000, 2_000_000_000))
    record = find("hf.co/o/m")
    assert record is not None and record.weights is not None and "a" * 40 in str(record.weights)
    for damage in ("", "../../elsewhere", "c" * 40):
        (cache.root / "models--o--m" / "refs" / "main").write_text(damage)
        record = find("hf.co/o/m")
        assert record is not None and record.weights is not None and "b" * 40 in str(record.weights)


def test_what_is_incomplete_or_damaged_is_left_out(cache: Cache) -> None:
    cache.add("good/one")
    (cache.add("no/config") / "config.json").unlink()
    (cache.add("no/weights") / "model.safetensors").unlink()
    cache.add("bad/json", config_json=b"{")
    broken = cache.add("broken/link")
    (broken / "model.safetensors").unlink()
    (broken / "model.safetensors").symlink_to("../../blobs/gone")
    (cache.root / "models--no--snapshots").mkdir()
    assert [record.name.short for record in HuggingFaceCache().list()] == ["hf.co/good/one:latest"]


def test_it_can_be_copied_into_the_store(cache: Cache, tmp_path: Path) -> None:
    cache.add("o/m", tokenizer_json=b"{}")
    catalog = Catalog(tmp_path / "store", [HuggingFaceCache()])
    catalog.copy(ModelName.parse("hf.co/o/m"), ModelName.parse("mine"))
    copied, offered = catalog.find(ModelName.parse("mine")), find("hf.co/o/m")
    assert copied is not None and copied.files is not None and offered is not None
    assert copied.origin == "store"
    assert {layer.name: layer.digest for layer in copied.layers} == {
        layer.name: layer.digest for layer in offered.layers
    }
    assert copied.files.read("tokenizer.json", 10) == b"{}"
