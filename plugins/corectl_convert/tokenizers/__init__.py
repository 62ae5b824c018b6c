"""From the files of a tokenizer to the keys of a GGUF file."""

from __future__ import annotations

import re
from typing import Any

from corectl.errors import BadModelFile, NotSupported
from corectl.model.files import ModelFiles
from corectl.model.hf import MAX_TOKENIZER_CONFIG, config_of
from corectl_convert.fields import Fields
from corectl_convert.recipe import Recipe, Value
from corectl_convert.tokenizers import bpe, file, protobuf, sentencepiece, unigram, wordpiece
from corectl_convert.tokenizers.file import TokenizerFile
from corectl_convert.tokenizers.special import CONFIG, Around, around, chat_templates, special_metadata
from corectl_convert.tokenizers.stripping import name_metadata
from corectl_convert.tokenizers.vocabulary import Added, Vocabulary

MAX_WORDS = 32 << 20
"""Bytes of vocab.txt."""


def tokenizer_metadata(files: ModelFiles, config: Fields, recipe: Recipe) -> dict[str, Value]:
    """All keys about tokens. Raises `BadModelFile`, and `NotSupported` for a tokenizer that llama.cpp does not have."""
    vocabulary, found, added = _vocabulary(files, recipe)
    if vocabulary.model not in recipe.tokenizers:
        raise NotSupported(
            f"a model of the architecture {recipe.architecture} with a tokenizer of the kind {vocabulary.model}"
        )
    metadata = vocabulary.metadata() | special_metadata(files, config, vocabulary, found)
    metadata |= name_metadata(vocabulary, added)
    return metadata if recipe.pooled else metadata | chat_templates(files)


def why_not(files: ModelFiles) -> str:
    """Whether the files of a tokenizer are there; empty if they are."""
    if any(name in files.named for name in (file.NAME, protobuf.NAME, wordpiece.WORDS)):
        return ""
    return f"there is no tokenizer: {file.NAME}, {protobuf.NAME} and {wordpiece.WORDS} are missing"


def _vocabulary(files: ModelFiles, recipe: Recipe) -> tuple[Vocabulary, Around | None, list[Added]]:
    """The tokens, what is put around a text where that is said, and the tokens that were added."""
    if file.NAME in files.named:
        tokenizer = file.read(files)
        vocabulary = _from_json(tokenizer, recipe, chats=bool(chat_templates(files)))
        return vocabulary, around(tokenizer.post_processor), tokenizer.added_tokens
    config = config_of(files, CONFIG, MAX_TOKENIZER_CONFIG) if CONFIG in files.named else {}
    if protobuf.NAME in files.named:
        data = files.read(protobuf.NAME, protobuf.MAX_FILE)
        added = _added(files, config)
        return sentencepiece.from_model(data, added, recipe.vocabulary), None, added
    if wordpiece.WORDS in files.named:
        data = files.read(wordpiece.WORDS, MAX_WORDS)
        return wordpiece.from_words(data, recipe.vocabulary, Fields(CONFIG, config)), None, []
    raise BadModelFile(why_not(files))


def _from_json(tokenizer: TokenizerFile, recipe: Recipe, *, chats: bool) -> Vocabulary:
    kind, size = tokenizer.model.kind, recipe.vocabulary
    if kind == "BPE":
        if bpe.is_byte_level(tokenizer):
            return bpe.byte_level(tokenizer, size, pairs=recipe.architecture == "bert")
        return sentencepiece.from_json(tokenizer, size, chats=chats)
    if kind == "WordPiece":
        return wordpiece.from_json(tokenizer, size)
    if kind == "Unigram":
        return unigram.from_json(tokenizer, size)
    raise NotSupported(f"{file.NAME}: model.type {kind!r:.40} is not supported")


def _added(files: ModelFiles, config: dict[str, Any]) -> list[Added]:
    """Tokens that the library's older files add to tokenizer.model."""
    found: list[Added] = []
    if "added_tokens.json" in files.named:
        for text, id in config_of(files, "added_tokens.json", MAX_TOKENIZER_CONFIG).items():
            if type(id) is not int:
                raise BadModelFile(f"added_tokens.json: the id of {text!r:.80} is no whole number")
            found.append(Added(id, text))
    decoder = config.get("added_tokens_decoder", {})
    for key, item in decoder.items() if isinstance(decoder, dict) else ():
        content = item.get("content") if isinstance(item, dict) else None
        if not isinstance(content, str) or not re.fullmatch("[0-9]{1,9}", key):
            raise BadModelFile(f"{CONFIG}: added_tokens_decoder.{key:.20} is no token")
        flags = {name: item.get(name) is True for name in ("special", "lstrip", "rstrip")}
        found.append(Added(int(key), content, **flags))
    return found
