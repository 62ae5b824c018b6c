"""Which JSON Schemas can be enforced: what llguidance would not enforce is found before it sees a schema.

What goes on to llguidance is a copy that holds only keywords which it enforces, and whose objects are closed. It would
pass over others in silence: those of a draft that it does not know, and nearly all of a schema that names an old draft.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any, NoReturn
from urllib.parse import unquote

import msgspec

from corectl.constrain.closing import close_objects
from corectl.constrain.cost import check_cost
from corectl.constrain.keywords import (
    MAX_SHOWN,
    UNSUPPORTED,
    VALUES,
    CannotEnforce,
    as_pattern,
    children,
    forbids_nothing,
)
from corectl.errors import BadRequest

MAX_BYTES = 512 * 1024
MAX_DEPTH = 128
MAX_VALUES = 20_000
MAX_PATH = 200

Schema = dict[str, Any]
Path = tuple[str | int, ...]


class Checked(msgspec.Struct, frozen=True):
    """A schema that llguidance can be given. `places` says where each of its `$defs` stood."""

    schema: Schema
    places: dict[str, Path]

    def origin(self, path: Path) -> Path:
        """Where a part of the schema stood in what it was made from."""
        return (*self.places[str(path[1])], *path[2:]) if path[:1] == ("$defs",) else path


ANY_OBJECT = Checked({"type": "object"}, {})


def check_schema(text: str, field: str) -> Checked:
    """The schema that enforces `text`. Raises `BadRequest` with the path of what cannot be enforced, under `field`."""

    def refuse(path: Path, reason: str) -> NoReturn:
        raise BadRequest(f"{shown(field, path)}: {reason}")

    return _Copy(_parse(text.encode("utf-8", "replace"), field), refuse, field).made


def relax_schema(schema: Any, field: str) -> tuple[Checked, list[str]]:
    """The schema that enforces as much of `schema` as can be, and the paths of what it leaves out, under `field`."""
    dropped: list[str] = []
    try:
        parsed = _parse(msgspec.json.encode(schema), field)
        copy = _Copy(parsed, lambda path, reason: dropped.append(shown(field, path)), field)
    except (BadRequest, RecursionError):
        return ANY_OBJECT, [field]
    return copy.made, dropped


def shown(field: str, path: Path) -> str:
    """A path as clients write it: `format.properties.a.anyOf[0]`."""
    text = field + "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in path)
    return text if len(text) <= MAX_PATH else f"{text[:MAX_PATH]}..."


def _parse(data: bytes, field: str) -> Schema:
    if len(data) > MAX_BYTES:
        raise BadRequest(f"{field}: the schema is larger than {MAX_BYTES // 1024} KiB")
    try:
        schema = msgspec.json.decode(data)
    except RecursionError:
        raise BadRequest(f"{field}: the schema is nested deeper than {MAX_DEPTH} levels") from None
    except msgspec.MsgspecError as exc:
        raise BadRequest(f"{field}: the schema is no JSON: {exc}") from None
    if not isinstance(schema, dict):
        raise BadRequest(f"{field}: a schema must be an object")
    level, values = [schema], 0
    for _ in range(MAX_DEPTH):
        values += len(level)
        if values > MAX_VALUES:
            raise BadRequest(f"{field}: the schema holds more than {MAX_VALUES} values")
        level = [child for value in level for child in children(value)]
        if not level:
            return schema
    raise BadRequest(f"{field}: the schema is nested deeper than {MAX_DEPTH} levels")


class _Copy:
    """Copies one schema. `refuse` is told of what cannot be enforced; if it returns, that is left out."""

    def __init__(self, root: Schema, refuse: Callable[[Path, str], None], field: str) -> None:
        self._root = root
        self._refuse = refuse
        # The names in `$defs` of the targets of references, where those stood, and those that are still to be copied.
        self._names: dict[str, str] = {}
        self._places: dict[str, Path] = {}
        self._pending: list[tuple[str, Any]] = []
        copy: Schema = self._schema(root, ())
        definitions: Schema = {}
        while self._pending:
            name, target = self._pending.pop()
            definitions[name] = self._schema(target, self._places[name])
        close_objects(copy, definitions)
        check_cost(copy, definitions, field)
        if definitions:
            copy["$defs"] = definitions
        self.made = Checked(copy, self._places)

    def _schema(self, schema: Any, path: Path) -> Any:
        if isinstance(schema, bool):
            return schema
        if not isinstance(schema, dict):
            self._refuse(path, "a schema must be an object or a boolean")
            return True
        copy: Schema = {}
        for keyword, value in schema.items():
            place = (*path, keyword)
            try:
                if forbids_nothing(schema, keyword):
                    continue
                if keyword in VALUES:
                    copy[keyword] = VALUES[keyword](value)
                elif keyword in _APPLICATORS:
                    copy[keyword] = _APPLICATORS[keyword](self, value, place)
                elif keyword in UNSUPPORTED:
                    raise CannotEnforce("not supported")
                elif keyword == "$id" and path:
                    raise CannotEnforce("not supported below the top of a schema")
            except CannotEnforce as exc:
                self._refuse(place, str(exc))
        if copy.get("minProperties", 0) > max(1, len(set(copy.get("required", ())))):
            # Free properties may be written twice, and count once.
            self._refuse(
                (*path, "minProperties"), "not supported above 1 and the number of required properties"
            )
            del copy["minProperties"]
        return copy

    def _one(self, value: Any, path: Path) -> Any:
        return self._schema(value, path)

    def _list(self, value: Any, path: Path) -> list[Any]:
        if not isinstance(value, list) or not value:
            raise CannotEnforce("must be a list of schemas")
        return [self._schema(item, (*path, index)) for index, item in enumerate(value)]

    def _one_or_list(self, value: Any, path: Path) -> Any:
        return self._list(value, path) if isinstance(value, list) else self._schema(value, path)

    def _named(self, value: Any, path: Path) -> Schema:
        if not isinstance(value, dict):
            raise CannotEnforce("must be an object of schemas")
        return {name: self._schema(item, (*path, name)) for name, item in value.items()}

    def _patterns(self, value: Any, path: Path) -> Schema:
        copy = self._named(value, path)
        for pattern in copy:
            as_pattern(pattern)
        return copy

    def _reference(self, value: Any, path: Path) -> str:
        if not isinstance(value, str):
            raise CannotEnforce("must be a string")
        if value not in self._names:
            target, place = self._resolve(value)
            name = self._names[value] = str(len(self._names))
            self._places[name] = place
            self._pending.append((name, target))
        return f"#/$defs/{self._names[value]}"

    def _resolve(self, reference: str) -> tuple[Any, Path]:
        if not reference.startswith("#"):
            raise CannotEnforce("only references into the schema itself (#...) are supported")
        fragment = unquote(reference[1:])
        if not fragment:
            return self._root, ()
        if not fragment.startswith("/"):
            return self._anchored(fragment)
        target: Any = self._root
        path: list[str | int] = []
        for part in fragment[1:].split("/"):
            key: str | int = part.replace("~1", "/").replace("~0", "~")
            # Python reads no number of thousands of digits.
            if isinstance(target, list) and part.isdecimal() and len(part) < 10 and int(part) < len(target):
                key = int(part)
            elif not isinstance(target, dict) or key not in target:
                raise CannotEnforce(f"nothing is at {reference[:MAX_SHOWN]!r}")
            target = target[key]
            path.append(key)
        return target, tuple(path)

    def _anchored(self, name: str) -> tuple[Any, Path]:
        if name not in self._anchors:
            raise CannotEnforce(f"nothing is at {'#' + name[:MAX_SHOWN]!r}")
        return self._anchors[name]

    @cached_property
    def _anchors(self) -> dict[str, tuple[Any, Path]]:
        """What each `$anchor` names, and where that stands; the uppermost of several of one name."""
        found: dict[str, tuple[Any, Path]] = {}
        level: list[tuple[Any, Path]] = [(self._root, ())]
        while level:
            for value, path in level:
                name = value.get("$anchor") if isinstance(value, dict) else None
                if isinstance(name, str):
                    found.setdefault(name, (value, path))
            level = [
                (child, (*path, key))
                for value, path in level
                if isinstance(value, dict | list)
                for key, child in (value.items() if isinstance(value, dict) else enumerate(value))
            ]
        return found


_APPLICATORS: dict[str, Callable[[_Copy, Any, Path], Any]] = {
    "anyOf": _Copy._list,
    "oneOf": _Copy._list,
    "allOf": _Copy._list,
    "prefixItems": _Copy._list,
    "items": _Copy._one_or_list,
    "additionalItems": _Copy._one,
    "additionalProperties": _Copy._one,
    "properties": _Copy._named,
    "patternProperties": _Copy._patterns,
    "$ref": _Copy._reference,
}
