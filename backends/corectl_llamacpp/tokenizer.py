"""A llama.cpp vocabulary. Its calls do not change it, so any thread of the runner may use it."""

from __future__ import annotations

import ctypes
import unicodedata
from array import array
from collections.abc import Sequence
from functools import cached_property, lru_cache
from typing import Any

import llama_cpp

from corectl.errors import EngineError
from corectl_llamacpp.chunks import CHUNK, chunks, spans_words

_ROOM = 256
"""Bytes for one token's text; longer ones are asked for twice."""

_KNOWN = 4096
"""Pieces of prompts whose tokens are remembered: some half a million tokens, in 4 MB as a rule and 80 at most."""


class LlamaTokenizer:
    """See `corectl.runner.engine.Tokenizer` and `corectl.runner.abilities.PromptRecall`."""

    def __init__(self, vocab: Any) -> None:
        self._vocab = vocab
        self._pieces: dict[int, bytes] = {}
        self.size = llama_cpp.llama_vocab_n_tokens(vocab)
        self.adds_bos = bool(llama_cpp.llama_vocab_get_add_bos(vocab))
        self.bos_token = self._special(llama_cpp.llama_vocab_bos(vocab))
        self.eos_token = self._special(llama_cpp.llama_vocab_eos(vocab))
        self._ends: dict[int, bool] = {}
        self._wordpiece = llama_cpp.llama_vocab_type(vocab) == llama_cpp.LLAMA_VOCAB_TYPE_WPM
        separates = llama_cpp.llama_vocab_get_add_sep(vocab) and not self._wordpiece
        self.pair_separator = [llama_cpp.llama_vocab_sep(vocab)] if separates else []
        """Tokens that stand between two texts, besides those that end the first."""
        self._known = lru_cache(_KNOWN)(self._encode_piece)

    def encode(self, text: str, *, special: bool = True, add_special: bool = True) -> list[int]:
        if self._wordpiece:
            # Such models read decomposed text; llama.cpp keeps only the first part of what it decomposes.
            text = unicodedata.normalize("NFD", text)
        data = text.encode("utf-8", "replace")
        room = len(data) + 8
        for _ in range(2):
            tokens = (llama_cpp.llama_token * room)()
            count = llama_cpp.llama_tokenize(self._vocab, data, len(data), tokens, room, add_special, special)
            if count >= 0:
                found: list[int] = tokens[:count]
                return found
            room = -count
        raise EngineError(f"a text of {len(data)} bytes could not be tokenised")

    def encode_prompt(self, text: str, *, salt: str, add_special: bool = True) -> list[int]:
        if len(text) < 2 * CHUNK or not self._divisible:
            return self.encode(text, add_special=add_special)
        *pieces, last = chunks(text)
        tokens = self.encode("") if add_special else []
        for piece in pieces:
            # A text without words may be one piece of any length, which is not worth its memory.
            remember = len(piece) <= 2 * CHUNK
            tokens += self._known(salt, piece) if remember else self.encode(piece, add_special=False)
        return tokens + self.encode(last, add_special=False)

    def _encode_piece(self, _salt: str, text: str) -> array[int]:
        return array("i", self.encode(text, add_special=False))

    @cached_property
    def _divisible(self) -> bool:
        """Whether the tokens of a text are those of its `chunks`, after those with which every text begins."""
        if llama_cpp.llama_vocab_type(self._vocab) != llama_cpp.LLAMA_VOCAB_TYPE_BPE:
            return False
        vocab = self._vocab
        if llama_cpp.llama_vocab_get_add_eos(vocab) or llama_cpp.llama_vocab_get_add_sep(vocab):
            return False
        line = self.encode("\n", add_special=False)
        if len(line) != 1:
            return False
        lines = array("i", line * 2 * self.size)
        lines[::2] = array("i", range(self.size))
        return not spans_words(self._decode(lines))

    def decode(self, tokens: Sequence[int]) -> str:
        text = self._decode(tokens)
        return text.removeprefix(" ") if self._wordpiece else text

    def _decode(self, tokens: Sequence[int]) -> str:
        given = (llama_cpp.llama_token * len(tokens)).from_buffer(array("i", tokens))
        room = 8 * len(tokens) + _ROOM
        while True:
            buffer = ctypes.create_string_buffer(room)
            count = llama_cpp.llama_detokenize(self._vocab, given, len(tokens), buffer, room, False, True)
            if count >= 0:
                return buffer.raw[:count].decode("utf-8", "replace")
            room = -count

    def piece(self, token: int, *, special: bool = False) -> bytes:
        if special:
            return self._text(token, special=True)
        piece = self._pieces.get(token)
        if piece is None:
            piece = self._pieces[token] = self._text(token, special=False)
        return piece

    def is_end(self, token: int) -> bool:
        end = self._ends.get(token)
        if end is None:
            end = self._ends[token] = bool(llama_cpp.llama_vocab_is_eog(self._vocab, token))
        return end

    def _special(self, token: int) -> str:
        return self._text(token, special=True).decode("utf-8", "replace") if 0 <= token < self.size else ""

    def _text(self, token: int, *, special: bool) -> bytes:
        room = _ROOM
        while True:
            buffer = ctypes.create_string_buffer(room)
            count = llama_cpp.llama_token_to_piece(self._vocab, token, buffer, room, 0, special)
            if count >= 0:
                return buffer.raw[:count]
            room = -count
