"""Vocabularies in a tokenizer.json, on two that are trained here: byte-level, and as sentencepiece has them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from corectl.errors import BadModelFile, LoadFailed
from corectl.runner.hf_tokenizer import HfTokenizer

pytest.importorskip("tokenizers")

from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

CORPUS = (
    "Hello world, how are you today?",
    "The quick brown fox jumps over the lazy dog.",
    "def add(a, b):\n    return a + b",
    "Grüße aus Österreich, und noch mehr Grüße",
)
TEXTS = (
    *CORPUS,
    "",
    " ",
    "  two  spaces \n\n\t and tabs ",
    "日本語のテキスト",
    "🦙👩‍👩‍👧 ok",
    "a\u0301 is not \u00e1",
    "\x01\x1b[0m\x7f",
    "3.14159 and 1234567890",
    "<|im_start|>user\nhi<|im_end|>",
    "one</s>two",
)


def byte_level() -> Tokenizer:
    """As GPT-2 and its successors have it: letters stand for bytes."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=320, initial_alphabet=alphabet, special_tokens=special, show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.add_tokens([AddedToken("<think>", normalized=False)])
    return tokenizer


def sentencepiece() -> Tokenizer:
    """As Llama 2 and Gemma have it: blanks are letters, and bytes are tokens for what has none."""
    byte_tokens = [f"<0x{byte:02X}>" for byte in range(256)]
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    trainer = trainers.BpeTrainer(
        vocab_size=340, special_tokens=["<unk>", "<s>", "</s>", *byte_tokens], show_progress=False
    )
    tokenizer.train_from_iterator([f"▁{text.replace(' ', '▁')}" for text in CORPUS[:2]], trainer)
    layout = json.loads(tokenizer.to_str())
    layout["added_tokens"] = layout["added_tokens"][:3]
    tokenizer = Tokenizer.from_str(json.dumps(layout))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return tokenizer


CONFIGS: dict[str, tuple[Callable[[], Tokenizer], dict[str, Any]]] = {
    "byte-level": (byte_level, {"eos_token": "<|im_end|>", "bos_token": "<|im_start|>"}),
    "sentencepiece": (sentencepiece, {"eos_token": {"content": "</s>"}, "bos_token": {"content": "<s>"}}),
}


def save(folder: Path, kind: str) -> Path:
    make, config = CONFIGS[kind]
    make().save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


def load(folder: Path, vocabulary: int = 100_000, **options: Any) -> HfTokenizer:
    return HfTokenizer(folder, vocabulary=vocabulary, **options)


@pytest.fixture(params=list(CONFIGS))
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return save(tmp_path, request.param)


def test_it_reads_and_writes_as_transformers_does(folder: Path) -> None:
    transformers = pytest.importorskip("transformers")
    theirs = transformers.PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))
    ours = load(folder)
    for text in TEXTS:
        assert ours.encode(text) == theirs.encode(text)
        bare = theirs.encode(text, add_special_tokens=False)
        assert ours.encode(text, add_special=False) == bare
        decoded = ours.decode(bare)
        # They leave out the blank that sentencepiece writes before each text.
        assert theirs.decode(bare) in (decoded, decoded.removeprefix(" "))


def test_every_text_comes_back_byte_for_byte(folder: Path) -> None:
    tokenizer = load(folder)
    for text in TEXTS:
        tokens = tokenizer.encode(text, special=False, add_special=False)
        spelled = b"".join(map(tokenizer.piece, tokens))
        # Sentencepiece writes a blank before each text.
        assert text.encode() in (spelled, spelled.removeprefix(b" "))
        assert tokenizer.decode(tokens) == spelled.decode()


def test_a_character_of_several_tokens_is_in_their_bytes(folder: Path) -> None:
    tokenizer = load(folder)
    tokens = tokenizer.encode("語", special=False, add_special=False)
    pieces = [tokenizer.piece(token) for token in tokens]
    assert b"".join(pieces).strip() == "語".encode()
    assert any(len(piece) == 1 for piece in pieces)
    assert tokenizer.decode(tokens[-1:]) == "�"


def test_a_lone_surrogate_is_replaced(folder: Path) -> None:
    tokenizer = load(folder)
    assert tokenizer.decode(tokenizer.encode("a\ud800b", add_special=False)).strip() == "a?b"


def test_control_tokens_are_read_only_where_that_is_wanted(tmp_path: Path) -> None:
    tokenizer = load(save(tmp_path, "byte-level"))
    text = "<|im_start|>user"
    read, plain = tokenizer.encode(text), tokenizer.encode(text, special=False)
    assert read[0] == 1 and 1 not in plain
    assert tokenizer.piece(1) == b"" and tokenizer.piece(1, special=True) == b"<|im_start|>"
    assert tokenizer.decode(read) == tokenizer.decode(plain) == text
    assert b"".join(map(tokenizer.piece, plain)) == text.encode()


