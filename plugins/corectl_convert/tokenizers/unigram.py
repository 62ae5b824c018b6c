"""Unigram models of SentencePiece, as XLM-RoBERTa has them."""

from __future__ import annotations

import base64
import binascii

from corectl.errors import BadModelFile
from corectl_convert.recipe import Value
from corectl_convert.tokenizers.file import NAME, TokenizerFile, refused, steps
from corectl_convert.tokenizers.sentencepiece import BLANK
from corectl_convert.tokenizers.vocabulary import UNKNOWN, Slots, Vocabulary

UNUSED = -10_000.0
MAX_MAP = 4 << 20
"""Bytes of the map of characters; the usual one has a quarter of a million."""


def from_json(file: TokenizerFile, size: int) -> Vocabulary:
    """For a model with `size` tokens."""
    if not isinstance(file.model.vocab, list):
        raise BadModelFile(f"{NAME}: model.vocab is no list of tokens and scores")
    slots = Slots(NAME, size)
    slots.put((token, id) for id, (token, _) in enumerate(file.model.vocab))
    if file.model.unk_id is not None:
        slots.mark(file.model.unk_id, UNKNOWN)
    slots.add(file.added_tokens)
    tokens, kinds = slots.filled()
    scores = [score for _, score in file.model.vocab]
    return Vocabulary(
        model="t5",
        tokens=tokens,
        kinds=kinds,
        scores=scores + [UNUSED] * (size - len(scores)),
        extra=_normalised(file) | {"add_space_prefix": _cut(file)},
    )


def _normalised(file: TokenizerFile) -> dict[str, Value]:
    found: dict[str, Value] = {"remove_extra_whitespaces": False}
    for step in steps(file.normalizer, "normalizers"):
        kind = step.get("type")
        if kind == "Precompiled":
            found["precompiled_charsmap"] = _map(step.get("precompiled_charsmap"))
        elif (
            kind == "Replace"
            and step.get("pattern") == {"Regex": " {2,}"}
            and step.get("content") in (" ", BLANK)
        ):
            found["remove_extra_whitespaces"] = True
        elif kind != "Strip":
            raise refused("normalizer", step)
    return found


def _map(text: object) -> bytes:
    """As it lies in the file: the size of its first part, and its parts. llama.cpp believes them."""
    try:
        data = base64.b64decode(text if isinstance(text, str) else "", validate=True)
    except (binascii.Error, ValueError):
        data = b""
    first = int.from_bytes(data[:4], "little")
    if not 4 < len(data) <= MAX_MAP or first % 4 or first + 4 >= len(data) or data[-1] != 0:
        raise BadModelFile(f"{NAME}: normalizer.precompiled_charsmap is damaged")
    return data


def _cut(file: TokenizerFile) -> bool:
    prefixed = False
    for step in steps(file.pre_tokenizer, "pretokenizers"):
        if step.get("type") == "Metaspace" and step.get("replacement") == BLANK:
            prefixed = step.get("prepend_scheme") != "never" and step.get("add_prefix_space") is not False
        elif step.get("type") != "WhitespaceSplit":
            raise refused("pre_tokenizer", step)
    return prefixed
