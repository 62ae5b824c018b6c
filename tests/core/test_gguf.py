"""The GGUF header reader, above all with files that mean harm."""

import os
import random
import resource
import struct
import time
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from corectl.errors import BadModelFile
from corectl.model.details import human_number, model_info, tensor_list
from corectl.model.gguf import Header, header_of, read_header

U8, U32, F32, BOOL, STRING, ARRAY, U64 = 0, 4, 6, 7, 8, 9, 10


def text(value: str | bytes) -> bytes:
    raw = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(raw)) + raw


def u32(key: str, value: int) -> bytes:
    return text(key) + struct.pack("<II", U32, value)


ARCHITECTURE = text("general.architecture") + struct.pack("<I", STRING) + text("llama")


def tensor(name: str = "w", shape: tuple[int, ...] = (8,), kind: int = 0, offset: int = 0) -> bytes:
    return text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)


def build(
    keys: list[bytes], tensors: list[bytes] | None = None, *, version: int = 3, data: int = 64, **counts: int
) -> bytes:
    tensors = [tensor()] if tensors is None else tensors
    head = b"GGUF" + struct.pack(
        "<IQQ", version, counts.get("n_tensors", len(tensors)), counts.get("n_keys", len(keys))
    )
    head += b"".join(keys) + b"".join(tensors)
    return head + bytes(-len(head) % 32) + bytes(data)


def read(tmp_path: Path, data: bytes, **options: Any) -> Header:
    path = tmp_path / "model.gguf"
    path.write_bytes(data)
    return read_header(path, **options)


