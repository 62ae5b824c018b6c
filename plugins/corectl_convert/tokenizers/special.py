"""Tokens with a meaning: which they are, which are put around a text, and the chat templates that use them."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from typing import Any

import msgspec

from corectl.errors import BadModelFile, NotSupported
from corectl.model.files import ModelFiles
from corectl.model.hf import MAX_TOKENIZER_CONFIG, config_of
from corectl_convert.fields import Fields
from corectl_convert.recipe import Value
from corectl_convert.tokenizers.file import NAME, Part, steps
from corectl_convert.tokenizers.vocabulary import UNKNOWN, Vocabulary

log = logging.getLogger(__name__)

CONFIG = "tokenizer_config.json"
MAP = "special_tokens_map.json"
GENERATION = "generation_config.json"

KEYS = {"unk": "unknown", "sep": "seperator", "pad": "padding", "mask": "mask"}
"""GGUF's names, where they are not those of transformers; one of them is misspelt there."""

ENDS = ("eos", "eot", "eom")
"""Where GGUF keeps tokens that end a reply. Models have more than one."""

_USUAL = {
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "unk_token": "[UNK]",
    "pad_token": "[PAD]",
    "mask_token": "[MASK]",
}
"""What BERT's tokens are called, where nothing is said."""

_TEMPLATE_NAME = re.compile(r"[a-z0-9_]{1,40}")
_TEMPLATE_FILE = re.compile(r"additional_chat_templates/(.+)\.jinja")


class Around(msgspec.Struct, frozen=True):
    """The tokens that are put before and after a text, by their texts; empty for none."""

    first: str = ""
    last: str = ""


def around(post_processor: Part | None) -> Around | None:
    """What tokenizer.json says; None if it does not. Raises `NotSupported` for more than one token on a side."""
    for step in steps(post_processor, "processors"):
        if step.get("type") in ("BertProcessing", "RobertaProcessing"):
            return Around(_pair(step, "cls"), _pair(step, "sep"))
        if step.get("type") == "TemplateProcessing":
            return _template(step)
    return None


def _pair(step: Part, key: str) -> str:
    found = step.get(key)
    if not isinstance(found, list) or len(found) != 2 or not isinstance(found[0], str):
        raise BadModelFile(f"{NAME}: post_processor.{key} is no pair of token and id")
    return found[0]


def _template(step: Part) -> Around:
    single = step.get("single")
    if not isinstance(single, list) or not all(isinstance(part, dict) for part in single):
        raise BadModelFile(f"{NAME}: post_processor.single is no list of objects")
    before: list[str] = []
    after: list[str] = []
    side = before
    for part in single:
        if "Sequence" in part:
            side = after
            continue
        token = part.get("SpecialToken")
        if not isinstance(token, dict) or not isinstance(token.get("id"), str):
            raise BadModelFile(f"{NAME}: post_processor.single has a part that is no token and no sequence")
        side.append(token["id"])
    if len(before) > 1 or len(after) > 1:
        raise NotSupported(f"{NAME}: post_processor puts more than one token before or after a text")
    return Around("".join(before), "".join(after))


def special_metadata(
    files: ModelFiles, config: Fields, vocabulary: Vocabulary, found: Around | None
) -> dict[str, Value]:
    """All keys about tokens with a meaning.

    Raises `BadModelFile` for ids that no token has, and where no token ends a reply: llama.cpp would take another one.
    """
    ids = {token: id for id, token in enumerate(vocabulary.tokens)}
    says = _object(files, CONFIG)
    named = _USUAL if vocabulary.model == "bert" else {}
    named = {**named, **_texts(_object(files, MAP)), **_texts(says)}
    special = {
        name: id
        for name in ("bos", "eos", "unk", "sep", "pad", "cls", "mask")
        if (id := _id(name, named, config, ids)) is not None
    }
    outer = found or Around()
    first, last = (ids.get(text) if text else None for text in (outer.first, outer.last))
    _default(special, "bos", first, special.get("cls"))
    _default(special, "sep", last)
    _default(special, "unk", vocabulary.kinds.index(UNKNOWN) if UNKNOWN in vocabulary.kinds else None)
    # What is put after a text ends it, whatever else ends a reply.
    named_ends = [id for id in (last, special.get("eos", special.get("sep"))) if id is not None]
    ends = list(dict.fromkeys([*named_ends, *_generation_ends(files, len(ids))]))
    if not ends:
        raise BadModelFile(
            f"neither {CONFIG} nor config.json names a token that ends a text: eos_token is missing"
        )
    if first is not None:
        special["bos"] = first
    special |= dict(zip(ENDS, ends, strict=False))
    if len(ends) > len(ENDS):
        log.warning("%s names more tokens that end a reply than a GGUF file has room for", GENERATION)
    special.pop("cls", None)
    metadata: dict[str, Value] = {
        f"tokenizer.ggml.{KEYS.get(name, name)}_token_id": id for name, id in special.items()
    }
    return metadata | _added(says, found, special, model=vocabulary.model)


