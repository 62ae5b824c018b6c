"""SentencePiece with merges, as Llama 2, Mistral, Gemma and Phi-3 have it: from tokenizer.json, or tokenizer.model.

The first is preferred: it is what transformers uses, and it has the tokens that were added. llama.cpp merges what gives
the token with the best score, so that scores are all it needs of the merges.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence, Set

from corectl.errors import BadModelFile, NotSupported
from corectl_convert.tokenizers import protobuf
from corectl_convert.tokenizers.bpe import ids_of, merges_of
from corectl_convert.tokenizers.file import NAME, Part, TokenizerFile, refused, steps
from corectl_convert.tokenizers.vocabulary import BYTE, UNKNOWN, Added, Slots, Vocabulary

BLANK = "▁"
"""Stands for a space."""

UNMERGED = -1e6
"""The score of a token that no merge gives; there are never that many merges. Of unused ones too."""

LONGEST = 64
"""Characters of a token whose ways are looked at."""

_BYTE = re.compile(r"<0x[0-9A-F]{2}>")


def from_json(file: TokenizerFile, size: int, *, chats: bool) -> Vocabulary:
    """For a model with `size` tokens, which `chats` or not."""
    vocabulary = ids_of(file.model)
    prefix = _normalised(file) or _cut(file, chats=chats)
    slots = Slots(NAME, size)
    slots.put(vocabulary.items())
    for token, id in vocabulary.items():
        if file.model.byte_fallback and _BYTE.fullmatch(token):
            slots.mark(id, BYTE)
    if file.model.unk_token is not None and file.model.unk_token in vocabulary:
        slots.mark(vocabulary[file.model.unk_token], UNKNOWN)
    slots.add(file.added_tokens, blank=BLANK)
    tokens, kinds = slots.filled()
    merges = merges_of(file.model, vocabulary)
    if not merges:
        raise BadModelFile(f"{NAME}: model.merges is empty")
    ranks: dict[str, int] = {}
    for rank, (left, right) in enumerate(merges):
        ranks.setdefault(left + right, rank)
    _check_merges(merges, ranks, vocabulary.keys() - {token.content for token in file.added_tokens})
    scores = [UNMERGED] * size
    for token, rank in ranks.items():
        scores[vocabulary[token]] = float(-rank)
    return Vocabulary(
        model="llama", tokens=tokens, kinds=kinds, scores=scores, extra={"add_space_prefix": prefix}
    )


def from_model(data: bytes, added: Sequence[Added], size: int) -> Vocabulary:
    """From the bytes of tokenizer.model, and tokens that other files add."""
    model = protobuf.read(data)
    if model.kind != protobuf.BPE:
        raise NotSupported(f"{protobuf.NAME}: a model that is not BPE is not supported without {NAME}")
    if model.escapes is False:
        raise NotSupported(f"{protobuf.NAME}: a model that does not escape white space is not supported")
    slots = Slots(protobuf.NAME, size)
    for id, piece in enumerate(model.pieces):
        slots.put([(piece.text, id)], piece.kind)
    slots.add(added, blank=BLANK)
    tokens, kinds = slots.filled()
    scores = [piece.score for piece in model.pieces]
    return Vocabulary(
        model="llama",
        tokens=tokens,
        kinds=kinds,
        scores=scores + [UNMERGED] * (size - len(scores)),
        extra={"add_space_prefix": model.prefixed},
    )


def _check_merges(merges: Sequence[tuple[str, str]], ranks: Mapping[str, int], tokens: Set[str]) -> None:
    """llama.cpp merges any two tokens that give a third one. A model that SentencePiece has trained does so too.

    One that has fewer merges cuts texts in its own way. Files that were made from SentencePiece's lack a few as well.
    """
    known = set(merges)
    odd = sum(
        any(
            (token[:at], token[at:]) not in known
            for at in range(1, min(len(token), LONGEST))
            if token[:at] in tokens and token[at:] in tokens
        )
        for token in ranks
        if token in tokens
    )
    if odd > max(len(ranks) // 100, 1):
        raise NotSupported(
            f"{NAME}: llama.cpp has no tokenizer with model.merges that leave out ways to a token"
        )


def _normalised(file: TokenizerFile) -> bool:
    """Whether a space is put before a text. Spaces are blanks afterwards."""
    prefixed = False
    for step in steps(file.normalizer, "normalizers"):
        kind = step.get("type")
        if kind == "Prepend" and step.get("prepend") == BLANK:
            prefixed = True
        elif kind != "Replace" or step.get("pattern") != {"String": " "} or step.get("content") != BLANK:
            raise refused("normalizer", step)
    return prefixed


def _cut(file: TokenizerFile, *, chats: bool) -> bool:
    """The same for what comes next, which must not cut in other places than before blanks.

    llama.cpp puts a space before each text that follows a token with a meaning, or before none. Where one belongs
    before the `first` text only, that is right for prompts without such tokens, and wrong for those of chats.
    """
    prefixed = False
    for step in steps(file.pre_tokenizer, "pretokenizers"):
        if step.get("type") == "Metaspace" and step.get("replacement") == BLANK:
            scheme = step.get("prepend_scheme", "always" if step.get("add_prefix_space", True) else "never")
            prefixed = scheme == "always" or (scheme == "first" and not chats)
        elif not _keeps_blanks(step):
            raise refused("pre_tokenizer", step)
    return prefixed


def _keeps_blanks(step: Part) -> bool:
    """Gemma's: it cuts at spaces, of which there are none any more."""
    return step.get("type") == "Split" and step.get("pattern") == {"String": " "}
