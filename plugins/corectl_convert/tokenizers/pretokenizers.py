"""How byte-level tokenizers cut a text into words: the name that llama.cpp has for it, by its structure.

The name is computed from the file, never guessed from the model's name: two models of one family may differ, and one
that is new may be cut as another one. A structure that is not known here is refused.
"""

from __future__ import annotations

from typing import Any

from corectl.errors import NotSupported
from corectl_convert.tokenizers.file import NAME, Part, refused, steps

BYTES = ("ByteLevel", False)
WORDS = ("ByteLevel", True)
"""With the cut of GPT-2, which the step brings with it."""

_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_QWEN2 = _LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_ENDS = r" ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_START = r"[^\r\n\p{L}\p{N}]?"
_CASES = rf"{_START}{_UPPER}*{_LOWER}+%s|{_START}{_UPPER}+{_LOWER}*%s|\p{{N}}%s|{_ENDS}"
_TEKKEN = _CASES % ("", "", "")
_SHORT = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
_GPT4O = _CASES % (_SHORT, _SHORT, "{1,3}")
_DEEPSEEK3 = (
    r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^<>\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"""
    r"| ?[\p{P}\p{S}]+[<>]*|\s*[<>]+|\s+(?!\S)|\s+"
).replace("<>", "\r\n")
"""It holds the ends of lines themselves, where the others have names for them."""


Structure = tuple[Any, ...]


def _split(pattern: str) -> Structure:
    return ("Split", pattern)


KNOWN: dict[tuple[tuple[Structure, ...], bool], str] = {
    ((WORDS,), False): "gpt-2",
    ((("Digits",), WORDS), False): "smollm",
    ((_split(_LLAMA3), BYTES), True): "llama-bpe",
    ((_split(_LLAMA3), BYTES), False): "dbrx",
    ((_split(_QWEN2), BYTES), False): "qwen2",
    ((_split(_TEKKEN), BYTES), True): "tekken",
    ((_split(_GPT4O), BYTES), False): "gpt-4o",
    (
        (_split(r"\p{N}{1,3}"), _split("[一-龥぀-ゟ゠-ヿ]+"), _split(_DEEPSEEK3), BYTES),
        False,
    ): "deepseek-v3",
    (
        (
            _split("[\r\n]"),
            _split(r"\s?\p{L}+"),
            _split(r"\s?\p{P}+"),
            _split("[一-龥ࠀ-一가-퟿]+"),
            ("Digits",),
            BYTES,
        ),
        False,
    ): "deepseek-coder",
}
"""By the steps, and whether a whole word that is a token is taken as it is, whatever the merges say."""


def name_of(pre_tokenizer: Part | None, *, ignore_merges: bool) -> str:
    """llama.cpp's name. Raises `NotSupported` for a structure that it has none for, naming it."""
    found = steps(pre_tokenizer, "pretokenizers")
    structure = tuple(_structure(step) for step in found)
    name = KNOWN.get((structure, ignore_merges))
    if name is None:
        shown = f"{structure!r:.400}" + (" and ignore_merges" if ignore_merges else "")
        raise NotSupported(f"{NAME}: llama.cpp has no pre_tokenizer that cuts as this one does: {shown}")
    return name


def _structure(step: Part) -> Structure:
    kind = step.get("type")
    if kind == "ByteLevel":
        if step.get("add_prefix_space", True) is not False:
            raise refused("pre_tokenizer", step)
        return WORDS if step.get("use_regex", True) is not False else BYTES
    if kind == "Digits" and step.get("individual_digits") is True:
        return ("Digits",)
    if kind == "Split":
        pattern = step.get("pattern")
        expression = pattern.get("Regex") if isinstance(pattern, dict) else None
        # What an expression does not match is a word either way; all of these match everything.
        whole = (step.get("behavior"), step.get("invert", False)) in (("Isolated", False), ("Removed", True))
        if isinstance(expression, str) and whole:
            return ("Split", expression)
    raise refused("pre_tokenizer", step)
