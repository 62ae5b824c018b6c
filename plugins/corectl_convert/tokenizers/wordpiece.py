"""WordPiece, as BERT has it: from tokenizer.json, or from vocab.txt."""

from __future__ import annotations

from collections.abc import Mapping

from corectl.errors import BadModelFile, NotSupported
from corectl_convert.fields import Fields
from corectl_convert.recipe import Value
from corectl_convert.tokenizers.bpe import ids_of
from corectl_convert.tokenizers.file import NAME, TokenizerFile, refused, steps
from corectl_convert.tokenizers.sentencepiece import BLANK
from corectl_convert.tokenizers.vocabulary import CONTROL, UNKNOWN, UNUSED, Added, Slots, Vocabulary

INSIDE = "##"
"""How a token begins that goes on with a word; in GGUF it is the other ones that are marked."""

WORDS = "vocab.txt"
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def from_json(file: TokenizerFile, size: int) -> Vocabulary:
    """For a model with `size` tokens."""
    if file.model.continuing_subword_prefix not in (None, INSIDE):
        raise NotSupported(f"{NAME}: model.continuing_subword_prefix other than {INSIDE} is not supported")
    extra: dict[str, Value] = {}
    for step in steps(file.normalizer, "normalizers"):
        if step.get("type") != "BertNormalizer" or step.get("handle_chinese_chars", True) is not True:
            raise refused("normalizer", step)
        extra = _normalised(step.get("lowercase", True) is True, step.get("strip_accents"))
    if not extra:
        raise NotSupported(f"{NAME}: a WordPiece model without a normalizer is not supported")
    for step in steps(file.pre_tokenizer, "pretokenizers"):
        if step.get("type") != "BertPreTokenizer":
            raise refused("pre_tokenizer", step)
    return _vocabulary(NAME, ids_of(file.model), file.model.unk_token, file.added_tokens, size, extra)


def from_words(data: bytes, size: int, says: Fields) -> Vocabulary:
    """From vocab.txt, which has a token in each line, and what tokenizer_config.json `says` of texts."""
    if not says.flag("tokenize_chinese_chars", True):
        raise NotSupported(f"{says.file}: llama.cpp has no WordPiece with tokenize_chinese_chars false")
    lowercase = says.flag("do_lower_case", True)
    normalised = _normalised(lowercase, says.flag("strip_accents", lowercase))
    words = data.decode("utf-8", "replace").split("\n")
    words = [word.rstrip("\r") for word in (words[:-1] if words[-1] == "" else words)]
    if len(set(words)) < len(words):
        raise BadModelFile(f"{WORDS} has a token twice")
    ids = {word: id for id, word in enumerate(words)}
    added = [Added(ids[word], word, special=True) for word in SPECIAL if word in ids]
    return _vocabulary(WORDS, ids, "[UNK]", added, size, normalised)


def _normalised(lowercase: bool, accents: object) -> dict[str, Value]:
    """Accents go with the upper case, unless it is said otherwise."""
    return {
        "normalizer.lowercase": lowercase,
        "normalizer.strip_accents": accents if isinstance(accents, bool) else lowercase,
    }


def _vocabulary(
    name: str,
    ids: Mapping[str, int],
    unknown: str | None,
    added: list[Added],
    size: int,
    extra: Mapping[str, Value],
) -> Vocabulary:
    slots = Slots(name, size)
    slots.put(ids.items())
    if unknown is not None and unknown in ids:
        slots.mark(ids[unknown], UNKNOWN)
    slots.add(added)
    tokens, kinds = slots.filled()
    marked = [
        token if kind in (CONTROL, UNKNOWN, UNUSED) else _marked(token)
        for token, kind in zip(tokens, kinds, strict=True)
    ]
    return Vocabulary(model="bert", tokens=marked, kinds=kinds, extra=extra)


def _marked(token: str) -> str:
    return token.removeprefix(INSIDE) if token.startswith(INSIDE) else BLANK + token
