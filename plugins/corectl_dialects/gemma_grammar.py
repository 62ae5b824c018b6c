"""Grammars of calls as Gemma writes them: see `corectl_dialects.gemma`."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from corectl.messages import Tool
from corectl.output.dialect import Tags
from corectl.output.lark import BLANK_RULES, joined, json_rule, literal
from corectl_dialects.argument_grammar import (
    Argument,
    alternatives,
    argument_rules,
    functions,
    further_key,
    json_value,
    text_pattern,
)

NAME = re.compile(r"[^\s{}<>]*")
KEY = re.compile(r"[^:{}\[\],<>]*")
_WRITABLE = re.compile(r"(?![\s\"])[^:{}\[\],<>]+(?<![\s\"])")

_FURTHER_KEY = r'[^\s:{}\[\],<>"]{1,64}'

MAX_RULES = 500
"""Further values of a schema that needs more rules than this are of any kind."""

_SCALARS = frozenset({"boolean", "integer", "null", "number"})
_COMMA, _OPEN, _CLOSE = 'ws "," ws', '"{" ws', 'ws "}"'


def gemma_grammar(call: Tags, quote: str, tools: Sequence[Tool], *, parallel: bool) -> str:
    """The rule `calls` and those that it needs; empty if no tool can be written this way."""
    known = functions(tools, NAME, _WRITABLE)
    if not known:
        return ""
    values = _Values(quote)
    calls = [
        joined(literal(tool.name), values.object(tool.arguments, tool.others, tool.root)) for tool in known
    ]
    more = "( ws block )*" if parallel else ""
    return "\n".join(
        [
            f"calls: block {more}",
            f"block: {literal(call.open)} {literal('call:')} ( {' | '.join(calls)} ) {literal(call.close)}",
            *values.rules,
            BLANK_RULES,
        ]
    )


class _Values:
    """Rules for values. What a schema says more than once, or of itself, has one rule."""

    def __init__(self, quote: str) -> None:
        self.rules: list[str] = []
        self._names: dict[str, str] = {}
        self._quote = quote
        number = json_rule({"type": ["number", "boolean", "null"]})
        self.rules += [
            f"any: {self._text({})} | {number} | any_list | any_object",
            f'any_list: "[" ws ( any ( {_COMMA} any )* ws )? "]"',
            f"any_object: {_OPEN} ( pair ( {_COMMA} pair )* )? {_CLOSE}",
            f'pair: /{_FURTHER_KEY}/ ":" any',
        ]

    def object(self, arguments: Sequence[Argument], others: Any, root: Mapping[str, Any]) -> str:
        """Pairs of the given keys in braces, and if `others` is a schema, pairs of further keys."""
        items = [
            (f"{literal(f'{item.key}:')} {self._value(item.schema, root)}", item.required)
            for item in arguments
        ]
        further = ""
        if others is not None:
            key = f"KEY{len(self.rules)}"
            self.rules.append(further_key(key, _FURTHER_KEY, arguments))
            further = f'{key} ":" {self._value(others, root)}'
        rule = f"object{len(self.rules)}"
        self.rules += argument_rules(rule, items, _COMMA, _CLOSE, further)
        return f"{_OPEN} {rule}"

    def _value(self, schema: Any, root: Mapping[str, Any]) -> str:
        if len(self.rules) > MAX_RULES:
            return "any"
        key = json.dumps(schema)
        if key not in self._names:
            rule = self._names[key] = f"value{len(self._names)}"
            ways = [self._way(option, root) for option in alternatives(schema, root)]
            self.rules.append(f"{rule}: {' | '.join(ways)}")
        return self._names[key]

    def _way(self, schema: Mapping[str, Any], root: Mapping[str, Any]) -> str:
        if "const" in schema:
            return self._constant(schema["const"])
        kind = schema.get("type")
        if kind == "string":
            return self._text(schema)
        if kind in _SCALARS:
            return json_value(schema, root)
        if kind == "array":
            return self._list(schema, root)
        if kind == "object" and (properties := schema.get("properties")):
            required = frozenset(schema.get("required") or ())
            return self.object(
                [Argument(key, value, key in required) for key, value in properties.items()], None, root
            )
        return "any_object" if kind == "object" else "any"

    def _list(self, schema: Mapping[str, Any], root: Mapping[str, Any]) -> str:
        item = self._value(schema.get("items"), root)
        least, most = schema.get("minItems", 0), schema.get("maxItems")
        if most == 0:
            return '"[" ws "]"'
        more = f"( {_COMMA} {item} ){{{max(least - 1, 0)},{'' if most is None else most - 1}}}"
        items = f"{item} {more} ws"
        return f'"[" ws {items} "]"' if least else f'"[" ws ( {items} )? "]"'

    def _text(self, schema: Mapping[str, Any]) -> str:
        """Text between quotes. A quote that is a token of its own ends a text otherwise than one that is spelled."""
        quote = literal(self._quote)
        number = len(self.rules)
        spelled = "".join(f"\\x{{{ord(char):x}}}" for char in self._quote)
        self.rules.append(f"TEXT{number}: {text_pattern(schema)}")
        self.rules.append(f"text{number}[suffix=/{spelled}/]: TEXT{number}")
        return f"{quote} ( text{number} | TEXT{number} {quote} )"

    def _constant(self, value: Any) -> str:
        quote = literal(self._quote)
        if isinstance(value, str):
            return joined(quote, literal(value) if value else "", quote)
        if isinstance(value, list):
            return f'"[" {joined(*_between(map(self._constant, value)))} "]"'
        if isinstance(value, dict):
            pairs = (f"{literal(f'{key}:')} {self._constant(item)}" for key, item in value.items())
            return f'"{{" {joined(*_between(pairs))} "}}"'
        return literal(json.dumps(value))


def _between(parts: Iterable[str]) -> Iterator[str]:
    """Parts with commas between them."""
    for index, part in enumerate(parts):
        yield part if index == 0 else f'"," {part}'
