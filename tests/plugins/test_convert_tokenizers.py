"""llama.cpp makes the same tokens of a text as the library tokenizers does, with the vocabulary that was converted."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Regex, Tokenizer, normalizers, pre_tokenizers
from tokenizers.pre_tokenizers import ByteLevel, Digits, Split

from corectl.errors import BadModelFile, NotSupported
from corectl.model.gguf import Header, read_header
from corectl_convert.tokenizers.pretokenizers import KNOWN
from tests.plugins.convert_kit import (
    TEXTS,
    VOCABULARY,
    byte_level,
    change_json,
    converted,
    llama,
    metaspace,
    phi3,
    random_llama,
    sentencepiece,
    write_json,
)

pytest.importorskip("llama_cpp")

KINDS: dict[str, Callable[[], Tokenizer]] = {
    "byte-level": byte_level,
    "sentencepiece": sentencepiece,
    "without a prefix": lambda: sentencepiece(prefix=False),
}
HARD = (
    *TEXTS,
    "I've we'LL 1234567 x=3.14;\r\n\r\n  if (a!=b) {\n\treturn; }   ",
    "ÀÉ Straße ὈΔΥΣΣΕΎΣ Привет שלום مرحبا नमस्ते สวัสดี 안녕 こんにちは你好",
    "CamelCase HTTPServer snake_case kebab-case don’t “quoted”… ½ ² Ⅷ",
    "\x00\x7f\u200b\u00a0\u3000 ",
)


def cut_of(structure: tuple[Any, ...]) -> pre_tokenizers.PreTokenizer:
    """A pre-tokenizer of the steps in the table."""
    made: list[Any] = []
    for step in structure:
        if step[0] == "Split":
            made.append(Split(Regex(step[1]), "isolated"))
        elif step[0] == "Digits":
            made.append(Digits(individual_digits=True))
        else:
            made.append(ByteLevel(add_prefix_space=False, use_regex=step[1]))
    return made[0] if len(made) == 1 else pre_tokenizers.Sequence(made)


def tokens_of(path: Path, texts: tuple[str, ...]) -> list[list[int]]:
    engine = llama(path)
    found = [engine.tokenize(text.encode(), add_bos=True, special=True) for text in texts]
    engine.close()
    return found


def header_of(folder: Path) -> Header:
    return read_header(converted(folder), arrays=True)


@pytest.mark.parametrize("kind", KINDS)
def test_tokens_are_those_of_the_library(tmp_path: Path, kind: str) -> None:
    tokenizer = KINDS[kind]()
    found = tokens_of(converted(random_llama(tmp_path / "m", tokenizer)), TEXTS)
    for text, tokens in zip(TEXTS, found, strict=True):
        assert tokens == tokenizer.encode(text).ids, text


@pytest.mark.parametrize(
    ("template", "texts"),
    [("", ("hello world", "the the")), ("{{ messages }}", ("<|end|>hello<|end|> the", " hello world"))],
)
def test_a_space_before_the_first_text_only_is_there_unless_it_chats(
    tmp_path: Path, template: str, texts: tuple[str, ...]
) -> None:
    """llama.cpp has it before each text after a control token, or not at all."""
    tokenizer = metaspace()
    folder = random_llama(tmp_path / "m", tokenizer)
    write_json(folder / "tokenizer_config.json", {"chat_template": template})
    for text, tokens in zip(texts, tokens_of(converted(folder), texts), strict=True):
        assert tokens == tokenizer.encode(text).ids, text


CHATS = (
    "<|system|>\nhello<|end|>\n<|user|>\n\n the world <|end|>\n<|assistant|>\n",
    "<|endoftext|>\n<|placeholder3|> \t\r\n  hello",
    "<s> the</s> the<unk> the",
    "<tool> the",
    "",
)


@pytest.mark.parametrize("library", [True, False])
def test_white_space_after_phi3s_tokens_is_swallowed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, library: bool
) -> None:
    """From tokenizer.json, or from SentencePiece's own file."""
    tokenizer = phi3()
    folder = random_llama(tmp_path / "m", tokenizer)
    if not library:
        with_model(folder, tokenizer)
    for text, tokens in zip(CHATS, tokens_of(converted(folder), CHATS), strict=True):
        assert tokens == tokenizer.encode(text).ids, text
    assert not said(caplog)


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    """By the converter; llama.cpp says things too."""
    return [record.getMessage() for record in caplog.records if record.name.startswith("corectl_convert")]