def real_file(path: Path) -> Path:
    """A file as other programs write it, with every kind of value."""
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_block_count(2)
    writer.add_context_length(64)
    writer.add_embedding_length(32)
    writer.add_file_type(15)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_name("hidden")
    writer.add_bool("tokenizer.ggml.add_bos_token", False)
    writer.add_token_list(["<s>", "a", "ä"])
    writer.add_token_types([3, 1, 1])
    writer.add_token_scores([0.0, -1.0, -2.5])
    writer.add_chat_template("{{ messages }}")
    writer.add_uint64("llama.big", 1 << 40)
    writer.add_float64("llama.double", 0.1)
    writer.add_int8("llama.small", -5)
    for name, shape in (("blk.10.a", (4, 32)), ("blk.2.b", (32,)), ("output.weight", (3, 32))):
        writer.add_tensor(name, np.ones(shape, np.float32))
    quantised = gguf.quants.quantize(np.ones((4, 32), np.float32), gguf.GGMLQuantizationType.Q8_0)
    writer.add_tensor("token_embd.weight", quantised, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_a_real_file_reads_as_it_was_written(tmp_path: Path) -> None:
    path = real_file(tmp_path / "real.gguf")
    header = read_header(path)
    expected = gguf.GGUFReader(str(path))
    assert header.architecture == "llama"
    assert (header.number("block_count"), header.number("big")) == (2, 1 << 40)
    assert header.metadata["llama.attention.layer_norm_rms_epsilon"] == 1e-5
    assert header.metadata["llama.double"] == 0.1
    assert header.metadata["llama.small"] == -5
    assert header.metadata["tokenizer.ggml.add_bos_token"] is False
    assert header.metadata["tokenizer.ggml.tokens"] is None
    assert header.array_lengths["tokenizer.ggml.tokens"] == 3
    assert header.parameter_count == 128 + 32 + 96 + 128
    assert header.data_offset == expected.data_offset
    for found, wanted in zip(header.tensors, expected.tensors, strict=True):
        assert (found.name, found.type_name) == (wanted.name, wanted.tensor_type.name)
        assert found.shape == tuple(int(length) for length in wanted.shape)
        assert header.data_offset + found.offset == wanted.data_offset
        assert found.size_bytes == wanted.n_bytes


def test_arrays_are_read_when_asked_for(tmp_path: Path) -> None:
    header = read_header(real_file(tmp_path / "real.gguf"), arrays=True)
    assert header.metadata["tokenizer.ggml.tokens"] == ["<s>", "a", "ä"]
    assert header.metadata["tokenizer.ggml.token_type"] == [3, 1, 1]
    assert header.metadata["tokenizer.ggml.scores"] == [0.0, -1.0, -2.5]


def test_what_may_be_said_of_layers_is_always_read(tmp_path: Path) -> None:
    path = tmp_path / "layers.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_array("llama.attention.head_count_kv", [8, 0, 4])
    writer.add_array("llama.attention.sliding_window_pattern", [True, False, True])
    writer.add_array("llama.long", [1] * 2000)
    writer.add_token_list(["a", "b"])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    header = read_header(path)
    assert header.by_layer == {
        "llama.attention.head_count_kv": (8, 0, 4),
        "llama.attention.sliding_window_pattern": (True, False, True),
    }
    assert header.metadata["llama.attention.head_count_kv"] is None


def test_model_info_is_sorted_and_hides_what_has_its_own_field(tmp_path: Path) -> None:
    path = real_file(tmp_path / "real.gguf")
    info = model_info(path)
    assert list(info) == sorted(info)
    assert not {"general.name", "tokenizer.chat_template"} & set(info)
    assert info["general.parameter_count"] == 384
    assert info["general.quantization_version"] == 2
    assert info["tokenizer.ggml.tokens"] is None
    assert model_info(path, verbose=True)["tokenizer.ggml.tokens"] == ["<s>", "a", "ä"]


def test_tensors_are_listed_by_block(tmp_path: Path) -> None:
    names = [entry.name for entry in tensor_list([real_file(tmp_path / "real.gguf")])]
    assert names == ["output.weight", "token_embd.weight", "blk.2.b", "blk.10.a"]


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    path = real_file(tmp_path / "real.gguf")
    data = path.read_bytes()
    header = read_header(path)
    last = max(tensor.offset + tensor.size_bytes for tensor in header.tensors) + header.data_offset
    for length in (*range(header.data_offset + 1), last - 1):
        with pytest.raises(BadModelFile):
            read(tmp_path, data[:length])
    assert read(tmp_path, data[:last]).parameter_count == 384


def test_flipped_bytes_never_do_worse_than_an_error(tmp_path: Path) -> None:
    data = real_file(tmp_path / "real.gguf").read_bytes()
    dice = random.Random(7)
    for _ in range(1500):
        hurt = bytearray(data)
        for _ in range(dice.randint(1, 4)):
            hurt[dice.randrange(700)] = dice.choice((0, 1, 127, 128, 255, dice.randrange(256)))
        try:
            header = read(tmp_path, bytes(hurt), arrays=dice.random() < 0.5)
        except BadModelFile:
            continue
        assert all(header.data_offset + one.offset + one.size_bytes <= len(data) for one in header.tensors)


HUGE = (1 << 32) - 1, 1 << 63, (1 << 64) - 1


@pytest.mark.parametrize(
    "data", [b"", b"GG", b"GGML" + bytes(64), b"hello blob", b"FUGG" + bytes(64), bytes(4096)]
)
def test_other_files_are_not_gguf(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(BadModelFile, match=r"^supplied file was not in GGUF format$"):
        read(tmp_path, data)


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (build([ARCHITECTURE], version=1), "version 1 is not supported"),
        (build([ARCHITECTURE], version=4), "version 4 is not supported"),
        (b"GGUF" + struct.pack(">IQQ", 3, 0, 0) + bytes(64), "big-endian"),
        *((build([ARCHITECTURE], n_keys=huge), "metadata keys") for huge in HUGE),
        *((build([ARCHITECTURE], n_tensors=huge), "tensors") for huge in HUGE),
        *((build([struct.pack("<Q", huge) + b"k" * 99]), "truncated|at most") for huge in HUGE),
        *((build([text("k") + struct.pack("<IQ", STRING, huge)]), "truncated") for huge in HUGE),
        *((build([text("k") + struct.pack("<IIQ", ARRAY, U8, huge)]), "truncated") for huge in HUGE),
        *((build([text("k") + struct.pack("<IIQ", ARRAY, U64, huge)]), "truncated") for huge in HUGE),
        *((build([text("k") + struct.pack("<IIQ", ARRAY, STRING, huge)]), "truncated") for huge in HUGE),
        (build([text("k") + struct.pack("<IIQQ", ARRAY, STRING, 1, 1 << 63)]), "truncated"),
        (build([text("k") + struct.pack("<IIQ", ARRAY, ARRAY, 1)]), "nested array"),
        (build([text("k") + struct.pack("<IIQ", ARRAY, 99, 1)]), "unknown value type 99"),
        (build([text("k") + struct.pack("<I", 13)]), "unknown value type 13"),
        (build([ARCHITECTURE, ARCHITECTURE]), "duplicate key"),
        (build([text(b"\xff") + struct.pack("<II", U32, 1)]), "not UTF-8"),
        (build([]), "general.architecture"),
        (build([u32("general.architecture", 1)]), "general.architecture"),
        *((build([ARCHITECTURE, u32("general.alignment", n)]), "alignment") for n in (0, 3, 33, 1 << 31)),
        (build([ARCHITECTURE, text("general.alignment") + struct.pack("<I", BOOL) + b"\x01"]), "alignment"),
        (build([ARCHITECTURE, u32("llama.block_count", 0)]), "block_count 0"),
        (build([ARCHITECTURE, u32("llama.block_count", 0xFFFFFFFF)]), "block_count"),
        (build([ARCHITECTURE, text("llama.block_count") + struct.pack("<If", F32, 1.0)]), "block_count"),
        (build([ARCHITECTURE, u32("llama.embedding_length", 0)]), "embedding_length 0"),
        (build([ARCHITECTURE], [tensor(), tensor(offset=32)]), "duplicate tensor"),
        (build([ARCHITECTURE], [tensor(shape=(1,) * 5)]), "5 dimensions"),
        (build([ARCHITECTURE], [text("w") + struct.pack("<I", 1 << 31)]), "dimensions"),
        (build([ARCHITECTURE], [tensor(shape=(0,))]), "shape"),
        (build([ARCHITECTURE], [tensor(shape=(1 << 32, 1 << 32))]), "shape"),
        (build([ARCHITECTURE], [tensor(shape=(1 << 63, 2))]), "shape"),
        (build([ARCHITECTURE], [tensor(shape=(1 << 60,))]), "past its end"),
        (build([ARCHITECTURE], [tensor(shape=(17,))]), "past its end"),
        (build([ARCHITECTURE], [tensor(offset=1 << 63)]), "past its end"),
        (build([ARCHITECTURE], [tensor(offset=64)]), "past its end"),
        (build([ARCHITECTURE], [tensor(offset=4)]), "not aligned"),
        (build([ARCHITECTURE], [tensor("a", (16,)), tensor("b", offset=32)]), "overlaps"),
        (build([ARCHITECTURE], [tensor(kind=4)]), "unknown type 4"),
        (build([ARCHITECTURE], [tensor(kind=99)]), "unknown type 99"),
        (build([ARCHITECTURE], [tensor(shape=(31,), kind=8)]), "do not divide"),
        (build([ARCHITECTURE], [tensor("n" * 65)]), "at most 64"),
    ],
)
def test_hostile_headers_are_refused_in_words(tmp_path: Path, data: bytes, problem: str) -> None:
    started = time.perf_counter()
    for arrays in (False, True):
        with pytest.raises(BadModelFile, match=problem) as caught:
            read(tmp_path, data, arrays=arrays)
        assert str(tmp_path) not in caught.value.message
    assert time.perf_counter() - started < 1


