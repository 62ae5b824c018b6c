"""A model's vocabulary as constraints need it, made from nothing but the tokenizer that every engine has."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Collection, Iterator, Sequence
from functools import cached_property
from itertools import takewhile

import llguidance
import numpy as np

from corectl.constrain.masking import Tokens
from corectl.errors import NotSupported
from corectl.runner.engine import Tokenizer

MAX_LINE_BREAKS = 2
"""A token of more line breaks than this is none that may stand between a thought and what follows it."""

MAX_SPELLED = 32
"""Bytes of the longest token that a text is spelled with."""


class _Tokens(llguidance.TokenizerWrapper):
    """What llguidance asks of a tokenizer. It never asks for text to be tokenised: no grammar here forces tokens."""

    def __init__(self, pieces: Sequence[bytes], controls: Sequence[int], end: int) -> None:
        self.tokens = pieces
        self.special_token_ids = controls
        self.eos_token_id = end
        self.bos_token_id = None
        self.is_tokenizer_wrapper = True


class Vocabulary:
    """All pieces of a vocabulary, and how to find them by their bytes. Never changes.

    Costs a second for each 200,000 tokens. Raises `NotSupported` for a vocabulary without an end token, whose model
    could never be told that a grammar is complete.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.size = tokenizer.size
        self.ends = np.array([token for token in range(self.size) if tokenizer.is_end(token)], np.intp)
        if not self.ends.size:
            raise NotSupported("format and tools cannot be enforced: this model has no end token")
        self._ends = frozenset(self.ends.tolist())
        self._pieces = [tokenizer.piece(token) for token in range(self.size)]
        special = {
            token: tokenizer.piece(token, special=True)
            for token, piece in enumerate(self._pieces)
            if not piece
        }
        self._controls = {token: text for token, text in special.items() if text}
        self._control_tokens = {text: token for token, text in reversed(self._controls.items())}
        # An end token is no text even where it has some: drawn inside a string, it would end the output there.
        controls = sorted({*self._controls, *self._ends})
        shown = [self.text(token) for token in range(self.size)]
        self.native = llguidance.LLTokenizer(
            _Tokens(shown, controls, int(self.ends[0])), eos_token=self.ends.tolist()
        )

    def is_end(self, token: int) -> bool:
        """True for tokens that end a generation."""
        return token in self._ends

    def text(self, token: int) -> bytes:
        """The bytes of a token; of a control token its name."""
        return self._pieces[token] or self._controls.get(token, b"")

    def control(self, text: str) -> int | None:
        """The control token of this name."""
        return self._control_tokens.get(text.encode())

    def controls_but(self, names: Collection[str]) -> frozenset[int]:
        """The control tokens that have none of these names."""
        kept = {name.encode() for name in names}
        return frozenset(token for token, text in self._controls.items() if text not in kept)

    def split(self, text: str) -> list[str | int]:
        """A text in parts: its control tokens, and what is between them."""
        names = [name for name in self._control_names if name in text]
        if not names:
            return [text] if text else []
        longest_first = sorted(names, key=len, reverse=True)
        parts = re.split(f"({'|'.join(map(re.escape, longest_first))})", text)
        return [self._control_tokens.get(part.encode(), part) for part in parts if part]

    def tokens(self, text: bytes) -> list[int]:
        """Tokens that spell `text`, control tokens included; not always those that the model would take."""
        found: list[int] = []
        for part in self.split(text.decode("utf-8", "surrogateescape")):
            if isinstance(part, int):
                found.append(part)
            else:
                found += self._spell(part.encode("utf-8", "surrogateescape"))
        return found

    def starting(self, prefix: bytes) -> Iterator[tuple[int, bytes]]:
        """The text tokens that begin with `prefix`, and their bytes."""
        first = bisect_left(self._sorted, prefix, key=self._pieces.__getitem__)
        for place in range(first, self.size):
            token = self._sorted[place]
            piece = self._pieces[token]
            if not piece.startswith(prefix):
                return
            yield token, piece

    def containing(self, text: bytes) -> list[tuple[int, bytes]]:
        """The tokens that `text` stands in, and their bytes."""
        found = [(token, piece) for token, piece in enumerate(self._pieces) if text in piece]
        control = self._control_tokens.get(text)
        return found if control is None else [*found, (control, text)]

    @cached_property
    def line_breaks(self) -> Tokens:
        """The tokens that are nothing but a few line breaks."""
        found = [
            token
            for breaks in range(1, MAX_LINE_BREAKS + 1)
            for token, piece in self.starting(b"\n" * breaks)
            if len(piece) == breaks
        ]
        return np.array(found, np.intp)

    @cached_property
    def _sorted(self) -> list[int]:
        return sorted(range(self.size), key=self._pieces.__getitem__)

    @cached_property
    def _control_names(self) -> list[str]:
        return [name.decode("utf-8", "surrogateescape") for name in self._control_tokens]

    def _spell(self, data: bytes) -> Iterator[int]:
        """The longest token that fits, again and again. A byte that no token has is left out."""
        position = 0
        while position < len(data):
            for length in range(min(MAX_SPELLED, len(data) - position), 0, -1):
                token = self._token(data[position : position + length])
                if token is not None:
                    yield token
                    break
            position += length

    def _token(self, piece: bytes) -> int | None:
        place = bisect_left(self._sorted, piece, key=self._pieces.__getitem__)
        tokens = takewhile(
            lambda token: self._pieces[token] == piece, self._sorted[place : place + len(self.ends) + 1]
        )
        return next((token for token in tokens if token not in self._ends), None)
