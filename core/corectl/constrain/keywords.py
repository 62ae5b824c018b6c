"""The keywords of JSON Schema whose values are no schemas, and those that cannot be enforced."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

EXACT = 2**53
"""Whole numbers beyond this are not the same as floating point, which they are enforced in."""

MAX_PATTERN = 4096
MAX_DIGITS = 4
"""Digits that a step of `multipleOf` may have: an automaton counts up to it."""

MAX_SHOWN = 100

TYPES = ("null", "boolean", "integer", "number", "string", "array", "object")
FORMATS = ("date-time", "date", "time", "duration", "email", "hostname", "ipv4", "ipv6", "uri", "uuid")
UNSUPPORTED = frozenset(
    (
        *(
            "not",
            "if",
            "then",
            "else",
            "contains",
            "minContains",
            "maxContains",
            "uniqueItems",
            "propertyNames",
        ),
        *(
            "dependentRequired",
            "dependentSchemas",
            "dependencies",
            "unevaluatedItems",
            "unevaluatedProperties",
        ),
        *("$dynamicRef", "$recursiveRef", "extends", "disallow", "divisibleBy"),
    )
)
NO_EFFECT: dict[str, tuple[Any, ...]] = {
    "not": (False,),
    "uniqueItems": (False,),
    # Names are strings whatever is said.
    "propertyNames": (True, {}, {"type": "string"}),
    "unevaluatedItems": (True, {}),
    "unevaluatedProperties": (True, {}),
    **dict.fromkeys(("dependentRequired", "dependentSchemas", "dependencies"), ({},)),
    "format": ("password", "binary", "path", "file-path", "directory-path"),
}
"""Values that forbid nothing, of keywords that are not supported with others."""


class CannotEnforce(Exception):
    """A keyword's value is none, or not one that can be enforced."""


def forbids_nothing(schema: Mapping[str, Any], keyword: str) -> bool:
    """Whether a schema would allow the same without one of its keywords."""
    value = schema[keyword]
    if keyword == "format":
        types = schema.get("type", "string")
        if "string" not in (types if isinstance(types, list) else [types]):
            return True
    # To Python 0 is False, and 1 is True.
    return any(type(value) is type(free) and value == free for free in NO_EFFECT.get(keyword, ()))


def children(value: Any) -> list[Any]:
    """What lies directly in a JSON value."""
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []


def as_pattern(value: Any) -> str:
    """A regular expression, whose syntax is left to llguidance."""
    text = _text(value)
    if len(text) > MAX_PATTERN:
        raise CannotEnforce(f"patterns longer than {MAX_PATTERN} characters are not supported")
    return text


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise CannotEnforce("must be a string")
    return value


def _type(value: Any) -> Any:
    names = value if isinstance(value, list) else [value]
    if not names or any(name not in TYPES for name in names):
        raise CannotEnforce(f"must be one or more of {', '.join(TYPES)}")
    return value


def _constant(value: Any) -> Any:
    level = [value]
    while level:
        if any(type(item) is int and abs(item) > EXACT for item in level):
            raise CannotEnforce(f"whole numbers beyond {EXACT} are not supported")
        level = [child for item in level for child in children(item)]
    return value


def _enumeration(value: Any) -> Any:
    if not isinstance(value, list) or not value:
        raise CannotEnforce("must be a list of values")
    return _constant(value)


def _number(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise CannotEnforce("must be a number")
    return _constant(value)


def _exclusive(value: Any) -> Any:
    # A boolean is what it was in draft 4: whether the inclusive bound is exclusive.
    return value if isinstance(value, bool) else _number(value)


def step_digits(value: float) -> str:
    """The significant digits of a step of `multipleOf`."""
    return repr(value).partition("e")[0].replace(".", "").strip("0")


def _step(value: Any) -> Any:
    number = _number(value)
    if number <= 0:
        raise CannotEnforce("must be above 0")
    if len(step_digits(number)) > MAX_DIGITS or not 1e-9 <= number <= 1e9:
        raise CannotEnforce(
            f"more than {MAX_DIGITS} digits are not supported, and none below 1e-9 or above 1e9"
        )
    return number


def _count(value: Any) -> int:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise CannotEnforce("must be a whole number from 0")
    count: int = _constant(value)
    return count


def _format(value: Any) -> str:
    name = _text(value)
    if name not in FORMATS:
        raise CannotEnforce(f"{name[:MAX_SHOWN]!r} is not supported, only {', '.join(FORMATS)}")
    return name


def _names(value: Any) -> Any:
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise CannotEnforce("must be a list of strings")
    return value


VALUES: dict[str, Callable[[Any], Any]] = {
    "type": _type,
    "const": _constant,
    "enum": _enumeration,
    "minimum": _number,
    "maximum": _number,
    "exclusiveMinimum": _exclusive,
    "exclusiveMaximum": _exclusive,
    "multipleOf": _step,
    "minLength": _count,
    "maxLength": _count,
    "pattern": as_pattern,
    "format": _format,
    "minItems": _count,
    "maxItems": _count,
    "required": _names,
    "minProperties": _count,
    "maxProperties": _count,
}
"""What checks the value of each keyword, and gives it back. Raises `CannotEnforce`."""
