"""The vocabulary of a file from before GGUF. Any thread of the runner may use it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from corectl.runner.hf_tokenizer import ENDS
from corectl_ctransformers.header import Header, Vocabulary
from corectl_ctransformers.words import BLANK, ByteLevel, Likeliest, Scored, Words

_LLAMA = {0: "<unk>", 1: "<s>", 2: "</s>"}
"""Llama's files leave out the names of its first tokens."""

_FALCON = 12
"""So many of Falcon's first tokens are control tokens."""

_CONTROL = re.compile(rb"<\|[^<>|\s]{1,60}\|>")
_CONTROLS = frozenset(
    (
        *(b"<s>", b"</s>", b"<unk>", b"<pad>", b"[PAD]", b"### End", b"### Instruction:", b"### Response:"),
        *(f"<fim{mark}{part}>".encode() for mark in "-_" for part in ("prefix", "middle", "suffix", "pad")),
    )
)
"""Names of control tokens. Files do not say which tokens are such."""

_ENDS = ENDS | {"### End"}


class GgmlTokenizer:
    """See `corectl.runner.engine.Tokenizer`. Has the first `size` tokens of a file's vocabulary."""

    def __init__(self, header: Header, vocabulary: Vocabulary, size: int) -> None:
        family = header.layout.family
        vocabulary = Vocabulary(vocabulary.tokens[:size], vocabulary.scores[:size])
        tokens = vocabulary.tokens
        self.size = len(tokens)
        self._controls = {id: name for id, name in _controls(family, tokens) if name}
        self._ids = {name: id for id, name in reversed(self._controls.items())}
        self._pieces = [b"" if id in self._controls else token for id, token in enumerate(tokens)]
        if family == "replit":
            self._pieces = [piece.replace(BLANK, b" ") for piece in self._pieces]
        self._words = _words(family, vocabulary, self._controls)
        self._ends = frozenset(id for id, name in self._controls.items() if name in _ENDS)
        self._begin = [1] if family == "llama" else []
        self.adds_bos = bool(self._begin)
        self.bos_token = _LLAMA[1] if self._begin else ""
        self.eos_token = self._controls[min(self._ends)] if self._ends else ""
        names = sorted(map(re.escape, self._ids), key=len, reverse=True)
        self._names = re.compile(f"({'|'.join(names)})") if names else None

    def encode(self, text: str, *, special: bool = True, add_special: bool = True) -> list[int]:
        # Half a surrogate pair is no text.
        text = text.encode("utf-8", "replace").decode()
        found = list(self._begin) if add_special else []
        parts = self._names.split(text) if special and self._names else [text]
        for place, part in enumerate(parts):
            found += [self._ids[part]] if place % 2 else self._words.encode(part)
        return found

    def decode(self, tokens: Sequence[int]) -> str:
        return b"".join(self.piece(token, special=True) for token in tokens).decode("utf-8", "replace")

    def piece(self, token: int, *, special: bool = False) -> bytes:
        if special and token in self._controls:
            return self._controls[token].encode()
        return self._pieces[token]

    def is_end(self, token: int) -> bool:
        return token in self._ends


def _controls(family: str, tokens: Sequence[bytes]) -> Iterator[tuple[int, str]]:
    for id, token in enumerate(tokens):
        if family == "llama" and id in _LLAMA:
            yield id, _LLAMA[id]
        elif token in _CONTROLS or _CONTROL.fullmatch(token) or (family == "falcon" and id < _FALCON):
            yield id, token.decode("utf-8", "replace")


def _words(family: str, vocabulary: Vocabulary, controls: Mapping[int, str]) -> Words:
    if family == "llama":
        return Scored(vocabulary)
    if family == "replit":
        return Likeliest(vocabulary, controls)
    return ByteLevel(b"" if id in controls else token for id, token in enumerate(vocabulary.tokens))
