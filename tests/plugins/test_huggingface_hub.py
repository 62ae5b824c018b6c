"""What a session with the hub offers for a repository."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from corectl.errors import (
    BadModelFile,
    NotFound,
    NotSupported,
)
from corectl.model.manifest import MediaType
from corectl_huggingface.cache import HuggingFaceCache
from tests.plugins.hub_kit import COMMIT, Hub
from tests.plugins.hub_session_kit import CONFIG, FOLDER, GGUF, pull
from tests.registry.host import Answer, Asked, plain


def test_a_quantisation_is_chosen_by_its_tag(hub: Hub) -> None:
    facts = {"gguf": {"total": 1_234_567_890, "architecture": "llama", "context_length": 131072}}
    hub.add("o/m-GGUF", GGUF, facts=facts)
    for name, data in (("hf.co/o/m-GGUF", b"four bits"), ("huggingface.co/o/m-GGUF:q8_0", b"eight bits")):
        pulled = pull(name)
        (weights,) = pulled.layers
        assert weights.digest == f"sha256:{hashlib.sha256(data).hexdigest()}" and weights.size == len(data)
        assert (weights.media_type, weights.name) == (MediaType.MODEL, "")
        config = pulled.config
        assert (config.model_format, config.model_family, config.model_type) == ("gguf", "llama", "1.2B")
    assert config.file_type == "Q8_0" and config.context_length == 131072
    location = pulled.locations[weights.digest]
    assert location.url == f"{hub.url}/o/m-GGUF/resolve/{COMMIT}/m-Q8_0.gguf" and location.headers == {}
    assert hub.cdn.asked == []


def test_what_the_hub_does_not_know_is_left_out(hub: Hub) -> None:
    for facts in (
        {},
        {"gguf": None},
        {"gguf": {"total": -1, "architecture": 7}},
        {"gguf": {"architecture": "\x1b["}},
    ):
        hub.add("o/m", GGUF, facts=facts)
        config = pull("hf.co/o/m").config
        assert (config.model_format, config.model_family, config.model_type) == ("gguf", "", "")


def test_shards_projector_and_texts_are_layers(hub: Hub) -> None:
    hub.add(
        "o/m",
        {
            "Q4_K_M/m-Q4_K_M-00002-of-00002.gguf": b"second",
            "Q4_K_M/m-Q4_K_M-00001-of-00002.gguf": b"first",
            "mmproj-F32.gguf": b"large eyes",
            "mmproj-F16.gguf": b"eyes",
            "template": b"{{ .Prompt }}",
            "system": b"Be kind.",
            "params": b'{"stop": ["</s>"]}',
            "LICENSE": "© somebody".encode("latin-1"),
        },
    )
    pulled = pull("hf.co/o/m")
    names = [f"m-Q4_K_M-0000{number}-of-00002.gguf" for number in (1, 2)]
    assert [layer.name for layer in pulled.of(MediaType.MODEL)] == names
    for layer, data in zip(pulled.layers, (b"first", b"second", b"eyes"), strict=False):
        assert layer.digest == f"sha256:{hashlib.sha256(data).hexdigest()}"
    kinds = (MediaType.TEMPLATE, MediaType.SYSTEM, MediaType.PARAMS, MediaType.LICENSE)
    texts = [pulled.bytes(pulled.of(kind)[0]).decode() for kind in kinds]
    assert texts == ["{{ .Prompt }}", "Be kind.", '{"stop": ["</s>"]}', "\ufffd somebody"]


@pytest.mark.parametrize(
    ("name", "data", "text"),
    [
        ("params", b"[1]", "params is damaged"),
        ("system", b"\xff", "not UTF-8"),
        ("template", bytes(2**23), "large"),
    ],
)
def test_texts_that_are_none_are_refused(hub: Hub, name: str, data: bytes, text: str) -> None:
    hub.add("o/m", {**GGUF, name: data})
    with pytest.raises(BadModelFile, match=text):
        pull("hf.co/o/m")


def test_safetensors_are_a_folder(hub: Hub) -> None:
    hub.add(
        "o/m",
        {
            **FOLDER,
            "generation_config.json": b"{}",
            "chat_template.jinja": b"{{ messages }}",
            "pytorch_model.bin": b"\x80\x04.",
            "modeling_own.py": b"import os",
            "onnx/model.onnx": b"other weights",
            "onnx/config.json": b"{}",
            "modules.json": b'[{"path": ""}, {"path": "1_Pooling"}]',
            "1_Pooling/config.json": b'{"pooling_mode_mean_tokens": true}',
        },
        facts={"safetensors": {"parameters": {"F16": 77_000}, "total": 77_000}},
    )
    pulled = pull("hf.co/o/m")
    assert [layer.name for layer in pulled.of(MediaType.MODEL)] == ["model.safetensors"]
    beside = ["1_Pooling/config.json", "chat_template.jinja", "config.json"]
    beside += ["generation_config.json", "modules.json", "tokenizer.json"]
    assert [layer.name for layer in pulled.of(MediaType.JSON)] == beside
    assert len(pulled.layers) == 7
    config = pulled.config
    assert (config.model_format, config.model_family, config.model_type) == ("safetensors", "llama", "77K")
    assert (config.file_type, config.context_length) == ("F16", 64)
    assert list(pulled.locations) == [pulled.layers[0].digest]


def test_the_index_says_which_files_are_the_weights(hub: Hub) -> None:
    shards = [f"model-0000{number}-of-00002.safetensors" for number in (1, 2)]
    index = json.dumps({"weight_map": {"b": shards[1], "a": shards[0], "c": shards[0]}}).encode()
    files = {**FOLDER, "model.safetensors.index.json": index, "consolidated.safetensors": b"once more"}
    del files["model.safetensors"]
    hub.add("o/m", {**files, shards[0]: b"first", shards[1]: b"second"})
    pulled = pull("hf.co/o/m")
    assert [layer.name for layer in pulled.of(MediaType.MODEL)] == shards
    for wrong in ({shards[0]: b"first"}, {}, {shards[0]: b"first", "consolidated.safetensors": b""}):
        hub.add("o/m", {**files, **wrong})
        with pytest.raises(NotSupported, match="no model that can be pulled"):
            pull("hf.co/o/m")


def test_a_tokenizer_that_is_large_is_fetched_in_parts(hub: Hub) -> None:
    data = b'{"version": "1.0", "model": "' + b"x" * 2**17 + b'"}'
    hub.add("o/m", {**FOLDER, "tokenizer.json": data})
    assert f"sha256:{hashlib.sha256(data).hexdigest()}" in pull("hf.co/o/m").locations


def test_repositories_without_a_model_are_refused(hub: Hub) -> None:
    for files in ({}, {"pytorch_model.bin": b"pickle", "config.json": CONFIG}, {"model.safetensors": b"w"}):
        hub.add("o/m", files)
        with pytest.raises(NotSupported, match="no model that can be pulled"):
            pull("hf.co/o/m")


def test_a_quantisation_that_is_not_there(hub: Hub) -> None:
    hub.add("o/m", GGUF)
    with pytest.raises(NotFound, match="it has Q4_K_M, Q8_0"):
        pull("hf.co/o/m:Q2_K")
    hub.add("o/m", FOLDER)
    with pytest.raises(NotFound, match="has no GGUF files"):
        pull("hf.co/o/m:Q2_K")


def test_a_repository_with_a_new_name_is_found(hub: Hub) -> None:
    hub.add("o/new", GGUF)

    def renamed(asked: Asked, further: Callable[[Asked], Answer]) -> Answer:
        if "/o/old" not in asked.path:
            return further(asked)
        return plain(307, location=asked.path.replace("/o/old", "/o/new"))

    hub.host.layers.append(renamed)
    assert pull("hf.co/o/old").layers


def test_files_in_the_cache_are_not_fetched(hub: Hub, tmp_path: Path) -> None:
    repository = hub.add("o/m", {**FOLDER})
    blobs = tmp_path / "hf" / "hub" / "models--O--M" / "blobs"
    blobs.mkdir(parents=True)
    for path, data in FOLDER.items():
        told = repository.sibling(path)
        (blobs / (told["lfs"]["sha256"] if "lfs" in told else told["blobId"])).write_bytes(data)
    pulled = pull("hf.co/o/m")
    weights = pulled.layers[0]
    assert pulled.offer.here[weights.digest] == blobs / weights.digest.removeprefix("sha256:")
    assert len(hub.host.asked) == 1 and pulled.locations == {}
    for blob in blobs.iterdir():
        blob.write_bytes(b"!" * blob.stat().st_size)
    # The large one is not read for an offer, but when it is taken.
    pulled = pull("hf.co/o/m")
    assert pulled.offer.here[weights.digest] == blobs / weights.digest.removeprefix("sha256:")
    assert hub.host.count("GET", "/resolve/") == 2


def test_the_hubs_own_library_sees_the_same_and_leaves_it_in_the_cache(hub: Hub) -> None:
    """So the hub of these tests is one, and the cache is as that library makes it."""
    pytest.importorskip("huggingface_hub")
    hub.add("o/m", {**FOLDER, "x/deep.txt": b""})
    program = (
        "import huggingface_hub as hub\n"
        "info = hub.HfApi().model_info('o/m', revision='main', files_metadata=True)\n"
        "print(info.sha, sorted(file.rfilename for file in info.siblings))\n"
        "for name in ('config.json', 'tokenizer.json', 'model.safetensors'): hub.hf_hub_download('o/m', name)\n"
    )
    settings = {
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    }
    found = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, **settings},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert found.stdout.strip() == f"{COMMIT} {sorted([*FOLDER, 'x/deep.txt'])}", found.stderr
    listings = [asked.path for asked in hub.host.asked if "/api/models/o/m/" in asked.path]
    assert pull("hf.co/o/m").locations == {}
    assert hub.host.asked[-1].path == listings[0]
    (record,) = HuggingFaceCache().list()
    assert record.name.short == "hf.co/o/m:latest" and len(record.layers) == 3