def test_white_space_that_llama_cpp_leaves_elsewhere_is_noticed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Each model is cut as most of its tokens have it."""
    nearly = phi3(**{"<tool>": {"rstrip": False}, "<|user|>": {"lstrip": True}})
    folder = random_llama(tmp_path / "nearly", nearly)
    assert header_of(folder).metadata["general.name"] == "phi-3"
    assert said(caplog)[-1].endswith(": <tool>, <|user|>")

    tokenizer = json.loads(byte_level().to_str())
    tokenizer["added_tokens"][0]["rstrip"] = True
    folder = random_llama(tmp_path / "other", Tokenizer.from_str(json.dumps(tokenizer)))
    assert "general.name" not in header_of(folder).metadata
    assert said(caplog)[-1].endswith(": <|end|>")


def test_a_model_is_only_called_phi3_for_its_white_space(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """llama.cpp does not load one with that name that lacks one of four tokens."""
    assert "general.name" not in header_of(random_llama(tmp_path / "m", sentencepiece())).metadata
    tokenizer = json.loads(phi3().to_str())
    tokenizer["added_tokens"] = [
        item for item in tokenizer["added_tokens"] if item["content"] != "<|endoftext|>"
    ]
    folder = random_llama(tmp_path / "without", Tokenizer.from_str(json.dumps(tokenizer)))
    assert "general.name" not in header_of(folder).metadata
    assert tokens_of(folder.with_suffix(".gguf"), ("the",))
    assert "<|user|>" in said(caplog)[-1]


@pytest.mark.parametrize(("structure", "ignores", "name"), [(*key, name) for key, name in KNOWN.items()])
def test_every_cut_in_the_table_is_llama_cpps(
    tmp_path: Path, structure: tuple[Any, ...], ignores: bool, name: str
) -> None:
    tokenizer = byte_level(cut=cut_of(structure), ignore_merges=ignores)
    folder = random_llama(tmp_path / "m", tokenizer)
    assert header_of(folder).metadata["tokenizer.ggml.pre"] == name
    for text, tokens in zip(HARD, tokens_of(tmp_path / "m.gguf", HARD), strict=True):
        assert tokens == tokenizer.encode(text).ids, text


@pytest.mark.parametrize(
    ("cut", "said"),
    [
        (Split(Regex(r"\w+|\s"), "isolated"), r"\\\\w\+"),
        (
            pre_tokenizers.Sequence([pre_tokenizers.Punctuation(), ByteLevel(add_prefix_space=False)]),
            "Punctuation",
        ),
        (ByteLevel(add_prefix_space=True), "add_prefix_space"),
        (pre_tokenizers.Sequence([Digits(), ByteLevel(add_prefix_space=False)]), "Digits"),
    ],
)
def test_an_unknown_cut_is_refused_by_its_steps(tmp_path: Path, cut: Any, said: str) -> None:
    whole = pre_tokenizers.Sequence([cut, ByteLevel(add_prefix_space=False, use_regex=False)])
    folder = random_llama(tmp_path / "m", byte_level(cut=whole))
    with pytest.raises(NotSupported, match=f"pre_tokenizer.*{said}"):
        converted(folder)


@pytest.mark.parametrize(
    ("tokenizer", "said"),
    [
        (lambda: byte_level(normalizer=normalizers.Lowercase()), "Lowercase"),
        (
            lambda: byte_level(normalizer=normalizers.Sequence([normalizers.NFC(), normalizers.Strip()])),
            "Strip",
        ),
    ],
)
def test_an_unknown_normaliser_is_refused(tmp_path: Path, tokenizer: Any, said: str) -> None:
    with pytest.raises(NotSupported, match=f"normalizer.*{said}"):
        converted(random_llama(tmp_path / "m", tokenizer()))


def test_merges_that_leave_out_ways_are_refused(tmp_path: Path) -> None:
    folder = random_llama(tmp_path / "m", sentencepiece(trained_otherwise=True))
    with pytest.raises(NotSupported, match="merges"):
        converted(folder)


def test_kinds_of_tokens_are_kept(tmp_path: Path) -> None:
    tokenizer = sentencepiece()
    metadata = header_of(random_llama(tmp_path / "m", tokenizer)).metadata
    tokens, kinds = metadata["tokenizer.ggml.tokens"], metadata["tokenizer.ggml.token_type"]
    assert len(tokens) == len(kinds) == VOCABULARY
    by_token = dict(zip(tokens, kinds, strict=True))
    assert by_token["<unk>"] == 2
    assert by_token["<s>"] == by_token["<|end|>"] == 3
    assert by_token["<tool>"] == 4
    assert by_token["<0x41>"] == 6
    assert by_token["▁hello"] == 1
    assert kinds[-1] == 5
    assert metadata["tokenizer.ggml.add_bos_token"] is True
    assert metadata["tokenizer.ggml.add_eos_token"] is False


def test_all_tokens_that_end_a_reply_are_kept(tmp_path: Path) -> None:
    folder = random_llama(tmp_path / "m", sentencepiece())
    end = sentencepiece().token_to_id("<|end|>")
    write_json(folder / "generation_config.json", {"eos_token_id": [2, end, 0, 1]})
    metadata = header_of(folder).metadata
    assert [metadata[f"tokenizer.ggml.{name}_token_id"] for name in ("eos", "eot", "eom")] == [2, end, 0]


def test_the_configuration_of_the_tokenizer_comes_first(tmp_path: Path) -> None:
    folder = random_llama(tmp_path / "m")
    end = byte_level().token_to_id("<|end|>")
    write_json(
        folder / "tokenizer_config.json",
        {"eos_token": {"content": "<|end|>"}, "bos_token": "<|end|>", "add_bos_token": True},
    )
    metadata = header_of(folder).metadata
    assert metadata["tokenizer.ggml.eos_token_id"] == metadata["tokenizer.ggml.bos_token_id"] == end
    assert metadata["tokenizer.ggml.add_bos_token"] is True


def test_a_model_that_names_no_end_is_refused(tmp_path: Path) -> None:
    folder = random_llama(tmp_path / "m")
    change_json(folder / "config.json", eos_token_id=None)
    with pytest.raises(BadModelFile, match="eos_token"):
        converted(folder)


def test_chat_templates_are_kept(tmp_path: Path) -> None:
    folder = random_llama(tmp_path / "m")
    templates = [{"name": "default", "template": "old"}, {"name": "tool_use", "template": "{{ tools }}"}]
    write_json(folder / "tokenizer_config.json", {"chat_template": templates})
    assert header_of(folder).metadata["tokenizer.chat_template"] == "old"
    (folder / "chat_template.jinja").write_text("new {{ messages }}")
    metadata = header_of(folder).metadata
    assert metadata["tokenizer.chat_template"] == "new {{ messages }}"
    assert metadata["tokenizer.chat_template.tool_use"] == "{{ tools }}"
    assert metadata["tokenizer.chat_templates"] == ["tool_use"]


def test_added_tokens_without_a_row_are_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tokenizer = byte_level()
    size = tokenizer.get_vocab_size()
    tokenizer.add_tokens(["<beyond>"])
    folder = random_llama(tmp_path / "m", tokenizer, vocab_size=size)
    assert len(header_of(folder).metadata["tokenizer.ggml.tokens"]) == size
    assert "<beyond>" in caplog.text


def _field(number: int, kind: int, data: bytes) -> bytes:
    length = b""
    if kind == 2:
        size = len(data)
        while size >= 0x80:
            length += bytes([size & 0x7F | 0x80])
            size >>= 7
        length += bytes([size])
    key = number << 3 | kind
    return (bytes([key]) if key < 0x80 else bytes([key & 0x7F | 0x80, key >> 7])) + length + data


def sentencepiece_model(tokenizer: Tokenizer, *, prefix: bool = True, kind: int = 2) -> bytes:
    """The same tokenizer as SentencePiece's own file."""
    model = json.loads(tokenizer.to_str())["model"]
    ranks = {"".join(pair): rank for rank, pair in reversed(list(enumerate(model["merges"])))}
    data = b""
    for token, _ in sorted(model["vocab"].items(), key=lambda item: item[1]):
        number = {"<unk>": 2, "<s>": 3, "</s>": 3}.get(token, 6 if token.startswith("<0x") else 1)
        piece = _field(1, 2, token.encode()) + _field(2, 5, struct.pack("<f", -ranks.get(token, 1_000_000)))
        data += _field(1, 2, piece + _field(3, 0, bytes([number])))
    return (
        data
        + _field(2, 2, _field(3, 0, bytes([kind])) + _field(35, 0, b"\1"))
        + _field(3, 2, _field(3, 0, bytes([prefix])))
    )


