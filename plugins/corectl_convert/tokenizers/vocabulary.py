"""The tokens of a model as a GGUF file lists them."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Mapping

import msgspec

from corectl.errors import BadModelFile
from corectl_convert.recipe import Value

log = logging.getLogger(__name__)

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
"""What a token is for, by GGUF's numbers."""

MAX_TEXT = 24 << 20
"""Bytes of all tokens of a vocabulary, and of all of its merges. What reads the file has its limits too."""


class Added(msgspec.Struct, frozen=True):
    """A token that is found in a text before anything else. Only a `special` one has a meaning besides its text.

    White space before (`lstrip`) or after it (`rstrip`) may belong to it.
    """

    id: int
    content: str
    special: bool = False
    lstrip: bool = False
    rstrip: bool = False


class Vocabulary(msgspec.Struct, frozen=True, kw_only=True):
    """`model` is GGUF's name of the way to tokens, `pre` that of the way to words, where there is one.

    `tokens` are by id, with `kinds` and, for some models, `scores`. `merges` are in their order. `extra` are other
    keys.
    """

    model: str
    pre: str = "default"
    tokens: list[str]
    kinds: list[int]
    scores: list[float] = []
    merges: list[str] = []
    extra: Mapping[str, Value] = {}

    def metadata(self) -> dict[str, Value]:
        """Raises `BadModelFile` if tokens are not unique; llama.cpp ends its process at that."""
        if len(set(self.tokens)) < len(self.tokens):
            twice = Counter(self.tokens).most_common(1)[0][0]
            raise BadModelFile(f"the tokenizer has the token {twice!r:.80} twice")
        for what, texts in (("tokens", self.tokens), ("merges", self.merges)):
            if sum(map(len, texts)) > MAX_TEXT:
                raise BadModelFile(f"the {what} of the tokenizer are longer than {MAX_TEXT >> 20} MiB")
        found: dict[str, Value] = {
            "tokenizer.ggml.model": self.model,
            "tokenizer.ggml.pre": self.pre,
            "tokenizer.ggml.tokens": self.tokens,
            "tokenizer.ggml.token_type": self.kinds,
        }
        if self.scores:
            found["tokenizer.ggml.scores"] = self.scores
        if self.merges:
            found["tokenizer.ggml.merges"] = self.merges
        return found | {f"tokenizer.ggml.{key}": value for key, value in self.extra.items()}


class Slots:
    """One place for each row of the embedding, to be filled with tokens."""

    def __init__(self, file: str, size: int) -> None:
        self._file = file
        self._size = size
        self._tokens: list[str | None] = [None] * size
        self._kinds = [UNUSED] * size

    def put(self, items: Iterable[tuple[str, int]], kind: int = NORMAL) -> None:
        """Tokens and their ids. Raises `BadModelFile` for an id that is taken, or has no row."""
        for token, id in items:
            if not 0 <= id < self._size:
                raise BadModelFile(
                    f"{self._file}: the token {token!r:.80} has the id {id}, "
                    f"and config.json a vocab_size of {self._size}"
                )
            if self._tokens[id] is not None:
                raise BadModelFile(f"{self._file}: two tokens have the id {id}")
            self._tokens[id], self._kinds[id] = token, kind

    def mark(self, id: int, kind: int) -> None:
        if 0 <= id < self._size:
            self._kinds[id] = kind

    def add(self, added: Iterable[Added], *, blank: str = "") -> None:
        """Added tokens, in the place of others if need be. In texts of users `blank` stands for a space.

        Those without a row are left out: the model cannot have them in its input.
        """
        for token in added:
            if token.id < 0:
                raise BadModelFile(
                    f"{self._file}: the added token {token.content!r:.80} has the id {token.id}"
                )
            if token.id >= self._size:
                log.warning("the added token %.80r is left out: the model has no row for it", token.content)
                continue
            content = token.content if token.special or not blank else token.content.replace(blank, " ")
            self._tokens[token.id] = content
            if self._kinds[token.id] != UNKNOWN:
                self._kinds[token.id] = CONTROL if token.special else USER_DEFINED

    def filled(self) -> tuple[list[str], list[int]]:
        """All tokens and their kinds; rows that have none get one that no text has."""
        taken = {token for token in self._tokens if token is not None}
        tokens = []
        for id, token in enumerate(self._tokens):
            if token is None:
                token = f"[PAD{id}]"
                while token in taken:
                    token += "]"
            tokens.append(token)
        return tokens, self._kinds