def _default(special: dict[str, int], name: str, *values: int | None) -> None:
    """The first of some values that is known, for a token that is not."""
    known = [value for value in values if value is not None]
    if name not in special and known:
        special[name] = known[0]


def _added(
    says: Mapping[str, Any], found: Around | None, special: Mapping[str, int], *, model: str
) -> dict[str, Value]:
    """What is put around a text: as the configuration of the tokenizer says, else as its file does."""
    if model == "bert":
        return {}  # llama.cpp puts the same tokens around a text, always
    flags: dict[str, Value] = {}
    for name, token in (("bos", found.first if found else ""), ("eos", found.last if found else "")):
        said = says.get(f"add_{name}_token")
        default = bool(token) if found is not None else name == "bos" and model == "llama"
        wanted = said if isinstance(said, bool) else default
        flags[f"tokenizer.ggml.add_{name}_token"] = wanted and name in special
    return flags


def _id(name: str, named: Mapping[str, str], config: Fields, ids: Mapping[str, int]) -> int | None:
    text = named.get(f"{name}_token")
    if text is not None and text in ids:
        return ids[text]
    key = f"{name}_token_id"
    value = config.get(key)
    if isinstance(value, list) and value:
        value = value[0]
    if value is None or (type(value) is int and value < 0):
        return None  # a negative number is an early way to say that there is none
    if type(value) is not int or value >= len(ids):
        raise config.bad(key, f"is {value!r:.40}, and there are {len(ids)} tokens")
    return value


def _generation_ends(files: ModelFiles, count: int) -> list[int]:
    """What else ends a reply."""
    found = _object(files, GENERATION).get("eos_token_id")
    items = found if isinstance(found, list) else [found]
    ends = [item for item in items[:16] if type(item) is int and item >= 0]
    for item in ends:
        if item >= count:
            raise BadModelFile(f"{GENERATION}: eos_token_id is {item}, and there are {count} tokens")
    return ends


def _texts(values: Mapping[str, Any]) -> dict[str, str]:
    """The special tokens of a configuration, each a text or an object with one."""
    found = {}
    for key, value in values.items():
        text = value.get("content") if isinstance(value, dict) else value
        if key.endswith("_token") and isinstance(text, str):
            found[key] = text
    return found


def _object(files: ModelFiles, name: str) -> dict[str, Any]:
    return config_of(files, name, MAX_TOKENIZER_CONFIG) if name in files.named else {}


def chat_templates(files: ModelFiles) -> dict[str, Value]:
    """The template for chats, and others by their names."""
    found: dict[str, str] = {}
    templates = _object(files, CONFIG).get(
        "chat_template", _object(files, "chat_template.json").get("chat_template")
    )
    if isinstance(templates, str):
        found["default"] = templates
    elif isinstance(templates, list):
        for item in templates:
            if (
                isinstance(item, dict)
                and isinstance(item.get("name"), str)
                and isinstance(item.get("template"), str)
            ):
                found[item["name"]] = item["template"]
    if "chat_template.jinja" in files.named:
        found["default"] = _text(files, "chat_template.jinja")
    for name in files.named:
        if match := _TEMPLATE_FILE.fullmatch(name):
            found[match[1]] = _text(files, name)
    metadata: dict[str, Value] = {}
    if default := found.pop("default", ""):
        metadata["tokenizer.chat_template"] = default
    others = {name: text for name, text in sorted(found.items()) if _TEMPLATE_NAME.fullmatch(name) and text}
    if others:
        metadata["tokenizer.chat_templates"] = list(others)
        metadata |= {f"tokenizer.chat_template.{name}": text for name, text in others.items()}
    return metadata


def _text(files: ModelFiles, name: str) -> str:
    return files.read(name, MAX_TOKENIZER_CONFIG).decode("utf-8", "replace")
