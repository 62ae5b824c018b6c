"""The vocabulary of bytes."""

from __future__ import annotations

import pytest

from corectl.runner.byte_tokenizer import END, ByteTokenizer

TOKENIZER = ByteTokenizer()


@pytest.mark.parametrize("text", ["", "Hello", "Grüße 🦙", "\x00\n"])
def test_a_text_comes_back(text: str) -> None:
    tokens = TOKENIZER.encode(text)
    assert TOKENIZER.decode(tokens) == text
    assert b"".join(map(TOKENIZER.piece, tokens)).decode() == text


def test_half_a_character_and_what_is_none() -> None:
    assert TOKENIZER.decode([0xC3]) == "�" and TOKENIZER.encode("\ud800") == [ord("?")]


def test_the_end() -> None:
    assert TOKENIZER.is_end(END) and not TOKENIZER.is_end(255) and TOKENIZER.size == 257
    assert TOKENIZER.piece(END) == TOKENIZER.piece(END, special=True) == b""
