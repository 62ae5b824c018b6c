"""How each kind of vocabulary puts text together of its tokens. Pure.

The library could do this too, but a long word makes its code for GPT-2 and its kin overflow the stack, that for Replit
takes time with the square of the text, and that for Llama ends the process over a letter it does not know. Besides, it
takes the longest token that fits where these models have learned the most frequent pairs.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from heapq import heapify, heappop, heappush
from typing import Protocol

from corectl_ctransformers.header import Vocabulary

BLANK = "\N{LOWER ONE EIGHTH BLOCK}".encode()
"""How vocabularies with scores write a blank, if they do not write it as such."""

_REMEMBERED, _SHORT = 1 << 15, 32
"""So many words are remembered, and only such that have no more letters than that."""

_WORDS = re.compile(r"'s|'t|'re|'ve|'m|'ll|'d| ?[^\W\d_]+| ?\d+| ?(?:[^\s\w]|_)+|\s+(?!\S)|\s+")
"""What GPT-2 takes for words: letters, numbers, or other signs, each with the blank before them."""

Rank = Callable[[bytes], float | None]
"""How early two neighbours that make these bytes are put together: the lowest first; None where never."""


class Words(Protocol):
    """What writes text as tokens, without any control tokens."""

    def encode(self, text: str) -> list[int]: ...


def merge(parts: Sequence[bytes], rank: Rank) -> list[bytes]:
    """Puts neighbours together, always the pair of the lowest rank, the leftmost of several, until none is left."""
    parts = list(parts)
    before, after = list(range(-1, len(parts) - 1)), list(range(1, len(parts) + 1))

    def pair(left: int) -> tuple[float, int, bytes] | None:
        both = parts[left] + parts[after[left]]
        found = rank(both)
        return None if found is None else (found, left, both)

    queue = [item for left in range(len(parts) - 1) if (item := pair(left))]
    heapify(queue)
    while queue:
        _, left, both = heappop(queue)
        right = after[left]
        # One of the two may have become part of another since.
        if not parts[left] or right == len(parts) or parts[left] + parts[right] != both:
            continue
        parts[left], parts[right] = both, b""
        after[left] = after[right]
        if after[left] < len(parts):
            before[after[left]] = left
        for start in (before[left], left):
            if start >= 0 and after[start] < len(parts) and (item := pair(start)):
                heappush(queue, item)
    return [part for part in parts if part]


class ByteLevel:
    """Vocabularies with a token for each byte, whose others are numbered in the order in which they were learned.

    Some files have such tokens as text, so that those of bytes that are none by themselves are lost. Then a letter is
    read as a whole if it has a token, or else left out.
    """

    def __init__(self, tokens: Iterable[bytes]) -> None:
        self._ids: dict[bytes, int] = {}
        for id, token in enumerate(tokens):
            # Some files repeat their last token until the number of tokens is a round one.
            self._ids.setdefault(token, id)
        self._whole = all(bytes([byte]) in self._ids for byte in range(256))
        self._known: dict[str, list[int]] = {}

    def encode(self, text: str) -> list[int]:
        return [id for word in _WORDS.findall(text) for id in self._word(word)]

    def _word(self, word: str) -> list[int]:
        known = self._known.get(word)
        if known is None:
            parts = merge([part for letter in word for part in self._parts(letter.encode())], self._ids.get)
            known = [self._ids[part] for part in parts if part in self._ids]
            if len(self._known) < _REMEMBERED and len(word) <= _SHORT:
                self._known[word] = known
        return known

    def _parts(self, letter: bytes) -> Sequence[bytes]:
        """With what merging begins."""
        if not self._whole and letter in self._ids:
            return (letter,)
        return [letter[at : at + 1] for at in range(len(letter))]


class Scored:
    """Llama's vocabulary: each token has a score, letters without a token are written as bytes, and a blank stands in
    front of each text.
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        # Bytes come first, then the same as letters, which are meant.
        self._ids = {token: id for id, token in enumerate(vocabulary.tokens) if token}
        self._scores = vocabulary.scores
        self._bytes: dict[int, int] = {}
        for id, token in enumerate(vocabulary.tokens):
            if len(token) == 1:
                self._bytes.setdefault(token[0], id)

    def encode(self, text: str) -> list[int]:
        if not text:
            return []
        found: list[int] = []
        for part in merge([letter.encode() for letter in f" {text}"], self._rank):
            id = self._ids.get(part)
            found += [self._bytes.get(byte, 0) for byte in part] if id is None else [id]
        return found

    def _rank(self, both: bytes) -> float | None:
        id = self._ids.get(both)
        return None if id is None else -self._scores[id]


class Likeliest:
    """Replit's vocabulary: of all ways to write a text, the one whose tokens are likeliest together.

    A letter without a token is token 0, which means that it is not known.
    """

    def __init__(self, vocabulary: Vocabulary, controls: Iterable[int]) -> None:
        scored = zip(vocabulary.tokens, vocabulary.scores, strict=True)
        self._scores = {token: (score, id) for id, (token, score) in enumerate(scored)}
        for id in controls:
            self._scores.pop(vocabulary.tokens[id], None)
        self._longest = max(map(len, self._scores), default=1)
        self._unknown = min((score for score, _ in self._scores.values()), default=0.0) - 10

    def encode(self, text: str) -> list[int]:
        data = text.encode().replace(b" ", BLANK)
        # For each place: the score of the best way there, and where its last token begins.
        best = [(0.0, 0)] + [(float("-inf"), 0)] * len(data)
        for start in range(len(data)):
            score = best[start][0]
            if score == float("-inf"):
                continue
            for end in range(start + 1, min(start + self._longest, len(data)) + 1):
                found = self._scores.get(data[start:end])
                if found is not None and score + found[0] > best[end][0]:
                    best[end] = (score + found[0], start)
            end = start + _letter(data[start])
            if end <= len(data) and score + self._unknown > best[end][0]:
                best[end] = (score + self._unknown, start)
        return self._back(data, best)

    def _back(self, data: bytes, best: list[tuple[float, int]]) -> list[int]:
        found, end = [], len(data)
        while end:
            start = best[end][1]
            found.append(self._scores.get(data[start:end], (0.0, 0))[1])
            end = start
        return found[::-1]


def _letter(first: int) -> int:
    """How many bytes a letter has that begins with this one."""
    return 1 if first < 0xC0 else 2 if first < 0xE0 else 3 if first < 0xF0 else 4