def test_a_flood_of_strings_is_refused_fast(tmp_path: Path) -> None:
    count = 3 << 20
    flood = text("k") + struct.pack("<IIQ", ARRAY, STRING, count) + bytes(8 * count)
    started = time.perf_counter()
    with pytest.raises(BadModelFile, match="strings"):
        read(tmp_path, build([ARCHITECTURE, flood]))
    assert time.perf_counter() - started < 1


def test_millions_of_keys_and_tensors_are_refused_fast(tmp_path: Path) -> None:
    """Real ones: the file is as large as it says."""
    million = 1_000_000
    path = tmp_path / "keys.gguf"
    path.write_bytes(build([u32("k", 1)] * million, []))
    started = time.process_time()
    with pytest.raises(BadModelFile, match="metadata keys"):
        read_header(path)
    path.write_bytes(build([ARCHITECTURE], [tensor()] * million))
    with pytest.raises(BadModelFile, match="tensors"):
        read_header(path)
    assert time.process_time() - started < 5


@pytest.mark.parametrize("arrays", [False, True])
def test_a_header_takes_little_memory(tmp_path: Path, arrays: bool) -> None:
    """As much of everything as is allowed, which no published model has."""
    keys = [u32(f"k{number}", number) for number in range(8000)]
    tensors = [tensor(f"t{number}", offset=number * 32) for number in range(60_000)]
    numbers = text("numbers") + struct.pack("<IIQ", ARRAY, U64, 1 << 20) + bytes(8 << 20)
    strings = text("strings") + struct.pack("<IIQ", ARRAY, STRING, 1 << 20) + bytes(8 << 20)
    path = tmp_path / "large.gguf"
    path.write_bytes(build([ARCHITECTURE, numbers, strings, *keys], tensors, data=32 * 60_000))
    del keys, tensors, numbers, strings
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert len(read_header(path, arrays=arrays).tensors) == 60_000
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 192 << 10  # KiB


