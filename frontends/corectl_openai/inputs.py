"""What completions and embeddings take: a text, texts, a list of tokens, or several."""

from __future__ import annotations

from typing import Any

from corectl_openai.errors import WrongField

MAX_INPUTS = 2048

Tokens = tuple[int, ...]
Input = str | Tokens


def read_inputs(value: Any, where: str) -> list[Input]:
    """The inputs, none for what was not given. Raises `WrongField`."""
    if value is None:
        return []
    if isinstance(value, str):
        return [value]
    if not isinstance(value, list):
        raise WrongField(where, f"{where} must be a string or an array", "invalid_type")
    if _is_tokens(value):
        return [tuple(value)]
    if len(value) > MAX_INPUTS:
        raise WrongField(
            where, f"{where} has {len(value)} items; {MAX_INPUTS} are taken", "array_above_max_length"
        )
    return [_item(item, f"{where}[{index}]") for index, item in enumerate(value)]


def _item(item: Any, where: str) -> Input:
    if isinstance(item, str):
        return item
    if isinstance(item, list) and _is_tokens(item):
        return tuple(item)
    raise WrongField(where, f"{where} must be a string or an array of tokens", "invalid_type")


def _is_tokens(value: list[Any]) -> bool:
    return bool(value) and all(type(item) is int and 0 <= item < 2**31 for item in value)
