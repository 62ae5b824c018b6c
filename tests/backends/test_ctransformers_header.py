"""Files from before GGUF: which family they are of, and what must not reach the library."""

from __future__ import annotations

import json
import random
import struct
import time
from pathlib import Path

import pytest

from corectl.errors import BadModelFile
from corectl.model.files import ModelFiles
from corectl_ctransformers.format import Ggml
from corectl_ctransformers.header import read_header, read_vocabulary
from tests.legacy_ggml import FAMILIES, KINDS, TINY, Legacy, Size, byte_level, llama, text, write, write_ggml


def refused(path: Path) -> str:
    with pytest.raises(BadModelFile) as caught:
        read_header(path)
    return caught.value.message


def changed(path: Path, at: int, data: bytes) -> Path:
    """The file with other bytes at one place."""
    content = bytearray(path.read_bytes())
    content[at : at + len(data)] = data
    other = path.with_name(f"changed-{at}.bin")
    other.write_bytes(content)
    return other


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_file_shows_its_family(tmp_path: Path, family: str, kind: str) -> None:
    header = read_header(write_ggml(tmp_path / "x.bin", family, kind))
    sizes = header.sizes
    assert (header.family, header.quantization) == (family, kind.upper())
    assert (sizes.width, sizes.heads, sizes.layers) == (TINY.width, TINY.heads, TINY.layers)
    assert sizes.context == (0 if family in ("llama", "falcon") else TINY.context)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_vocabulary_is_read_byte_by_byte(tmp_path: Path, family: str) -> None:
    path = write_ggml(tmp_path / "x.bin", family)
    header = read_header(path)
    vocabulary = read_vocabulary(path, header)
    assert len(vocabulary.tokens) == len(vocabulary.scores) == header.sizes.vocabulary
    if family != "replit":
        start = vocabulary.tokens.index(b"\0")
        assert vocabulary.tokens[start : start + 256] == byte_level()[:256]
    assert b"ing" in vocabulary.tokens


def test_larger_models_are_told_apart_as_well(tmp_path: Path) -> None:
    for size in (
        Size(width=128, heads=16, layers=6, context=2048),
        Size(width=32, heads=2, layers=1, context=8),
    ):
        for family in FAMILIES:
            assert read_header(write_ggml(tmp_path / "x.bin", family, "f16", size)).family == family


