"""The safetensors format plugin: what a folder says of its model, and headers that lie."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from corectl.errors import BadModelFile
from corectl.model.files import ModelFiles
from corectl.model.formats import ModelDescription, TensorSummary
from corectl_safetensors import Safetensors, header
from corectl_safetensors.header import read_header, read_headers

FORMAT = Safetensors()
CONFIG = {"model_type": "llama", "max_position_embeddings": 256, "hidden_size": 4}
TENSORS = {
    "a": {"dtype": "F16", "shape": [3, 4], "data_offsets": [0, 24]},
    "b": {"dtype": "F32", "shape": [4], "data_offsets": [24, 40]},
}


def container(path: Path, tensors: Any = TENSORS, *, data: int = 40, header: bytes | None = None) -> Path:
    """A safetensors file with these entries and so many bytes of data."""
    header = json.dumps({"__metadata__": {"format": "pt"}, **tensors}).encode() if header is None else header
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(data))
    return path


def folder(
    tmp_path: Path, config: Any = CONFIG, tensors: Any = TENSORS, data: int = 40, **texts: str
) -> ModelFiles:
    """A model's files; further ones by keyword, with `_` for the dot in their names."""
    named = {"model.safetensors": container(tmp_path / "model.safetensors", tensors, data=data)}
    for name, text in {"config_json": json.dumps(config), **texts}.items():
        stem, _, suffix = name.rpartition("_")
        path = tmp_path / f"{stem}.{suffix}"
        path.write_text(text)
        named[path.name] = path
    return ModelFiles(weights=named["model.safetensors"], named=named)


def test_a_folder_is_claimed_by_what_is_in_it(tmp_path: Path) -> None:
    files = folder(tmp_path)
    assert FORMAT.claims(files)
    assert not FORMAT.claims(ModelFiles(weights=files.weights))
    del files.named["config.json"]
    assert not FORMAT.claims(files)


def test_what_it_says(tmp_path: Path) -> None:
    files = folder(tmp_path, tokenizer_config_json=json.dumps({"chat_template": "{{ messages }}"}))
    assert FORMAT.describe(files) == ModelDescription(
        architecture="llama",
        parameter_count=16,
        quantization="F16",
        context_length=256,
        embedding_length=4,
        capabilities=("completion",),
        chat_template="{{ messages }}",
    )


def test_weights_that_mlx_has_quantised(tmp_path: Path) -> None:
    tensors = {
        "w.weight": {"dtype": "U32", "shape": [2, 4], "data_offsets": [0, 32]},
        "w.scales": {"dtype": "F16", "shape": [2, 2], "data_offsets": [32, 40]},
        "w.biases": {"dtype": "F16", "shape": [2, 2], "data_offsets": [40, 48]},
        "norm": {"dtype": "F16", "shape": [4], "data_offsets": [48, 56]},
    }
    config = {**CONFIG, "quantization": {"group_size": 64, "bits": 4}}
    found = FORMAT.describe(folder(tmp_path, config, tensors, 56))
    assert (found.quantization, found.parameter_count) == ("int4", 68)


def test_templates_in_a_file_or_by_name(tmp_path: Path) -> None:
    named = json.dumps(
        {"chat_template": [{"name": "rag", "template": "r"}, {"name": "default", "template": "d"}]}
    )
    assert FORMAT.describe(folder(tmp_path, tokenizer_config_json=named)).chat_template == "d"
    odd = json.dumps(
        {"chat_template": [{"name": [], "template": "x"}, 5, {"name": "default", "template": 7}]}
    )
    assert FORMAT.describe(folder(tmp_path, tokenizer_config_json=odd)).chat_template == ""
    both = folder(tmp_path, tokenizer_config_json=named, chat_template_jinja="from the file")
    assert FORMAT.describe(both).chat_template == "from the file"


