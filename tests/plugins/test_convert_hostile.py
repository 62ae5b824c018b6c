"""Files that lie: each is refused with an error that names file and field, quickly, and without much memory."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from corectl.errors import BadModelFile, CorectlError, NotSupported
from corectl.model.files import ModelFiles
from corectl_convert.converter import RESULT, SafetensorsToGguf
from corectl_convert.families import FAMILIES, recipe_of
from corectl_convert.fields import Fields
from corectl_convert.tokenizers import protobuf, tokenizer_metadata
from tests.plugins.convert_kit import (
    byte_level,
    change_json,
    files_of,
    random_llama,
    sentencepiece,
    write_json,
)
from tests.plugins.test_convert_tokenizers import sentencepiece_model

INDEX = "model.safetensors.index.json"
MEMORY = 128 << 20
"""Bytes. A file is read into room for the largest that is allowed, of which it takes what it needs."""


def convert(folder: Path) -> Path:
    """As a job does it."""
    target = folder.with_name("result")
    target.mkdir(exist_ok=True)
    SafetensorsToGguf().convert(files_of(folder), target, lambda written, total: None)
    return target / RESULT


def refused(folder: Path, said: str, error: type[CorectlError] = BadModelFile) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(error, match=said):
            convert(folder)
        assert tracemalloc.get_traced_memory()[1] < MEMORY
    finally:
        tracemalloc.stop()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return random_llama(tmp_path / "m")


ABSURD: tuple[Any, ...] = (-1, 0, 2**63, 2**40, 1.5, "64", True, [64], {}, 1e308)


@pytest.mark.parametrize("value", ABSURD)
@pytest.mark.parametrize(
    "key",
    ["hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size", "max_position_embeddings"],
)
def test_absurd_sizes_name_their_field(folder: Path, key: str, value: Any) -> None:
    change_json(folder / "config.json", **{key: value})
    refused(folder, rf"config\.json.*{key}|{key}.*config\.json")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"rms_norm_eps": "small"}, "rms_norm_eps"),
        ({"rope_theta": -1}, "rope_theta"),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 0}}, "rope_scaling.factor"),
        ({"rope_scaling": {"rope_type": 7}}, "rope_scaling.rope_type"),
        ({"rope_scaling": [1]}, "rope_scaling"),
        ({"tie_word_embeddings": "yes"}, "tie_word_embeddings"),
        ({"architectures": "LlamaForCausalLM"}, "architectures"),
        ({"architectures": None}, "architectures"),
        ({"head_dim": 1}, "head_dim"),
        ({"eos_token_id": 2**70}, "eos_token_id"),
        ({"eos_token_id": 384}, "eos_token_id"),
        ({"num_hidden_layers": 2}, "lack the tensor 'layers.1"),
        ({"intermediate_size": 64}, "mlp.gate_proj.weight.*48.*64"),
        ({"vocab_size": 2**24}, "embed_tokens.weight.*384.*16777216"),
    ],
)
def test_bad_fields_are_named(folder: Path, changes: dict[str, Any], said: str) -> None:
    change_json(folder / "config.json", **changes)
    refused(folder, said)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"architectures": ["MambaForCausalLM"]}, 'unsupported architecture "MambaForCausalLM"'),
        ({"quantization_config": {"quant_method": "gptq"}}, "quantization_config"),
        ({"hidden_act": "relu"}, "hidden_act"),
        ({"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "dynamic"),
    ],
)
def test_what_is_not_supported_is_known_before(folder: Path, changes: dict[str, Any], said: str) -> None:
    change_json(folder / "config.json", **changes)
    assert said in SafetensorsToGguf().why_not(files_of(folder))
    refused(folder, said, NotSupported)


def test_the_server_imports_no_numbers_to_know(folder: Path) -> None:
    code = f"""
import sys
from pathlib import Path
from corectl.model.files import ModelFiles
from corectl_convert import corectl_converters
folder = Path({str(folder)!r})
named = {{path.name: path for path in folder.iterdir()}}
files = ModelFiles(weights=named["model.safetensors"], named=named)
assert corectl_converters()[0].why_not(files) == ""
print({{"gguf", "numpy", "safetensors", "ml_dtypes"}} & sys.modules.keys())
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout == "set()\n"


