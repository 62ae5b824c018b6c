"""tokenizer.json, as far as it is believed before anything is made of it."""

from __future__ import annotations

from typing import Any

import msgspec

from corectl.errors import BadModelFile, NotSupported
from corectl.model.files import ModelFiles
from corectl_convert.tokenizers.vocabulary import Added

NAME = "tokenizer.json"
MAX_FILE = 64 << 20
"""Bytes. The largest that is known has about half of that."""

MAX_PARTS = 4_000_000
"""Commas. Each thing in the file takes a hundred bytes of memory at least; the largest file has two million."""

Part = dict[str, Any]


class Model(msgspec.Struct, frozen=True):
    """Tokens have ids, or in a list scores; a merge is a pair, or a text with a space between its two."""

    vocab: dict[str, int] | list[tuple[str, float]]
    type: str = ""
    merges: list[str | tuple[str, str]] = []
    unk_token: str | None = None
    unk_id: int | None = None
    byte_fallback: bool | None = None
    ignore_merges: bool | None = None
    continuing_subword_prefix: str | None = None
    end_of_word_suffix: str | None = None
    dropout: float | None = None

    @property
    def kind(self) -> str:
        """`BPE`, `WordPiece` or `Unigram`. Early files do not say."""
        if self.type:
            return self.type
        if isinstance(self.vocab, list):
            return "Unigram"
        return "BPE" if self.merges else "WordPiece"


class TokenizerFile(msgspec.Struct, frozen=True):
    model: Model
    added_tokens: list[Added] = []
    normalizer: Part | None = None
    pre_tokenizer: Part | None = None
    post_processor: Part | None = None


def read(files: ModelFiles) -> TokenizerFile:
    """Raises `BadModelFile`."""
    data = files.read(NAME, MAX_FILE)
    if data.count(b",") > MAX_PARTS:
        raise BadModelFile(f"{NAME} holds more than {MAX_PARTS} values")
    try:
        return msgspec.json.decode(data, type=TokenizerFile)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise BadModelFile(f"{NAME} is damaged: {exc!s:.200}") from exc


def steps(part: Part | None, within: str) -> list[Part]:
    """A part as a list of steps; a sequence is opened. `within` is the field that holds its steps."""
    if part is None:
        return []
    if part.get("type") != "Sequence":
        return [part]
    inner = part.get(within)
    if not isinstance(inner, list) or not all(isinstance(item, dict) for item in inner):
        raise BadModelFile(f"{NAME}: {within} of a sequence is no list of objects")
    return [step for item in inner for step in steps(item, within)]


def refused(field: str, step: Part) -> NotSupported:
    """For a step that llama.cpp does not have."""
    shown = msgspec.json.encode(step).decode()
    return NotSupported(f"{NAME}: {field}: llama.cpp has no tokenizer with the step {shown:.300}")
