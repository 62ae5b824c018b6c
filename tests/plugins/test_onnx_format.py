"""What ONNX models say of themselves, and what is not believed: of the file with the graph, and of its settings."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

from corectl.errors import BadModelFile, CorectlError, NotSupported
from corectl.model.files import ModelFiles
from corectl.model.formats import ModelDescription
from corectl_onnx import corectl_model_formats
from corectl_onnx.config import read_config
from corectl_onnx.graph import read_graph
from corectl_onnx.weights import weights_of
from corectl_onnx.wire import MAX_FIELDS
from tests.onnx_file import (
    CACHE,
    DECODER,
    FLOAT,
    FLOAT16,
    UINT8,
    entry,
    genai_config,
    graph,
    message,
    node,
    onnx,
    tensor,
    varint,
    write,
)

(FORMAT,) = corectl_model_formats()
DATA = "model.onnx.data"
PLAIN = onnx(tensor("w", (4, 8), raw=bytes(128)))


def describe(
    folder: Path, file: bytes = PLAIN, config: Any = None, others: Mapping[str, bytes] | None = None
) -> ModelDescription:
    return FORMAT.describe(write(folder, file, config, others))


def test_a_folder_is_claimed_by_its_settings_and_an_onnx_file(tmp_path: Path) -> None:
    path = tmp_path / "x"
    for names, claimed in (
        (("genai_config.json", "model.onnx"), True),
        (("genai_config.json", "cpu/model.onnx"), True),
        (("genai_config.json", "model.safetensors"), False),
        (("config.json", "model.onnx"), False),
        ((), False),
    ):
        assert FORMAT.claims(ModelFiles(weights=path, named=dict.fromkeys(names, path))) is claimed


def test_a_description(tmp_path: Path) -> None:
    found = describe(tmp_path, others={"chat_template.jinja": b"{{ messages }}"})
    assert found.architecture == "llama"
    assert (found.parameter_count, found.quantization) == (32, "F32")
    assert (found.context_length, found.embedding_length) == (128, 16)
    assert found.capabilities == ("completion",)
    assert found.chat_template == "{{ messages }}"


def test_weights_in_another_file_are_counted_and_measured(tmp_path: Path) -> None:
    file = onnx(
        tensor("a", (4, 8), FLOAT16, location="model.onnx.data", offset=0, length=64),
        tensor("b", (2, 4), FLOAT16, location="model.onnx.data", offset=64, length=16),
        tensor("c", (4,), raw=bytes(16)),
    )
    files = write(tmp_path, file, others={DATA: bytes(80)})
    found = weights_of(files, read_config(files))
    assert (found.size, found.parameters, found.quantization) == (96, 44, "F16")


def test_packed_weights_count_as_what_they_stand_for(tmp_path: Path) -> None:
    """Tables of angles, scales and zero points are no parameters."""
    file = onnx(
        tensor("packed", (16, 1, 16), UINT8, raw=bytes(256)),
        tensor("scales", (16,), raw=bytes(64)),
        tensor("zeros", (8,), UINT8, raw=bytes(8)),
        tensor("norm", (16,), raw=bytes(64)),
        tensor("cos", (128, 4), FLOAT16, raw=bytes(1024)),
        nodes=(
            node("MatMulNBits", "x", "packed", "scales", "zeros", K=32, N=16, bits=4),
            node("GroupQueryAttention", "x", "", "", "k", "v", "s", "t", "cos", "cos"),
        ),
    )
    files = write(tmp_path, file)
    found = weights_of(files, read_config(files))
    assert found.parameters == 512 + 16
    large = tensor("packed", (256, 16), UINT8, raw=bytes(4096))
    for bits in (4, 8):
        file = onnx(large, nodes=(node("MatMulNBits", "x", "packed", bits=bits),))
        assert describe(tmp_path, file).quantization == f"int{bits}"


def test_weights_that_are_turned_round_are_in_memory_twice(tmp_path: Path) -> None:
    file = onnx(
        tensor("head", (8, 8), raw=bytes(256)),
        tensor("other", (4,), raw=bytes(16)),
        nodes=(node("Transpose", "head"), node("Transpose", "x")),
    )
    files = write(tmp_path, file)
    found = weights_of(files, read_config(files))
    assert (found.size, found.copied) == (272, 256)


def test_key_value_memory_is_that_of_the_graph(tmp_path: Path) -> None:
    files = write(tmp_path, PLAIN)
    found = weights_of(files, read_config(files))
    assert (found.cell, found.rewinds) == (2 * 2 * 8 * 4, True)
    # Layers may differ, and types too; what the graph leaves open is in the settings.
    inputs = (*CACHE, entry("past_key_values.1.key", (0, 1, 0, 0), FLOAT16))
    files = write(tmp_path, onnx(inputs=inputs))
    assert weights_of(files, read_config(files)).cell == 2 * 2 * 8 * 4 + 8 * 2


@pytest.mark.parametrize(
    ("inputs", "decoder"),
    [
        ((*CACHE, entry("past_conv.0", (0, 16, 3))), {}),
        (CACHE, {"sliding_window": {"window_size": 8, "slide_inputs": False}}),
    ],
    ids=["states", "window"],
)
def test_a_model_that_remembers_more_than_keys_and_values_cannot_go_back(
    tmp_path: Path, inputs: tuple[bytes, ...], decoder: dict[str, Any]
) -> None:
    files = write(tmp_path, onnx(inputs=inputs), genai_config(decoder=decoder))
    assert not weights_of(files, read_config(files)).rewinds


def test_contexts_end_where_a_model_would_rotate_them_anew(tmp_path: Path) -> None:
    for kind, length in (("phi3", 4096), ("phi3small", 8192), ("llama", 131_072)):
        config = genai_config(type=kind, context_length=131_072)
        assert describe(tmp_path, PLAIN, config).context_length == length


@pytest.mark.parametrize(
    "location",
    ["../outside", "/etc/passwd", "missing.data", "*/_ORT_MEM_ADDR_/*", "model.onnx/../../x", "", "x" * 5000],
)
@pytest.mark.parametrize("where", ["weights", "constant", "inner graph", "function", "sparse"])
def test_weights_may_lie_only_in_files_of_the_model(tmp_path: Path, location: str, where: str) -> None:
    (tmp_path / "outside").write_bytes(bytes(100))
    folder = tmp_path / "model"
    folder.mkdir()
    outside = tensor("w", (4,), location=location, offset=0, length=16)
    constant = node("Constant", parts=[(5, outside)])
    file = {
        "weights": onnx(outside),
        "constant": onnx(nodes=[constant]),
        "inner graph": onnx(nodes=[node("If", parts=[(6, graph(weights=[outside]))])]),
        "function": onnx() + message((25, message((1, "f"), (7, constant)))),
        "sparse": message((7, graph(inputs=CACHE) + message((15, message((1, outside)))))),
    }[where]
    with pytest.raises(BadModelFile, match=r"^model\.onnx: "):
        describe(folder, file)


@pytest.mark.parametrize(
    "external",
    [
        {"offset": 64, "length": 16},
        {"offset": 0, "length": 128},
        {"offset": 0, "length": 8},
        {"offset": -4, "length": 16},
        {"offset": 10**30, "length": 16},
        {"offset": "0x0", "length": "sixteen"},
        {"offset": 60},
    ],
)
def test_weights_must_lie_inside_of_their_file(tmp_path: Path, external: dict[str, Any]) -> None:
    file = onnx(tensor("w", (4,), location="model.onnx.data", **external))
    with pytest.raises(BadModelFile, match=r"model\.onnx: tensor 'w'"):
        describe(tmp_path, file, others={DATA: bytes(64)})


def test_shapes_that_cannot_be_are_refused(tmp_path: Path) -> None:
    for dims in ((-1,), (2**40, 2), (1,) * 17):
        with pytest.raises(BadModelFile, match="a shape that cannot be"):
            describe(tmp_path, onnx(tensor("w", dims)))
    unknown = tensor("w", (4,), 99, location="model.onnx.data")
    with pytest.raises(BadModelFile, match="type 99"):
        describe(tmp_path, onnx(unknown), others={DATA: bytes(64)})


def test_a_file_that_is_cut_off_or_no_onnx_file_is_refused(tmp_path: Path) -> None:
    for file in (
        PLAIN[: len(PLAIN) // 2],
        PLAIN[:-1],
        b"GGUF" + bytes(100),
        b"",
        b"\x3a",
        bytes(64),
        b"\xff" * 64,
    ):
        with pytest.raises(BadModelFile, match=r"^model\.onnx: it "):
            describe(tmp_path, file)


def test_no_bytes_whatever_do_harm(tmp_path: Path) -> None:
    """Damage anywhere is refused with a typed error, or does not matter."""
    whole = onnx(
        tensor("a", (4, 8), location="model.onnx.data", offset=0, length=128),
        nodes=[node("If", "a", parts=[(6, graph(weights=[tensor("b", (1,), raw=bytes(4))]))], bits=4)],
    )
    chance = random.Random(1)
    refused = 0
    for _ in range(200):
        data = bytearray(whole)
        for _ in range(chance.randint(1, 4)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        try:
            describe(tmp_path, bytes(data), others={DATA: bytes(128)})
        except CorectlError as exc:
            assert exc.message
            refused += 1
    assert 50 < refused < 200


def test_reading_is_bounded(tmp_path: Path) -> None:
    """In depth, in the number of fields, and by looking at no data."""
    inner = graph()
    for _ in range(40):
        inner = graph(nodes=[node("If", parts=[(6, inner)])])
    with pytest.raises(BadModelFile, match="graphs within one another"):
        describe(tmp_path, message((7, inner)))
    with pytest.raises(BadModelFile, match="fields"):
        describe(tmp_path, message((7, message((3, 1)) * (MAX_FIELDS + 1))))
    packed = message((7, message((5, message((1, bytes(MAX_FIELDS + 1)))))))
    with pytest.raises(BadModelFile, match="fields"):
        describe(tmp_path, packed)
    with pytest.raises(BadModelFile, match="a name of more than"):
        describe(tmp_path, message((7, message((5, message((8, "n" * 10_000)))))))


def test_negative_lengths_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadModelFile):
        describe(tmp_path, varint(7 << 3 | 2) + varint(-1) + bytes(10))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"custom_ops_library": "evil.so"}, "custom_ops_library"),
        ({"enable_profiling": "/tmp/x"}, "enable_profiling"),
        ({"ep.context_file_path": "/tmp/x"}, "ep.context_file_path"),
        ({"session.model_external_initializers_file_folder_path": "/"}, "session.model_external"),
        ({"log_id": ["x"]}, "log_id"),
        ({"provider_options": [{"cuda": {"user_compute_stream": "1234"}}]}, "user_compute_stream"),
        ({"provider_options": [{"cuda": {"gpu_external_alloc": "1"}}]}, "gpu_external_alloc"),
        ({"provider_options": [{"QNN": {"backend_path": "evil.so"}}]}, "backend_path"),
        ({"provider_options": [{"OpenVINO": {"cache_dir": "/tmp"}}]}, "cache_dir"),
        ({"provider_options": [{"Evil": {"library": "x"}}]}, "Evil"),
        ({"provider_options": [{"cuda": {"use_tf32": 1}}]}, "use_tf32"),
        ({"provider_options": "cuda"}, "provider_options"),
        ({"provider_options": [["cuda"]]}, "provider_options"),
    ],
)
def test_options_that_may_do_harm_are_refused_by_name(
    tmp_path: Path, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(BadModelFile, match=said):
        describe(tmp_path, PLAIN, genai_config(decoder={"session_options": options}))


def test_the_library_reads_what_was_checked_and_nothing_else(tmp_path: Path) -> None:
    options = {
        "log_id": "onnxruntime-genai",
        "intra_op_num_threads": 64,
        "enable_mem_pattern": False,
        "provider_options": [{"cuda": {"enable_cuda_graph": "0"}}],
    }
    config = genai_config(decoder={"session_options": options, "surprise": {"x": 1}}, surprise="y")
    found = read_config(write(tmp_path, PLAIN, {**config, "surprise": []}))
    assert found.providers == ("cuda",)
    alone = found.for_library(threads=3, accelerated=False)
    assert "surprise" not in json.dumps(alone)
    settings = alone["model"]["decoder"]["session_options"]
    assert settings["provider_options"] == [] and settings["intra_op_num_threads"] == 3
    assert settings["enable_mem_pattern"] is False
    assert alone["search"] == {"past_present_share_buffer": True}
    assert {**alone["model"]["decoder"], "session_options": {}} == {**DECODER, "session_options": {}}
    accelerated = found.for_library(threads=3, accelerated=True)["model"]["decoder"]["session_options"]
    assert accelerated["provider_options"] == options["provider_options"]
    assert msgspec.json.decode(msgspec.json.encode(alone)) == alone


@pytest.mark.parametrize(
    "changes",
    [
        {"decoder": {"filename": "../model.onnx"}},
        {"decoder": {"filename": "/etc/passwd"}},
        {"decoder": {"filename": "other.onnx"}},
        {"decoder": {"inputs": {"past_key_names": "%s%n"}}},
        {"decoder": {"outputs": {"present_key_names": "a.%d.%d"}}},
        {"decoder": {"inputs": {"past_key_names": 5}}},
        {"decoder": {"num_hidden_layers": 0}},
        {"decoder": {"num_hidden_layers": 10**6}},
        {"decoder": {"head_size": "64"}},
        {"decoder": {"head_size": -1}},
        {"decoder": {"num_key_value_heads": 2**40}},
        {"decoder": None, "vocab_size": True},
        {"vocab_size": 0},
        {"context_length": 2**40},
        {"eos_token_id": 32},
        {"eos_token_id": [2, -1]},
        {"eos_token_id": "2"},
        {"type": "../../x"},
        {"type": ""},
    ],
)
def test_settings_that_cannot_be_are_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(BadModelFile):
        describe(tmp_path, PLAIN, genai_config(**changes))


def test_settings_that_are_no_json_are_refused(tmp_path: Path) -> None:
    files = write(tmp_path, PLAIN)
    for text in ("", "{", "[]", "null", '{"model": []}', "{}", '{"model": {}}', "[" * 100_000):
        (tmp_path / "genai_config.json").write_text(text)
        with pytest.raises(BadModelFile, match=r"genai_config\.json"):
            FORMAT.describe(files)
    (tmp_path / "genai_config.json").write_bytes(b" " * (1 << 21))
    with pytest.raises(BadModelFile, match="larger than"):
        FORMAT.describe(files)


@pytest.mark.parametrize(
    "changes",
    [
        {"vision": {"filename": "vision.onnx"}},
        {"speech": {}},
        {"encoder": {"filename": "encoder.onnx"}},
        {"decoder": {"pipeline": [{"a": {"filename": "model.onnx"}}]}},
        {"decoder": {"shared_initializers": [{"name": "x", "data_file": "/etc/passwd"}]}},
        {"decoder": {"run_options": {"x": "y"}}},
        {"decoder": {"sliding_window": {"window_size": 8}}},
    ],
    ids=["vision", "speech", "encoder", "pipeline", "shared", "run options", "window of inputs"],
)
def test_models_that_are_more_than_a_text_decoder_are_not_supported(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    with pytest.raises(NotSupported, match=r"genai_config\.json"):
        describe(tmp_path, PLAIN, genai_config(**changes))


def test_key_value_memory_that_cannot_be_is_refused(tmp_path: Path) -> None:
    for inputs in (
        (),
        (entry("past_key_values.0.key", (0, 2**20, 0, 2**20)),),
        (entry("past_key_values.0.key", ()),),
    ):
        decoder = {"num_key_value_heads": 2**20, "head_size": 2**20}
        with pytest.raises(BadModelFile, match="key-value memory"):
            describe(tmp_path, onnx(inputs=inputs), genai_config(decoder=decoder))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    files = write(tmp_path, PLAIN)
    (tmp_path / "model.onnx").unlink()
    with pytest.raises(BadModelFile, match=r"model\.onnx cannot be read"):
        FORMAT.describe(files)


def test_a_file_that_has_changed_is_read_again(tmp_path: Path) -> None:
    assert describe(tmp_path, PLAIN).parameter_count == 32
    assert describe(tmp_path, onnx(tensor("w", (8, 8), FLOAT, raw=bytes(256)))).parameter_count == 64


def test_a_graph_is_read_as_the_library_of_the_format_reads_it(tmp_path: Path) -> None:
    theirs = pytest.importorskip("onnx")
    file = onnx(
        tensor("a", (4, 8), FLOAT16, location="model.onnx.data", offset=8, length=64),
        tensor("b", (2,), raw=bytes(8)),
        nodes=[node("MatMulNBits", "x", "a", K=3, bits=4), node("Gather", "b", axis=-1)],
    )
    path = tmp_path / "model.onnx"
    path.write_bytes(file)
    ours, model = read_graph(path), theirs.load(path, load_external_data=False)
    assert [(item.name, item.type, item.count) for item in ours.tensors] == [
        (item.name, item.data_type, 32 if item.name == "a" else 2) for item in model.graph.initializer
    ]
    assert [(item.operator, list(item.inputs)) for item in ours.nodes] == [
        (item.op_type, list(item.input)) for item in model.graph.node
    ]
    assert [item.numbers for item in ours.nodes] == [
        {attribute.name: attribute.i for attribute in item.attribute} for item in model.graph.node
    ]
    assert list(ours.inputs) == [item.name for item in model.graph.input]