def test_a_model_without_a_tokenizer_is_known_before(folder: Path) -> None:
    assert SafetensorsToGguf().why_not(files_of(folder)) == ""
    (folder / "tokenizer.json").unlink()
    assert "tokenizer.json" in SafetensorsToGguf().why_not(files_of(folder))
    refused(folder, "tokenizer.json")


def _without(tensors: dict[str, Any]) -> None:
    del tensors["model.norm.weight"]


def _more(tensors: dict[str, Any]) -> None:
    tensors["model.layers.9.mlp.up_proj.weight"] = np.zeros((48, 32), np.float32)


def _twice(tensors: dict[str, Any]) -> None:
    tensors["norm.weight"] = tensors["model.norm.weight"]


def _turned(tensors: dict[str, Any]) -> None:
    tensors["model.layers.0.mlp.up_proj.weight"] = np.zeros((32, 48), np.float32)


def _whole_numbers(tensors: dict[str, Any]) -> None:
    tensors["model.norm.weight"] = np.zeros(32, np.int32)


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        (_without, BadModelFile, "lack the tensor 'norm.weight'"),
        (_more, BadModelFile, r"model\.safetensors.*layers\.9"),
        (_twice, BadModelFile, "are the same one"),
        (_turned, BadModelFile, r"up_proj.*\[32, 48\]"),
        (_whole_numbers, NotSupported, "I32"),
    ],
)
def test_tensors_that_do_not_fit_are_named(
    folder: Path, change: Callable[[dict[str, Any]], None], error: type[CorectlError], said: str
) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")
    refused(folder, said, error)


def test_a_weight_beyond_half_precision_makes_the_file_bf16(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors["model.layers.0.mlp.up_proj.weight"][3, 4] = 1e6
    save_file(tensors, folder / "model.safetensors")
    from corectl.model.gguf import read_header

    header = read_header(convert(folder))
    assert header.metadata["general.file_type"] == 32
    assert {tensor.type_name for tensor in header.tensors} == {"F32", "BF16"}


def test_weights_are_half_precision_and_progress_is_in_bytes(folder: Path, tmp_path: Path) -> None:
    from corectl.model.gguf import read_header

    said: list[tuple[int, int]] = []
    (tmp_path / "out").mkdir()
    SafetensorsToGguf().convert(files_of(folder), tmp_path / "out", lambda *done: said.append(done))
    header = read_header(tmp_path / "out" / RESULT)
    assert header.metadata["general.file_type"] == 1
    assert {tensor.type_name for tensor in header.tensors} == {"F32", "F16"}
    assert said == sorted(said)
    total = sum(tensor.size_bytes for tensor in header.tensors)
    assert said[-1] == (total, total)


@pytest.mark.parametrize("cut", [0, 4, 8, 100, -1])
def test_a_file_that_was_cut_is_damaged(folder: Path, cut: int) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:cut])
    refused(folder, r"model\.safetensors is damaged")


@pytest.mark.parametrize("length", [2**63, 2**64 - 1, 100 << 20, 33 << 20])
def test_the_length_of_a_header_is_not_believed(folder: Path, length: int) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(struct.pack("<Q", length) + path.read_bytes()[8:])
    refused(folder, r"model\.safetensors is damaged")


@pytest.mark.parametrize(
    "entry",
    [
        {"dtype": "F32", "shape": [2**62, 2**62], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [1], "data_offsets": [2**40, 2**40 + 4]},
        {"dtype": "F32", "shape": [1], "data_offsets": [4, 0]},
        {"dtype": "F99", "shape": [1], "data_offsets": [0, 4]},
    ],
)
def test_headers_that_lie_are_damaged(folder: Path, entry: dict[str, Any]) -> None:
    header = json.dumps({"model.norm.weight": entry}).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(4))
    refused(folder, r"model\.safetensors is damaged")


