"""Outputs of models as a dialect reads them, and random ones that its grammar allows."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
from llguidance import LLMatcher, LLTokenizer, TokenizerWrapper, grammar_from

from corectl.messages import ToolCallDelta
from corectl.output.dialect import OutputReader, OutputShape, Part

END = 256


class Output(msgspec.Struct, frozen=True):
    """What was read, put together: finished calls as names and arguments, and the codes of the notices."""

    content: str = ""
    thinking: str = ""
    calls: tuple[tuple[str, Any], ...] = ()
    notices: tuple[str, ...] = ()


def read(reader: OutputReader, chunks: Iterable[str]) -> Output:
    """Everything that a reader gives for an output that comes in chunks."""
    parts: list[Part] = []
    for chunk in chunks:
        if chunk:
            parts += reader.push(chunk)
    parts += reader.finish()
    return Output(
        content="".join(part.text for part in parts),
        thinking="".join(part.thinking for part in parts),
        calls=_calls([part.call for part in parts if part.call is not None]),
        notices=tuple(notice.code for notice in reader.notices),
    )


def _calls(pieces: Sequence[ToolCallDelta]) -> tuple[tuple[str, Any], ...]:
    """The finished calls; each must have an id, and arguments that are one JSON object."""
    names: dict[int, str] = {}
    arguments: dict[int, str] = {}
    done = []
    for piece in pieces:
        if piece.name:
            assert piece.index not in names, f"call {piece.index} has two names"
            assert piece.id, f"call {piece.index} has no id"
            names[piece.index] = piece.name
        arguments[piece.index] = arguments.get(piece.index, "") + piece.arguments
        if piece.done:
            done.append(piece.index)
    values = [(names[index], json.loads(arguments[index])) for index in done]
    assert all(isinstance(value, dict) for _, value in values), "arguments are one JSON object"
    return tuple(values)


class _Bytes:
    """A vocabulary of all bytes, an end token, and some longer texts."""

    bos_token_id = None
    eos_token_id = END

    def __init__(self, texts: Sequence[str]) -> None:
        self.tokens = [bytes([byte]) for byte in range(256)] + [b"<end>"] + [text.encode() for text in texts]
        self.special_token_ids = [END]

    def __call__(self, text: bytes | str) -> list[int]:
        return list(text if isinstance(text, bytes) else text.encode())


class CallGrammar:
    """The grammar of a shape's calls, over bytes. `texts` are longer tokens, which random walks like to take."""

    def __init__(self, shape: OutputShape, texts: Sequence[str] = ()) -> None:
        self._vocabulary = _Bytes(texts)
        self._tokenizer = LLTokenizer(TokenizerWrapper(self._vocabulary))
        self._source = grammar_from("grammar", f"start: calls\n{shape.calls}")

    def _matcher(self) -> LLMatcher:
        matcher = LLMatcher(self._tokenizer, self._source, log_level=0)
        assert not matcher.is_error(), matcher.get_error()
        return matcher

    def accepts(self, text: str) -> bool:
        """True if a text is calls from their beginning to their end."""
        matcher = self._matcher()
        tokens = list(text.encode())
        return bool(matcher.try_consume_tokens(tokens) == len(tokens) and matcher.is_accepting())

    def walk(self, seed: int, long: int = 200) -> str:
        """A random text that the grammar accepts. After `long` tokens it makes for the end."""
        choice = random.Random(seed)
        matcher = self._matcher()
        text = b""
        for step in range(20 * long):
            mask = matcher.compute_bitmask()
            assert not matcher.is_error(), matcher.get_error()
            allowed = [
                token for token in range(len(self._vocabulary.tokens)) if mask[token // 8] >> token % 8 & 1
            ]
            if END in allowed and (len(allowed) == 1 or step > long or choice.random() < 0.5):
                return text.decode()
            token = choice.choice(self._liked(allowed, choice.random() < (0.2 if step < long else 0.9)))
            assert matcher.consume_token(token), matcher.get_error()
            text += self._vocabulary.tokens[token]
        raise AssertionError(f"no end in sight: {text!r}")

    @staticmethod
    def _liked(allowed: list[int], closing: bool) -> list[int]:
        """The tokens to choose from: those that lead out, or else printable ones."""
        likings: list[list[int]] = [[token for token in allowed if 32 <= token < 127 or token == 10]]
        if closing:
            likings[:0] = [
                [token for token in allowed if token > END],
                [ord(c) for c in "\"'])}" if ord(c) in allowed],
            ]
        for liked in likings:
            if liked:
                return liked
        return [token for token in allowed if token != END]