def test_long_strings_are_skipped_without_reading_them(tmp_path: Path) -> None:
    long = text("k") + struct.pack("<IIQ", ARRAY, STRING, 3) + text(b"x" * 3_000_000) * 3
    header = read(tmp_path, build([long, ARCHITECTURE]))
    assert header.array_lengths == {"k": 3}
    assert header.architecture == "llama"


def test_a_long_scalar_text_is_refused(tmp_path: Path) -> None:
    data = build([text("k") + struct.pack("<I", STRING) + text(b"x" * (9 << 20)), ARCHITECTURE])
    with pytest.raises(BadModelFile, match="at most"):
        read(tmp_path, data)


def test_version_2_and_files_without_tensors_are_fine(tmp_path: Path) -> None:
    assert read(tmp_path, build([ARCHITECTURE], version=2)).version == 2
    assert read(tmp_path, build([ARCHITECTURE], [])).tensors == ()


def test_a_scalar_tensor_has_one_element(tmp_path: Path) -> None:
    assert read(tmp_path, build([ARCHITECTURE], [tensor(shape=())])).parameter_count == 1


def test_texts_that_are_not_utf8_still_read(tmp_path: Path) -> None:
    header = read(tmp_path, build([ARCHITECTURE, text("k") + struct.pack("<I", STRING) + text(b"\xff\xfe")]))
    assert header.metadata["k"] == "\ufffd\ufffd"


def test_numbers_that_json_lacks_become_null(tmp_path: Path) -> None:
    path = tmp_path / "nan.gguf"
    path.write_bytes(build([ARCHITECTURE, text("k") + struct.pack("<If", F32, float("nan"))]))
    assert model_info(path)["k"] is None


def test_what_is_no_file_is_refused_without_reading(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    for path in (fifo, tmp_path, Path("/dev/zero")):
        with pytest.raises(BadModelFile, match="not in GGUF format"):
            read_header(path)


def test_headers_are_remembered_until_the_file_changes(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(build([ARCHITECTURE]))
    first = header_of(path)
    assert header_of(path) is first
    path.write_bytes(build([ARCHITECTURE, u32("llama.block_count", 7)]))
    assert header_of(path).number("block_count") == 7


@pytest.mark.parametrize(
    ("count", "shown"),
    [
        *((134_515_008, "134.52M"), (268_098_176, "268.10M"), (76_992, "77K"), (35_392_320, "35.39M")),
        *((8_030_000_000, "8.0B"), (7_000_000_000, "7B"), (137_000_000, "137M"), (999, "999"), (0, "0")),
    ],
)
def test_parameter_counts_read_as_people_write_them(count: int, shown: str) -> None:
    assert human_number(count) == shown
