"""Models in the cache of huggingface_hub: what is offered, under which name, and what is left out."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from corectl.errors import Busy
from corectl.model.details import human_number
from corectl.model.gguf import header_of
from corectl.model.manifest import MediaType
from corectl.model.name import ModelName
from corectl.model.record import ModelRecord
from corectl.store.catalog import Catalog
from corectl_huggingface.cache import HuggingFaceCache
from corectl_huggingface.environment import cache_folder
from corectl_huggingface.hashes import Hashes
from tests.backends.conftest import EMBEDDER

HEADER = b'{"w":{"dtype":"F16","shape":[2,2],"data_offsets":[0,8]}}'
WEIGHTS = len(HEADER).to_bytes(8, "little") + HEADER + bytes(8)
CONFIG = {"model_type": "llama", "torch_dtype": "bfloat16", "max_position_embeddings": 64, "hidden_size": 2}


class Cache:
    """A cache as huggingface_hub lays it out."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def add(
        self,
        repository: str,
        revision: str = "a" * 40,
        *,
        main: bool = True,
        config: bytes = json.dumps(CONFIG).encode(),
        files: Mapping[str, bytes] = {},
    ) -> Path:
        """Writes a revision of a safetensors model with further files; or one of these alone, if they are GGUF."""
        folder = self.root / f"models--{repository.replace('/', '--')}"
        snapshot = folder / "snapshots" / revision
        (folder / "blobs").mkdir(parents=True, exist_ok=True)
        snapshot.mkdir(parents=True)
        content = {"model.safetensors": WEIGHTS, "config.json": config, **files}
        if any(name.endswith(".gguf") for name in files):
            content = dict(files)
        for name, data in content.items():
            large = name.endswith(("safetensors", "gguf"))
            blob = folder / "blobs" / (hashlib.sha256 if large else hashlib.sha1)(data).hexdigest()
            blob.write_bytes(data)
            link = snapshot / name
            link.parent.mkdir(exist_ok=True)
            link.symlink_to(os.path.relpath(blob, link.parent))
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
    snapshot = cache.add(
        "Owner/Some-Model", files={"tokenizer.json": b"{}", "README.md": b"# no part of the model"}
    )
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
    cache.add("bad/json", config=b"{")
    broken = cache.add("broken/link")
    (broken / "model.safetensors").unlink()
    (broken / "model.safetensors").symlink_to("../../blobs/gone")
    (cache.root / "models--no--snapshots").mkdir()
    assert [record.name.short for record in HuggingFaceCache().list()] == ["hf.co/good/one:latest"]


def test_it_can_be_copied_into_the_store(cache: Cache, tmp_path: Path) -> None:
    cache.add("o/m", files={"tokenizer.json": b"{}"})
    catalog = Catalog(tmp_path / "store", [HuggingFaceCache()])
    catalog.copy(ModelName.parse("hf.co/o/m"), ModelName.parse("mine"))
    copied, offered = catalog.find(ModelName.parse("mine")), find("hf.co/o/m")
    assert copied is not None and copied.files is not None and offered is not None
    assert copied.origin == "store"
    assert {layer.name: layer.digest for layer in copied.layers} == {
        layer.name: layer.digest for layer in offered.layers
    }
    assert copied.files.read("tokenizer.json", 10) == b"{}"


def test_half_a_download_is_left_out(cache: Cache) -> None:
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    snapshot = cache.add("o/m", files={"model.safetensors.index.json": json.dumps(index).encode()})
    (snapshot / "model.safetensors").unlink()
    assert find("hf.co/o/m") is None
    for number in (1, 2):
        assert find("hf.co/o/m") is None
        (snapshot / f"model-0000{number}-of-00002.safetensors").write_bytes(WEIGHTS)
    record = find("hf.co/o/m")
    assert record is not None
    assert [path.name for path in record.paths(MediaType.MODEL)] == sorted(set(index["weight_map"].values()))


def test_shards_without_an_index_are_counted(cache: Cache) -> None:
    snapshot = cache.add("o/m")
    (snapshot / "model.safetensors").rename(snapshot / "model-00002-of-00002.safetensors")
    assert find("hf.co/o/m") is None
    (snapshot / "model-00001-of-00002.safetensors").write_bytes(WEIGHTS)
    assert find("hf.co/o/m") is not None


@pytest.mark.parametrize("index", [b"{", b"[]", b'{"weight_map": {}}', b'{"weight_map": {"a": 1}}'])
def test_damaged_indices_are_left_out(cache: Cache, index: bytes) -> None:
    cache.add("o/m", files={"model.safetensors.index.json": index})
    assert list(HuggingFaceCache().list()) == []


