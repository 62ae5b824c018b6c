"""What Go does with values: when one is true, how it prints, which kind it is.

Templates see Python's own: str, int, float, bool, None (nil), list, dict (a map) and `Record` (a struct).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import msgspec

MAX_OUTPUT = 16 << 20
"""Characters in any one text that a template makes."""


class Fault(Exception):
    """A template asked for something impossible. The evaluator adds the line."""


class Record(msgspec.Struct, frozen=True):
    """A Go struct: its fields as templates name them, and what it prints as, in that order."""

    fields: Mapping[str, Any]
    printed: Mapping[str, Any]


class JsonList(list[Any]):
    """A list that prints as JSON; others print as Go prints a slice: `[a b]`."""


def kind(value: Any) -> str:
    """The basic kind that Go compares by."""
    match value:
        case None:
            return "nil"
        case bool():
            return "bool"
        case int():
            return "int"
        case float():
            return "float64"
        case str():
            return "string"
        case list() | tuple():
            return "slice"
        case dict():
            return "map"
        case _:
            return "struct"


def truth(value: Any) -> bool:
    """Whether a condition holds: empty, zero and nil do not; a struct always does."""
    return isinstance(value, Record) or bool(value)


def bulk(value: Any) -> int:
    """The characters and items in a value: about the length of what it prints as."""
    size = 0
    waiting = [value]
    while waiting:
        item = waiting.pop()
        size += len(item) if isinstance(item, str) else 1
        if isinstance(item, Record):
            item = item.printed
        if isinstance(item, Mapping):
            waiting.extend(item.keys())
            waiting.extend(item.values())
        elif isinstance(item, list | tuple):
            waiting.extend(item)
    return size


def to_json(value: Any) -> str:
    """Compact JSON. The keys of maps are sorted, a struct's keep their order."""
    return json.dumps(_plain(value), ensure_ascii=False, separators=(",", ":"))


def _plain(value: Any) -> Any:
    if isinstance(value, Record):
        return {name: _plain(item) for name, item in value.printed.items()}
    if isinstance(value, dict):
        return {str(name): _plain(value[name]) for name in sorted(value, key=str)}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def show(value: Any) -> str:
    """What printing a value gives. Nil prints nothing: a missing key must not put words into a prompt."""
    match value:
        case str():
            return value
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case float():
            return _show_float(value)
        case JsonList() | dict() | Record():
            return to_json(value)
        case list() | tuple():
            return "[" + " ".join(show(item) for item in value) + "]"
        case _:
            return str(value)


def _show_float(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    # Go writes the shortest form, with an exponent from 1e21 on; Python already does from 1e16.
    return str(int(value)) if value.is_integer() and abs(value) < 1e21 else repr(value)
