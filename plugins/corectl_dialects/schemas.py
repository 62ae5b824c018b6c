"""What schemas of tools' parameters say: which keys there are, and of which types their values are.

Nobody has checked them: what is no schema says nothing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec

MAX_STEPS, VALUES_A_STEP = 256, 200
"""A schema that takes more steps than this to say something does not say it; so many constants are a step, too."""

MAX_REFERENCE = 1000
"""Characters of a `$ref`. Longer ones lead nowhere."""

_TYPES = {dict: "object", list: "array", str: "string", bool: "boolean", int: "integer", float: "number"}


def json_type(value: str) -> str:
    """The type of a JSON text, in JSON Schema's words."""
    names = {"{": "object", "[": "array", '"': "string", "t": "boolean", "f": "boolean", "n": "null"}
    if value[0] in names:
        return names[value[0]]
    return "integer" if value.lstrip("-").isdigit() else "number"


def _type_of(value: object) -> str:
    return _TYPES.get(type(value), "null")


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
        steps[0] -= len(values) // VALUES_A_STEP
        return frozenset(map(_type_of, values)) if steps[0] >= 0 else frozenset()
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

    def may_repeat(self, key: str) -> bool:
        """Whether no grammar keeps a key from coming twice; then the last one counts, as in JSON."""
        return key not in self.properties and self.others is not None


def members(root: Mapping[str, Any]) -> Members:
    """What the schema of an object says of its keys, itself or through what it refers to and puts together.

    A key has the schema of the first place that names it. What only some of several options name may have the schema of
    any of them, and need not come. Other keys than those that are named are for schemas that ask for them, and for
    those that name none; those that have a pattern may have any name.
    """
    properties: dict[str, Any] = {}
    options: dict[str, list[Any]] = {}
    required: set[str] = set()
    patterns: list[Any] = []
    others: list[Any] = []
    named = closed = False
    for schema, always in _parts(root):
        named = named or "properties" in schema
        for key, value in _pairs(schema.get("properties")):
            if always:
                properties.setdefault(key, value)
            else:
                options.setdefault(key, []).append(value)
        if always:
            required |= {key for key in _items(schema.get("required")) if isinstance(key, str)}
        more = schema.get("additionalProperties")
        closed = closed or (always and more is False)
        patterns += [value for _, value in _pairs(schema.get("patternProperties"))]
        others += [more if isinstance(more, dict) else {}] if more not in (None, False) else []
    for key, schemas in options.items():
        properties.setdefault(key, {"anyOf": schemas})
    free = patterns + ([] if closed else others)
    if not free and not named and not closed:
        free = [{}]
    return Members(
        properties, frozenset(required), {"anyOf": free} if len(free) > 1 else free[0] if free else None
    )


def _parts(root: Mapping[str, Any]) -> Iterator[tuple[dict[str, Any], bool]]:
    """The schemas that a schema consists of, each once, and whether an object always obeys them."""
    pending: deque[tuple[object, bool]] = deque([(root, True)])
    seen: set[tuple[int, bool]] = set()
    for _ in range(MAX_STEPS):
        if not pending:
            return
        schema, always = pending.popleft()
        if not isinstance(schema, dict) or (id(schema), always) in seen:
            continue
        seen.add((id(schema), always))
        yield schema, always
        if isinstance(reference := schema.get("$ref"), str):
            pending.append((resolve(reference, root), always))
        pending.extend((part, always) for part in _items(schema.get("allOf"))[:MAX_STEPS])
        for key in ("anyOf", "oneOf"):
            pending.extend((part, False) for part in _items(schema.get(key))[:MAX_STEPS])


def _pairs(value: object) -> Iterable[tuple[str, Any]]:
    return value.items() if isinstance(value, dict) else ()


def _items(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def resolve(reference: str, root: Mapping[str, Any]) -> object:
    """What a `$ref` within the same schema points to, None for nothing."""
    if len(reference) > MAX_REFERENCE:
        return None
    found: object = root
    for key in reference.removeprefix("#").split("/")[1:]:
        key = key.replace("~1", "/").replace("~0", "~")
        found = found.get(key) if isinstance(found, dict) else None
    return found