def test_added_tokens_that_are_text_are_text(tmp_path: Path) -> None:
    tokenizer = load(save(tmp_path, "byte-level"))
    (token,) = tokenizer.encode("<think>")
    assert tokenizer.piece(token) == tokenizer.piece(token, special=True) == b"<think>"


def test_what_begins_and_ends_a_text(tmp_path: Path) -> None:
    for kind in CONFIGS:
        (tmp_path / kind).mkdir()
    plain, prefixed = (load(save(tmp_path / kind, kind)) for kind in CONFIGS)
    assert (plain.adds_bos, plain.bos_token, plain.eos_token) == (False, "<|im_start|>", "<|im_end|>")
    assert (prefixed.adds_bos, prefixed.bos_token, prefixed.eos_token) == (True, "<s>", "</s>")
    assert prefixed.encode("Hello")[0] == 1 and prefixed.encode("Hello", add_special=False)[0] != 1
    # One is named by the configuration, the other by what such tokens are called.
    assert [token for token in range(plain.size) if plain.is_end(token)] == [0, 2]
    assert [token for token in range(prefixed.size) if prefixed.is_end(token)] == [2]


def test_ends_come_from_each_file_and_from_the_caller(tmp_path: Path) -> None:
    save(tmp_path, "sentencepiece")
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [2, 100, 99999, "x"]}')
    (tmp_path / "config.json").write_text('{"eos_token_id": 101}')
    tokenizer = load(tmp_path, ends=[102, -1])
    assert [token for token in range(tokenizer.size) if tokenizer.is_end(token)] == [2, 100, 101, 102]
    assert tokenizer.piece(102) == b"" and tokenizer.piece(102, special=True) != b""


def test_the_size_is_that_of_the_model_or_of_the_vocabulary(folder: Path) -> None:
    known = Tokenizer.from_file(str(folder / "tokenizer.json")).get_vocab_size()
    assert load(folder).size == known
    assert load(folder, vocabulary=100).size == 100


def test_a_token_that_the_model_has_no_number_for_is_only_text(tmp_path: Path) -> None:
    save(tmp_path, "byte-level")
    tokenizer = load(tmp_path)
    (beyond,) = tokenizer.encode("<think>")
    smaller = load(tmp_path, vocabulary=beyond)
    found = smaller.encode("a <think> b<|im_end|>")
    assert found and max(found) < smaller.size == beyond


def test_numbers_of_tokens_may_have_gaps(tmp_path: Path) -> None:
    save(tmp_path, "byte-level")
    layout = json.loads((tmp_path / "tokenizer.json").read_text())
    text = next(
        token for token in layout["model"]["vocab"] if token not in ("<|im_end|>",) and len(token) == 1
    )
    layout["model"]["vocab"][text] = 1000
    (tmp_path / "tokenizer.json").write_text(json.dumps(layout))
    tokenizer = load(tmp_path)
    assert tokenizer.size == 1001
    assert tokenizer.encode(tokenizer.piece(1000).decode()) == [1000]


def test_texts_are_neither_cut_nor_filled_up(tmp_path: Path) -> None:
    """Whatever the tokenizer that wrote the file was used for."""
    tokenizer = byte_level()
    tokenizer.enable_truncation(4)
    tokenizer.enable_padding(length=8)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    assert load(tmp_path).decode(load(tmp_path).encode(CORPUS[1])) == CORPUS[1]
    assert len(load(tmp_path).encode("a")) == 1


def test_a_file_without_a_decoder_is_read_by_how_it_splits(tmp_path: Path) -> None:
    save(tmp_path, "byte-level")
    layout = json.loads((tmp_path / "tokenizer.json").read_text())
    layout["decoder"] = None
    (tmp_path / "tokenizer.json").write_text(json.dumps(layout))
    tokenizer = load(tmp_path)
    assert tokenizer.decode(tokenizer.encode("Grüße aus")) == "Grüße aus"


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(LoadFailed, match=r"no tokenizer\.json"):
        load(tmp_path)
    for content in (
        "",
        "{}",
        "[]",
        "nonsense",
        '{"model": {"type": "BPE"}, "added_tokens": [{}]}',
        "[" * 100_000,
    ):
        (tmp_path / "tokenizer.json").write_text(content)
        with pytest.raises(LoadFailed, match=r"tokenizer\.json cannot be used"):
            load(tmp_path)
    save(tmp_path, "byte-level")
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(BadModelFile, match=r"config\.json is no JSON"):
        load(tmp_path)
    (tmp_path / "config.json").write_text("[1]")
    assert load(tmp_path).size > 0
