"""Byte-level BPE, as GPT-2 has it: Llama 3, Qwen, SmolLM, the later Mistral models, RoBERTa."""

from __future__ import annotations

from corectl.errors import BadModelFile, NotSupported
from corectl_convert.tokenizers.file import NAME, Model, TokenizerFile, refused, steps
from corectl_convert.tokenizers.pretokenizers import name_of
from corectl_convert.tokenizers.vocabulary import Slots, Vocabulary

HARMLESS = ("NFC",)
"""Normalisers that llama.cpp does not have, and that leave nearly all texts as they are."""


def is_byte_level(file: TokenizerFile) -> bool:
    return any(step.get("type") == "ByteLevel" for step in steps(file.pre_tokenizer, "pretokenizers"))


def byte_level(file: TokenizerFile, size: int, *, pairs: bool) -> Vocabulary:
    """For a model with `size` tokens; `pairs` if two texts have a separator between them."""
    vocabulary = ids_of(file.model)
    for step in steps(file.normalizer, "normalizers"):
        if step.get("type") not in HARMLESS:
            raise refused("normalizer", step)
    for key in ("continuing_subword_prefix", "end_of_word_suffix"):
        if getattr(file.model, key):
            raise NotSupported(f"{NAME}: model.{key} is not supported for a byte-level tokenizer")
    pre = name_of(file.pre_tokenizer, ignore_merges=bool(file.model.ignore_merges))
    slots = Slots(NAME, size)
    slots.put(vocabulary.items())
    slots.add(file.added_tokens)
    tokens, kinds = slots.filled()
    merges = [f"{left} {right}" for left, right in merges_of(file.model, vocabulary)]
    if not merges:
        raise BadModelFile(f"{NAME}: model.merges is empty")
    if pairs and pre == "gpt-2":
        pre = "roberta-bpe"
    return Vocabulary(model="gpt2", pre=pre, tokens=tokens, kinds=kinds, merges=merges)


def ids_of(model: Model) -> dict[str, int]:
    if not isinstance(model.vocab, dict):
        raise BadModelFile(f"{NAME}: model.vocab is no map from tokens to ids")
    return model.vocab


def merges_of(model: Model, vocabulary: dict[str, int]) -> list[tuple[str, str]]:
    """The pairs in their order, all of which are tokens and give one."""
    found = []
    for merge in model.merges:
        pair = tuple(merge.split(" ")) if isinstance(merge, str) else merge
        if len(pair) != 2 or not all(pair) or any(" " in part for part in pair):
            raise BadModelFile(f"{NAME}: model.merges has {merge!r:.80}, which is no pair of tokens")
        if pair[0] not in vocabulary or pair[1] not in vocabulary or pair[0] + pair[1] not in vocabulary:
            raise BadModelFile(f"{NAME}: model.merges has {merge!r:.80}, whose tokens are not in model.vocab")
        found.append((pair[0], pair[1]))
    return found
