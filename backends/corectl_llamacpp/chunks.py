"""Cuts texts into pieces that can be tokenised one by one: those of a prompt that came before need not be again."""

from __future__ import annotations

import re
from typing import Final

CHUNK: Final = 512
"""Characters that a piece has at least, but for the last one: some hundred tokens, half a millisecond's work."""

_BETWEEN_WORDS: Final = re.compile(r"[^\W\d_] (?=[^\W\d_])")
# What is no whole character may be a part of a letter.
_ACROSS_WORDS: Final = re.compile(r"(?:[^\W\d_]|\ufffd) (?:[^\W\d_]|\ufffd)")


def chunks(text: str) -> list[str]:
    """The pieces of a text, at least one. It is cut in front of spaces that stand between two letters.

    Where it is cut depends only on what comes before, so texts that begin alike have the same first pieces.
    """
    pieces: list[str] = []
    start = 0
    while (found := _BETWEEN_WORDS.search(text, start + CHUNK)) is not None:
        end = found.end() - 1
        pieces.append(text[start:end])
        start = end
    return [*pieces, text[start:]]


def spans_words(tokens: str) -> bool:
    """Whether any of a vocabulary's tokens, one in each line, has a place at which `chunks` cuts.

    If none has, no merge of byte pairs can cross such a place, and the tokens of a text are those of its pieces.
    """
    return _ACROSS_WORDS.search(tokens) is not None
