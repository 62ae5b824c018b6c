"""JSON schema properties as TypeScript types, the way some templates describe tools."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

_TYPES = {
    "string": "string",
    "number": "number",
    "integer": "number",
    "boolean": "boolean",
    "array": "any[]",
    "object": "Record<string, any>",
    "null": "null",
}


def to_typescript(schema: Any) -> str:
    """The type of a property: `{"type": ["string", "null"]}` gives `string | null`.

    Schemas are the client's: what makes no sense in one is `any`.
    """
    return " | ".join(dict.fromkeys(_names(schema))) or "any"


def _names(schema: Any) -> list[str]:
    if isinstance(schema, str):
        return [_TYPES.get(schema, "any")]
    if not isinstance(schema, Mapping):
        return []
    if choices := _items(schema.get("anyOf")):
        return [name for choice in choices for name in _names(choice)]
    given = schema.get("type")
    names = [given] if isinstance(given, str) else _items(given)
    return [_TYPES.get(name, "any") for name in names if isinstance(name, str)]


def _items(value: Any) -> Sequence[Any]:
    """Those of an array, none of anything else."""
    return value if isinstance(value, Sequence) and not isinstance(value, str) else ()