@pytest.mark.parametrize(
    ("index", "said"),
    [
        ({"weight_map": {"a": "../../etc/passwd"}}, "relative"),
        ({"weight_map": {"a": "/etc/passwd.safetensors"}}, "relative"),
        ({"weight_map": {"a": "C:\\x.safetensors"}}, "relative"),
        ({"weight_map": {"a": "model-2.safetensors"}}, "weight_map.*model-2"),
        ({"weight_map": {"a": "config.json"}}, "weight_map"),
        ({"weight_map": {"a": 7}}, "weight_map"),
        ({"weight_map": []}, "weight_map"),
        ({}, "weight_map"),
    ],
)
def test_an_index_names_files_of_the_folder_only(folder: Path, index: dict[str, Any], said: str) -> None:
    write_json(folder / INDEX, index)
    refused(folder, said)


def test_a_tensor_in_two_files_is_named(folder: Path) -> None:
    save_file({"model.norm.weight": np.zeros(32, np.float32)}, folder / "second.safetensors")
    refused(folder, "model.norm.weight.*as well")


def _changed(**changes: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda value: value | changes


def _of_model(**changes: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda value: value | {"model": value["model"] | changes}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_of_model(vocab={"a": 2**63}), "id 9223372036854775808|tokenizer.json is damaged"),
        (_of_model(vocab={"a": -1}), "id -1"),
        (_of_model(vocab={"a": 5, "b": 5}, merges=[]), "two tokens have the id 5"),
        (_of_model(vocab={"a": 400}), "id 400.*vocab_size of 384"),
        (_of_model(vocab=[["a", 1.0]]), "no map from tokens to ids"),
        (_of_model(vocab="a"), "tokenizer.json is damaged"),
        (_of_model(merges=[["a", "zz"]]), "merges"),
        (_of_model(merges=["a"]), "merges"),
        (_of_model(merges=["a b c"]), "merges"),
        (_of_model(merges=[["a b", "c"]]), "merges"),
        (_of_model(merges=[]), "merges is empty"),
        (_changed(model=None), "tokenizer.json is damaged"),
        (_changed(added_tokens=[{"id": 5, "content": "A"}]), "the token 'A' twice"),
        (_changed(added_tokens=[{"id": -5, "content": "x"}]), "id -5"),
        (_changed(added_tokens=[{"id": "5", "content": "x"}]), "tokenizer.json is damaged"),
        (_changed(pre_tokenizer={"type": "Sequence"}), "pretokenizers"),
        (_changed(post_processor={"type": "TemplateProcessing", "single": 3}), "post_processor.single"),
        (
            _changed(post_processor={"type": "TemplateProcessing", "single": [{"a": 1}]}),
            "post_processor.single",
        ),
        (_changed(post_processor={"type": "RobertaProcessing", "cls": 3}), "post_processor.cls"),
    ],
)
def test_tokenizers_that_lie_are_refused(
    folder: Path, change: Callable[[dict[str, Any]], dict[str, Any]], said: str
) -> None:
    path = folder / "tokenizer.json"
    write_json(path, change(json.loads(path.read_text("utf-8"))))
    refused(folder, said)


@pytest.mark.parametrize(
    "data", [b"", b"[" * 100_000, b"{}", b"\xff", b'{"model": {"vocab": {"\\ud800": 1}}}']
)
def test_tokenizer_files_that_are_none_are_refused(folder: Path, data: bytes) -> None:
    (folder / "tokenizer.json").write_bytes(data)
    refused(folder, "tokenizer.json")


def test_a_tokenizer_of_millions_of_values_is_not_read(folder: Path) -> None:
    (folder / "tokenizer.json").write_bytes(b'{"added_tokens": [' + b"[]," * 5_000_000 + b"[]]}")
    refused(folder, "more than 4000000 values")