def test_gguf_models_are_offered_by_quantisation(cache: Cache) -> None:
    data = EMBEDDER.read_bytes()
    cache.add(
        "o/m-GGUF",
        files={
            "m-Q4_K_M.gguf": data,
            "m-q8_0.gguf": data + bytes(32),
            "mmproj-F16.gguf": b"eyes",
            "system": b"Be.",
        },
    )
    records = {record.name.short: record for record in HuggingFaceCache().list()}
    assert set(records) == {"hf.co/o/m-GGUF:Q4_K_M", "hf.co/o/m-GGUF:Q8_0"}
    record = records["hf.co/o/m-GGUF:Q4_K_M"]
    assert (record.config.model_format, record.config.model_family, record.config.file_type) == (
        *("gguf", "bert", "Q4_K_M"),
    )
    assert record.system == "Be." and len(record.paths(MediaType.PROJECTOR)) == 1
    assert record.weights is not None and record.weights.name == "m-Q4_K_M.gguf"
    for text in ("hf.co/o/m-gguf:q4_k_m", "hf.co/O/M-GGUF", "hf.co/o/m-gguf:m-Q4_K_M.gguf"):
        found = find(text)
        assert found is not None and found.digest == record.digest
    assert find("hf.co/o/m-gguf:q5_0") is None


def test_shards_of_a_gguf_model_belong_together(cache: Cache) -> None:
    shards = [f"Q8_0/m-Q8_0-0000{number}-of-00002.gguf" for number in (1, 2)]
    snapshot = cache.add("o/m", files=dict.fromkeys(shards, EMBEDDER.read_bytes()))
    record = find("hf.co/o/m:q8_0")
    assert record is not None
    assert [layer.name for layer in record.layers] == [shard.removeprefix("Q8_0/") for shard in shards]
    assert record.config.model_type == human_number(2 * header_of(EMBEDDER).parameter_count)
    (snapshot / shards[1]).unlink()
    assert find("hf.co/o/m:q8_0") is None


def test_large_files_without_a_digest_keep_nobody_waiting(cache: Cache) -> None:
    """As it is where there are no links."""
    snapshot = cache.add("o/m")
    (snapshot / "model.safetensors").unlink()
    (snapshot / "model.safetensors").write_bytes(WEIGHTS)
    registry = HuggingFaceCache(Hashes(at_once=len(WEIGHTS) - 1))
    with pytest.raises(Busy, match=r"model\.safetensors is being read for the first time"):
        registry.find(ModelName.parse("hf.co/o/m"))
    deadline = time.monotonic() + 30
    while not list(registry.list()):
        assert time.monotonic() < deadline, "it was never hashed"
        time.sleep(0.01)
    (record,) = registry.list()
    assert record.layers[0].digest == f"sha256:{hashlib.sha256(WEIGHTS).hexdigest()}"
    (snapshot / "model.safetensors").write_bytes(WEIGHTS + b" ")
    with pytest.raises(Busy):
        registry.find(ModelName.parse("hf.co/o/m"))


def test_files_are_read_again_when_they_have_changed(cache: Cache) -> None:
    snapshot = cache.add("o/m")
    registry = HuggingFaceCache()
    (first,), (second,) = registry.list(), registry.list()
    assert first is second
    (snapshot / "config.json").unlink()
    (snapshot / "config.json").write_bytes(json.dumps({**CONFIG, "model_type": "gemma3"}).encode())
    (third,) = registry.list()
    assert third.config.model_family == "gemma3" and third.digest != first.digest


def test_sentence_transformers_keep_their_modules(cache: Cache) -> None:
    modules = [
        {"path": "", "type": "Transformer"},
        {"path": "1_Pooling", "type": "Pooling"},
        {"path": "2_Dense"},
    ]
    cache.add(
        "o/m",
        files={
            "modules.json": json.dumps(modules).encode(),
            "1_Pooling/config.json": b"{}",
            "2_Dense/config.json": b"{}",
            "2_Dense/model.safetensors": WEIGHTS,
            "onnx/config.json": b"{}",
        },
    )
    record = find("hf.co/o/m")
    assert record is not None and record.files is not None
    assert [layer.name for layer in record.layers] == [
        *("model.safetensors", "2_Dense/model.safetensors"),
        *("1_Pooling/config.json", "2_Dense/config.json", "config.json", "modules.json"),
    ]