def test_sizes_of_the_text_part(tmp_path: Path) -> None:
    config = {"model_type": "gemma3", "text_config": {"max_position_embeddings": 9, "hidden_size": 7}}
    found = FORMAT.describe(folder(tmp_path, config))
    assert (found.context_length, found.embedding_length) == (9, 7)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({}, "model_type is missing"),
        ({"model_type": 5}, "model_type is missing"),
        ([1], "config.json is damaged"),
    ],
)
def test_configurations_that_say_nothing(tmp_path: Path, config: Any, message: str) -> None:
    with pytest.raises(BadModelFile, match=message):
        FORMAT.describe(folder(tmp_path, config))


def test_numbers_that_are_none_count_as_not_given(tmp_path: Path) -> None:
    for value in (-1, True, "512", 1e9, 2**70, None):
        found = FORMAT.describe(folder(tmp_path, {**CONFIG, "max_position_embeddings": value}))
        assert found.context_length == 0


def entry(**changes: Any) -> dict[str, Any]:
    return {"a": {**TENSORS["a"], **changes}, "b": TENSORS["b"]}


@pytest.mark.parametrize(
    ("tensors", "data", "message"),
    [
        (TENSORS, 39, "does not lie where"),
        (TENSORS, 41, "1 bytes longer"),
        (entry(data_offsets=[8, 24]), 40, "does not lie where"),
        (entry(shape=[2**39, 2**39]), 40, "does not lie where"),
        (entry(shape=[-3, -4]), 40, "shape that cannot be"),
        (entry(dtype="PICKLE"), 40, "type that is not known"),
        (entry(shape="wide"), 40, "is damaged"),
        ({"a": 1}, 0, "is damaged"),
    ],
)
def test_headers_that_lie(tmp_path: Path, tensors: Any, data: int, message: str) -> None:
    with pytest.raises(BadModelFile, match=message):
        read_header(container(tmp_path / "x.safetensors", tensors, data=data))


@pytest.mark.parametrize(
    "content", [b"", b"\x08", b"\xff" * 8, b"\xff" * 7 + b"\x00{}", (2).to_bytes(8, "little") + b"["]
)
def test_files_that_are_none(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    with pytest.raises(BadModelFile):
        read_header(path)


def test_a_header_nested_without_end(tmp_path: Path) -> None:
    deep = b'{"a":' + b"[" * 200_000 + b"]" * 200_000 + b"}"
    with pytest.raises(BadModelFile, match="damaged"):
        read_header(container(tmp_path / "x.safetensors", header=deep, data=0))


def test_details(tmp_path: Path) -> None:
    config = {
        **CONFIG,
        "text_config": {"num_hidden_layers": 2, "vocab_size": 8},
        "num_attention_heads": "many",
    }
    found = FORMAT.details(folder(tmp_path, config))
    assert found.metadata == {
        "general.architecture": "llama",
        "general.parameter_count": 16,
        "llama.block_count": 2,
        "llama.context_length": 256,
        "llama.embedding_length": 4,
        "llama.vocab_size": 8,
    }
    assert found.tensors == (TensorSummary("a", "F16", (3, 4)), TensorSummary("b", "F32", (4,)))


def test_the_headers_of_all_files_have_one_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [container(tmp_path / f"{number}.safetensors") for number in range(3)]
    length = paths[0].stat().st_size - 8 - 40
    monkeypatch.setattr(header, "MAX_HEADERS", 3 * length)
    monkeypatch.setattr(header, "MAX_TENSORS", 6)
    assert len(read_headers(paths)) == 6
    monkeypatch.setattr(header, "MAX_HEADERS", 3 * length - 1)
    with pytest.raises(BadModelFile, match=r"headers .* longer"):
        read_headers(paths)
    monkeypatch.setattr(header, "MAX_HEADERS", 3 * length)
    monkeypatch.setattr(header, "MAX_TENSORS", 5)
    with pytest.raises(BadModelFile, match="more than 5 tensors"):
        read_headers(paths)


def test_what_is_no_file_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(BadModelFile, match="no safetensors file"):
        read_header(tmp_path / "fifo")