@pytest.mark.parametrize("family", FAMILIES)
def test_a_file_that_was_cut_off_is_refused_wherever_it_ends(tmp_path: Path, family: str) -> None:
    data = write_ggml(tmp_path / "x.bin", family, "f16").read_bytes()
    header = read_header(tmp_path / "x.bin")
    first = data.index(header.tensors[0].name.encode())
    ends = [*range(40), first - 9, first + 3, first + 60, len(data) // 2, len(data) - 4, len(data) - 1]
    for end in ends:
        (tmp_path / "cut.bin").write_bytes(data[:end])
        assert refused(tmp_path / "cut.bin")


@pytest.mark.parametrize("family", FAMILIES)
def test_a_file_without_its_last_tensors_is_refused(tmp_path: Path, family: str) -> None:
    """The library would load it, with whatever was in memory for those."""
    model = FAMILIES[family](TINY, 0)
    shapes = dict(list(model.shapes.items())[:-2])
    path = write(tmp_path / "x.bin", Legacy(model.head, shapes, model.padding))
    assert "are missing" in refused(path)


def test_bytes_after_the_last_tensor_are_refused(tmp_path: Path) -> None:
    path = write_ggml(tmp_path / "x.bin")
    path.write_bytes(path.read_bytes() + bytes(100))
    assert "damaged" in refused(path)


@pytest.mark.parametrize("family", FAMILIES)
def test_no_change_of_a_header_does_any_harm(tmp_path: Path, family: str) -> None:
    """A file is read, or refused with a reason; nothing else happens, and it takes no time."""
    path = write_ggml(tmp_path / "x.bin", family)
    data, chance = path.read_bytes(), random.Random(5)
    for _ in range(80):
        content = bytearray(data)
        for _ in range(chance.randint(1, 3)):
            place = chance.choice((chance.randrange(60), chance.randrange(len(data))))
            content[place : place + 4] = struct.pack("<I", chance.choice((0, 1, 2**31, 2**32 - 1, 7, 65)))
        path.write_bytes(content)
        try:
            read_header(path)
        except BadModelFile as exc:
            assert exc.message


def test_tensors_must_be_what_the_numbers_say(tmp_path: Path) -> None:
    model = FAMILIES["gpt2"](TINY, 0)
    name, (rows, columns) = "model/h1/mlp/c_fc/w", model.shapes["model/h1/mlp/c_fc/w"]
    cases: dict[str, dict[str, tuple[int, ...]]] = {
        "does not belong to a gpt2 model": model.shapes | {"model/h2/ln_1/g": (64,)},
        "has the shape (256, 64) instead of (64, 256)": model.shapes | {name: (columns, rows)},
        "has the shape (16384,)": model.shapes | {name: (rows * columns,)},
    }
    for message, shapes in cases.items():
        assert message in refused(write(tmp_path / "x.bin", Legacy(model.head, shapes)))
    # Both the type and the bytes are those of 16 bits, the header says 32.
    assert "is F16 instead of F32" in refused(write(tmp_path / "x.bin", model, "f16"))


def test_a_tensor_that_comes_twice_is_refused(tmp_path: Path) -> None:
    path = write_ggml(tmp_path / "x.bin")
    data = path.read_bytes()
    start = data.index(b"model/ln_f/g") - 16
    path.write_bytes(data + data[start : start + 16 + 12 + 4 * 64])
    assert "two tensors 'model/ln_f/g'" in refused(path)


def test_three_dimensions_are_refused(tmp_path: Path) -> None:
    """The library writes the third one past the end of an array."""
    path = write_ggml(tmp_path / "x.bin")
    at = path.read_bytes().index(b"model/ln_f/g") - 16
    assert "damaged" in refused(changed(path, at, struct.pack("<i", 3)))


def test_names_and_tokens_have_a_sane_length(tmp_path: Path) -> None:
    path = write_ggml(tmp_path / "x.bin")
    data = path.read_bytes()
    assert "a token of its vocabulary has -1 bytes" in refused(changed(path, 32, struct.pack("<i", -1)))
    assert "a token of its vocabulary has" in refused(changed(path, 32, struct.pack("<i", 2**31 - 1)))
    assert "damaged" in refused(changed(path, data.index(b"model/ln_f/g") - 12, struct.pack("<i", 1 << 20)))


@pytest.mark.parametrize("ftype", [2, 1002, 7])
def test_weights_quantised_by_older_versions_are_refused(tmp_path: Path, ftype: int) -> None:
    path = write(tmp_path / "x.bin", FAMILIES["gptj"](TINY, ftype), "q8_0" if ftype == 7 else "q4_0")
    assert "by an older version" in refused(path)


@pytest.mark.parametrize(("version", "kind"), [(1, "q4_0"), (2, "q4_0"), (2, "q8_0")])
def test_so_are_those_of_older_llamas(tmp_path: Path, version: int, kind: str) -> None:
    model = llama(TINY, KINDS[kind].ftype, version=version)
    assert "by an older version" in refused(write(tmp_path / "x.bin", model, kind))


@pytest.mark.parametrize(
    ("magic", "version", "message"),
    [
        (b"tjgg", 4, "ggjt of version 4; known: 1, 2, 3"),
        (b"ccgg", 3, "ggcc of version 3; known: 10"),
        (b"fmgg", 0, "ggmf of version 0; known: 1"),
        (b"GGUF", 3, "does not begin like one"),
    ],
)
def test_unknown_versions_are_named(tmp_path: Path, magic: bytes, version: int, message: str) -> None:
    path = tmp_path / "x.bin"
    path.write_bytes(magic + struct.pack("<8i", version, *range(1, 8)))
    assert message in refused(path)


def test_the_first_llama_files_are_refused_with_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "x.bin"
    numbers = struct.pack("<7i", 32000, 4096, 256, 32, 32, 128, 1)
    path.write_bytes(b"lmgg" + numbers + b"".join(text(b"x") for _ in range(32000)))
    assert "convert the model again, best to GGUF" in refused(path)


def test_a_llama_whose_queries_share_keys(tmp_path: Path) -> None:
    size = Size(heads=8, groups=8)
    assert read_header(write(tmp_path / "x.bin", llama(size, 1), "f16")).sizes.groups == 8
    four = write(tmp_path / "y.bin", llama(Size(heads=8, groups=4), 1), "f16")
    assert "'layers.0.attention.wk.weight' has the shape" in refused(four)


def test_an_mpt_whose_vocabulary_is_no_text_is_refused(tmp_path: Path) -> None:
    """The library would end the process."""
    path = write_ggml(tmp_path / "x.bin", "mpt")
    at = path.read_bytes().index("ÿ".encode())
    assert "is no text" in refused(changed(path, at, b"\xff\xff"))


def test_a_large_vocabulary_takes_no_second(tmp_path: Path) -> None:
    count = 1 << 18
    numbers = struct.pack("<7i", count, 256, 64, 4, 2, 0, count)
    path = tmp_path / "x.bin"
    path.write_bytes(b"lmgg" + numbers + bytes(4) * count)
    before = time.process_time()
    assert "are missing" in refused(path)
    assert time.process_time() - before < 2
    numbers = struct.pack("<7i", count + 1, 256, 64, 4, 2, 0, count + 1)
    path.write_bytes(b"lmgg" + numbers + bytes(100))
    assert "the numbers in the header" in refused(path)


def test_a_file_is_read_anew_when_it_has_changed(tmp_path: Path) -> None:
    path = tmp_path / "x.bin"
    assert read_header(write_ggml(path, "gpt2")).family == "gpt2"
    assert read_header(write_ggml(path, "mpt")).family == "mpt"


def test_what_the_format_says_of_a_file(tmp_path: Path) -> None:
    says = Ggml().describe(ModelFiles(weights=write_ggml(tmp_path / "x.bin", "gptj", "q4_0")))
    assert (says.architecture, says.quantization, says.context_length) == ("gptj", "Q4_0", 256)
    assert (says.embedding_length, says.capabilities, says.chat_template) == (64, ("completion",), "")
    assert 130_000 < says.parameter_count < 140_000


def test_what_is_beside_a_file_counts(tmp_path: Path) -> None:
    weights = write_ggml(tmp_path / "ggml-model.bin", "llama")
    assert Ggml().describe(ModelFiles(weights=weights)).context_length == 2048
    (tmp_path / "config.json").write_text(json.dumps({"max_position_embeddings": 4096, "model_type": "bert"}))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": "{{ messages }}"}))
    named = {path.name: path for path in tmp_path.iterdir()}
    says = Ggml().describe(ModelFiles(weights=weights, named=named))
    assert (says.architecture, says.context_length) == ("llama", 4096)
    assert says.chat_template == "{{ messages }}"


def test_two_models_are_not_one(tmp_path: Path) -> None:
    named = {name: write_ggml(tmp_path / name) for name in ("a.bin", "b.bin")}
    with pytest.raises(BadModelFile, match="2 models"):
        Ggml().describe(ModelFiles(weights=named["a.bin"], named=named))


def test_only_files_from_before_gguf_are_claimed(tmp_path: Path) -> None:
    for magic in (b"lmgg", b"fmgg", b"tjgg", b"ccgg"):
        (tmp_path / "x").write_bytes(magic)
        assert Ggml().claims(ModelFiles(weights=tmp_path / "x"))
    for start in (b"", b"GGUF\3\0\0\0", b"ggml", b"algg", b"PK\3\4"):
        (tmp_path / "x").write_bytes(start)
        assert not Ggml().claims(ModelFiles(weights=tmp_path / "x"))
    assert not Ggml().claims(ModelFiles(weights=tmp_path / "missing"))