def with_model(folder: Path, tokenizer: Tokenizer, *, prefix: bool = True) -> None:
    """With tokenizer.model instead of tokenizer.json."""
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer.model").write_bytes(sentencepiece_model(tokenizer, prefix=prefix))
    added = json.loads(tokenizer.to_str())["added_tokens"]
    write_json(
        folder / "tokenizer_config.json", {"added_tokens_decoder": {str(item["id"]): item for item in added}}
    )


@pytest.mark.parametrize("prefix", [True, False])
def test_sentencepieces_own_file_gives_the_same(tmp_path: Path, prefix: bool) -> None:
    tokenizer = sentencepiece(prefix=prefix)
    folder = random_llama(tmp_path / "m", tokenizer)
    with_model(folder, tokenizer, prefix=prefix)
    for text, tokens in zip(TEXTS, tokens_of(converted(folder), TEXTS), strict=True):
        assert tokens == tokenizer.encode(text).ids, text


def test_sentencepieces_own_file_is_read_as_its_library_reads_it(tmp_path: Path) -> None:
    library = pytest.importorskip("sentencepiece")
    path = tmp_path / "tokenizer.model"
    path.write_bytes(sentencepiece_model(sentencepiece()))
    loaded = library.SentencePieceProcessor(model_file=str(path))
    from corectl_convert.tokenizers import protobuf

    pieces = protobuf.read(path.read_bytes()).pieces
    assert [piece.text for piece in pieces] == [loaded.id_to_piece(id) for id in range(loaded.vocab_size())]
    assert [piece.score for piece in pieces] == [loaded.get_score(id) for id in range(loaded.vocab_size())]
    assert loaded.is_byte(pieces.index(next(piece for piece in pieces if piece.kind == 6)))


def test_a_unigram_model_of_sentencepiece_is_refused(tmp_path: Path) -> None:
    folder = random_llama(tmp_path / "m")
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer.model").write_bytes(sentencepiece_model(sentencepiece(), kind=1))
    with pytest.raises(NotSupported, match="not BPE"):
        converted(folder)