def test_files_without_an_end_are_not_read(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    files = files_of(folder)
    endless = ModelFiles(weights=files.weights, named={**files.named, "tokenizer.json": Path("/dev/zero")})
    with pytest.raises(BadModelFile, match="no regular file"):
        SafetensorsToGguf().convert(endless, folder.parent, lambda written, total: None)
    weights = ModelFiles(weights=files.weights, named={**files.named, "b.safetensors": Path("/dev/zero")})
    write_json(folder / "x" / "tokenizer.json", {})
    byte_level().save(str(folder / "tokenizer.json"))
    weights = ModelFiles(
        weights=files.weights,
        named={**weights.named, "tokenizer.json": folder / "tokenizer.json"},
    )
    with pytest.raises(BadModelFile, match=r"b\.safetensors is no regular file"):
        SafetensorsToGguf().convert(weights, folder.parent, lambda written, total: None)


def test_the_model_of_sentencepiece_cut_anywhere_is_refused_or_read() -> None:
    data = sentencepiece_model(sentencepiece())
    for cut in range(0, len(data), 7):
        try:
            protobuf.read(data[:cut])
        except BadModelFile as error:
            assert "tokenizer.model" in error.message


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
FIELDS = (
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "intermediate_size",
    "vocab_size",
    "max_position_embeddings",
    "rope_theta",
    "rope_scaling",
    "rope_parameters",
    "rms_norm_eps",
    "sliding_window",
    "layer_types",
    "tie_word_embeddings",
    "hidden_act",
    "hidden_activation",
    "text_config",
    "n_embd",
    "n_layer",
    "n_head",
    "query_pre_attn_scalar",
    "original_max_position_embeddings",
    "type_vocab_size",
    "pad_token_id",
)


@given(st.sampled_from(sorted(FAMILIES)), st.dictionaries(st.sampled_from(FIELDS), VALUES))
def test_any_configuration_is_described_or_refused(name: str, values: dict[str, Any]) -> None:
    sensible = {
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 96,
        "vocab_size": 300,
        "max_position_embeddings": 128,
        "query_pre_attn_scalar": 256,
    }
    config = Fields("config.json", {**sensible, **values, "architectures": [name]})
    try:
        recipe_of(config)
    except (BadModelFile, NotSupported) as error:
        assert "config.json" in error.message


PARTS = ("model", "added_tokens", "normalizer", "pre_tokenizer", "post_processor")
INNER = (
    "vocab",
    "merges",
    "type",
    "unk_token",
    "byte_fallback",
    "ignore_merges",
    "continuing_subword_prefix",
)
LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "intermediate_size": 96,
    "vocab_size": 384,
    "max_position_embeddings": 128,
    "eos_token_id": 2,
}
GOOD = {
    kind: json.loads(made().to_str()) for kind, made in (("bytes", byte_level), ("pieces", sentencepiece))
}


@given(
    st.sampled_from(sorted(GOOD)),
    st.dictionaries(st.sampled_from(PARTS[1:]), VALUES, max_size=2),
    st.dictionaries(st.sampled_from(INNER), VALUES, max_size=2),
    st.dictionaries(st.sampled_from(("bos_token", "eos_token", "add_bos_token", "chat_template")), VALUES),
)
def test_any_tokenizer_is_converted_or_refused(
    tmp_path_factory: pytest.TempPathFactory,
    kind: str,
    parts: dict[str, Any],
    inner: dict[str, Any],
    says: dict[str, Any],
) -> None:
    folder = tmp_path_factory.getbasetemp() / "any"
    good = GOOD[kind]
    write_json(folder / "tokenizer.json", {**good, "model": {**good["model"], **inner}, **parts})
    write_json(folder / "tokenizer_config.json", says)
    config = Fields("config.json", LLAMA)
    files = ModelFiles(
        weights=folder,
        named={path.name: path for path in (folder / "tokenizer.json", folder / "tokenizer_config.json")},
    )
    try:
        tokenizer_metadata(files, config, recipe_of(config))
    except (BadModelFile, NotSupported) as error:
        assert "token" in error.message


@given(st.binary(max_size=200))
def test_any_bytes_are_a_model_of_sentencepiece_or_refused(data: bytes) -> None:
    try:
        protobuf.read(data)
    except BadModelFile as error:
        assert "tokenizer.model" in error.message


def test_a_thousand_layers_with_a_thousand_experts_are_refused_at_once(folder: Path) -> None:
    change_json(
        folder / "config.json",
        architectures=["MixtralForCausalLM"],
        num_hidden_layers=1024,
        num_local_experts=1024,
    )
    started = time.monotonic()
    refused(folder, "lack the tensor|is not known")
    assert time.monotonic() - started < 10
