"""What schemas of tools' parameters say: which keys there are, and of which types their values are.

Nobody has checked them: what is no schema says nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

MAX_STEPS = 256
"""A schema that takes more steps than this to say something does not say it."""


def json_type(value: str) -> str:
    """The type of a JSON text, in JSON Schema's words."""
    names = {"{": "object", "[": "array", '"': "string", "t": "boolean", "f": "boolean", "n": "null"}
    if value[0] in names:
        return names[value[0]]
    return "integer" if value.lstrip("-").isdigit() else "number"


def allowed_types(schema: object, root: Mapping[str, Any]) -> frozenset[str]:
    """The JSON types that a schema allows, empty where it does not say. `root` is where `$ref` looks things up."""
    return _allowed_types(schema, root, [MAX_STEPS])


def _allowed_types(schema: object, root: Mapping[str, Any], steps: list[int]) -> frozenset[str]:
    steps[0] -= 1
    if not isinstance(schema, dict) or steps[0] < 0:
        return frozenset()
    if "type" in schema:
        given = schema["type"]
        return frozenset([given] if isinstance(given, str) else map(str, _items(given)))
    if "const" in schema or "enum" in schema:
        values = [schema["const"]] if "const" in schema else _items(schema["enum"])
        return frozenset(json_type(json.dumps(value)) for value in values)
    if "$ref" in schema:
        return _allowed_types(resolve(str(schema["$ref"]), root), root, steps)
    for key in ("anyOf", "oneOf"):
        options = [_allowed_types(option, root, steps) for option in _items(schema.get(key))]
        if options:
            return frozenset().union(*options) if all(options) else frozenset()
    known = [types for part in _items(schema.get("allOf")) if (types := _allowed_types(part, root, steps))]
    return frozenset.intersection(*known) if known else frozenset()


class Members(msgspec.Struct, frozen=True):
    """What an object may have. `others` is the schema of keys that are not in `properties`, None if there are none."""

    properties: Mapping[str, Any]
    required: frozenset[str]
    others: Any

    def schema_of(self, key: str) -> Any:
        """The schema of a key's value."""
        return self.properties.get(key, self.others)


def members(root: Mapping[str, Any]) -> Members:
    """What the schema of an object says of its keys, itself or through what it refers to and puts together.

    A key has the schema of the first place that names it. What only some of several options name may have the schema of
    any of them, and need not come. Other keys than those that are named are for schemas that ask for them, and for
    those that name none.
    """
    properties: dict[str, Any] = {}
    options: dict[str, list[Any]] = {}
    required: set[str] = set()
    others: list[Any] = []
    # Each with whether an object always obeys it.
    pending: list[tuple[object, bool]] = [(root, True)]
    named = False
    for _ in range(MAX_STEPS):
        if not pending:
            break
        schema, always = pending.pop(0)
        if not isinstance(schema, dict):
            continue
        named = named or "properties" in schema
        for key, value in _pairs(schema.get("properties")):
            if always:
                properties.setdefault(key, value)
            else:
                options.setdefault(key, []).append(value)
        if always:
            required |= {key for key in _items(schema.get("required")) if isinstance(key, str)}
        if (more := schema.get("additionalProperties")) is not None and (always or more is not False):
            others.append(more)
        if isinstance(reference := schema.get("$ref"), str):
            pending.append((resolve(reference, root), always))
        pending += [(part, always) for part in _items(schema.get("allOf"))]
        pending += [(part, False) for key in ("anyOf", "oneOf") for part in _items(schema.get(key))]
    for key, schemas in options.items():
        properties.setdefault(key, {"anyOf": schemas})
    if (named and not others) or any(more is False for more in others):
        return Members(properties, frozenset(required), None)
    free = others[0] if others and isinstance(others[0], dict) else {}
    return Members(properties, frozenset(required), free)


def _pairs(value: object) -> Iterable[tuple[str, Any]]:
    return value.items() if isinstance(value, dict) else ()


def _items(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def resolve(reference: str, root: Mapping[str, Any]) -> object:
    """What a `$ref` within the same schema points to, None for nothing."""
    found: object = root
    for key in reference.removeprefix("#").split("/")[1:]:
        key = key.replace("~1", "/").replace("~0", "~")
        found = found.get(key) if isinstance(found, dict) else None
    return found
