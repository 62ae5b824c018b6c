"""A prompt that begins as one before is not tokenised again, and has the same tokens as if it were."""

from __future__ import annotations

from pathlib import Path

import gguf
import llama_cpp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from corectl_llamacpp.chunks import CHUNK, chunks, spans_words
from corectl_llamacpp.engine import LlamaEngine
from corectl_llamacpp.tokenizer import LlamaTokenizer
from tests.tiny_qwen import byte_tokens

WORDS = [
    "the sky",
    " is blue",
    " we'll",
    "don't",
    "A B c",
    "aaaa aaaa",
    "3 apples",
    " 1234567",
    "_x y_",
    "-a -b",
]
SPACES = ["\n", "\n\n", "  ", "\t", "\r\n", "    if x:\n", "... ", "/* x */", "\u00a0x", "a \u200bb"]
LETTERS = ["e\u0301 a", "Straße nach", " день ночь", "日本語 の本", "²a b", "😀 smile", "\ud800 x y"]
CONTROLS = ["<|im_start|>", "<|im_end|>\n", "<|im_start|>user\n"]
PARTS = WORDS + SPACES + LETTERS + CONTROLS
TEXTS = st.lists(st.sampled_from(PARTS), min_size=150, max_size=300).map("".join)


def write_vocabulary(path: Path, merges: list[str], pre: str) -> Path:
    """A GGUF file with a vocabulary of bytes, and of what the merges make of them."""
    writer = gguf.GGUFWriter(path, "llama")
    made = [merge.replace(" ", "") for merge in merges]
    tokens = [*byte_tokens(), *made, "<|end|>"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types([gguf.TokenType.NORMAL] * (len(tokens) - 1) + [gguf.TokenType.CONTROL])
    writer.add_token_merges(merges)
    writer.add_eos_token_id(len(tokens) - 1)
    writer.add_add_bos_token(False)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    return path


def vocabulary(path: Path) -> LlamaTokenizer:
    params = llama_cpp.llama_model_default_params()
    params.vocab_only = True
    return LlamaTokenizer(
        llama_cpp.llama_model_get_vocab(llama_cpp.llama_model_load_from_file(str(path).encode(), params))
    )


@given(text=TEXTS, more=TEXTS)
def test_texts_that_begin_alike_have_the_same_first_pieces(text: str, more: str) -> None:
    pieces = chunks(text)
    assert "".join(pieces) == text
    assert all(len(piece) >= CHUNK and piece[-1].isalpha() for piece in pieces[:-1])
    assert all(piece[0] == " " and piece[1].isalpha() for piece in pieces[1:])
    assert chunks(text + more)[: len(pieces) - 1] == pieces[:-1]


@given(text=TEXTS, add_special=st.booleans())
def test_the_tokens_are_those_of_the_whole_text(engine: LlamaEngine, text: str, add_special: bool) -> None:
    whole = engine.tokenizer.encode(text, add_special=add_special)
    for _ in range(2):
        assert engine.tokenizer.encode_prompt(text, salt="", add_special=add_special) == whole


def test_what_came_before_is_looked_up(engine: LlamaEngine) -> None:
    """By those who share it, and nobody else."""
    prompt = "The fox that lives in the wood has a question. " * 200

    def ask(salt: str) -> tuple[int, int]:
        """How many pieces were known, and how many were not."""
        before = engine.tokenizer._known.cache_info()
        engine.tokenizer.encode_prompt(prompt + "And what does the crow say?", salt=salt)
        after = engine.tokenizer._known.cache_info()
        return after.hits - before.hits, after.misses - before.misses

    engine.tokenizer.encode_prompt(prompt, salt="mine")
    assert ask("mine") == (len(chunks(prompt)) - 1, 0)
    hits, misses = ask("another")
    # The text says the same again and again.
    assert misses > 0
    assert ask("another") == (hits + misses, 0)


@pytest.mark.parametrize(
    "text", ["a short one " * 50, "1234567890" * 2000 + " a b " + "c" * 2000], ids=["short", "no words"]
)
def test_what_is_too_short_or_too_long_is_not_remembered(engine: LlamaEngine, text: str) -> None:
    before = engine.tokenizer._known.cache_info()
    assert engine.tokenizer.encode_prompt(text, salt="") == engine.tokenizer.encode(text)
    assert engine.tokenizer._known.cache_info() == before


@pytest.mark.parametrize(
    ("merges", "pre", "divisible"),
    [
        (["Ġ b", "a b"], "qwen2", True),
        (["Ġ b", "a Ġb"], "superbpe", False),
        (["Ġ Ð", "ÐĠ Ð"], "superbpe", False),
    ],
    ids=["words", "several words", "halves of letters"],
)
def test_texts_stay_whole_where_tokens_span_words(
    tmp_path: Path, merges: list[str], pre: str, divisible: bool
) -> None:
    tokenizer = vocabulary(write_vocabulary(tmp_path / "vocabulary.gguf", merges, pre))
    text = "aa b ab ba " * 200
    assert tokenizer.encode_prompt(text, salt="") == tokenizer.encode(text)
    assert tokenizer._divisible is divisible


def test_tokens_that_span_words() -> None:
    assert not spans_words(" the\na\n b\n  \n, b\n1 b\n")
    assert spans_words(" the\nof the\n") and spans_words("д н") and spans_words("\ufffd \ufffd")
