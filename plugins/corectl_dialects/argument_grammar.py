"""Grammars of tool calls whose arguments stand one by one, each as a key and a value: Lark, as llguidance reads it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from corectl.errors import BadRequest
from corectl.messages import Tool
from corectl.output.lark import json_rule, parameters
from corectl_dialects.schemas import MAX_STEPS, allowed_types, members, resolve

MAX_ALTERNATIVES = 20_000
"""Parts that a schema is taken apart into."""

MAX_FREE_ORDER = 63
"""Arguments of a tool with more properties than this come in the order of its schema."""

# What a regular expression of Rust's kind has no word for, and anchors at places other than both ends.
_FOREIGN = re.compile(r"\(\?(?!:)|\\[1-9bBAZz]|(?<!\\)\$|(?<![\\\[])\^")
_DEFINITIONS = ("$defs", "definitions")


class Argument(msgspec.Struct, frozen=True):
    """A property of a tool: its key, its schema, and whether a call must have it."""

    key: str
    schema: Any
    required: bool


class Function(msgspec.Struct, frozen=True):
    """What a grammar needs to know of a tool. `others` is the schema of arguments with further keys, None if there are
    none, and `root` that of all parameters."""

    name: str
    arguments: tuple[Argument, ...]
    others: Any
    root: Mapping[str, Any]


def functions(tools: Sequence[Tool], name: re.Pattern[str], key: re.Pattern[str]) -> list[Function]:
    """The tools that can be called in a dialect whose names and keys match the patterns.

    Properties with other keys are left out, and so are tools that need one.
    """
    found = [_function(tool, key) for tool in tools if name.fullmatch(tool["function"]["name"])]
    return [function for function in found if function is not None]


def _function(tool: Tool, key: re.Pattern[str]) -> Function | None:
    root = parameters(tool)
    known = members(root)
    names = [*known.properties, *sorted(known.required - known.properties.keys())]
    arguments = [Argument(name, known.schema_of(name), name in known.required) for name in names]
    if any(argument.required and not key.fullmatch(argument.key) for argument in arguments):
        return None
    writable = tuple(argument for argument in arguments if key.fullmatch(argument.key))
    return Function(tool["function"]["name"], writable, known.others, root)


def json_value(schema: Any, root: Mapping[str, Any]) -> str:
    """A Lark expression of JSON text that obeys a schema within `root`."""
    schema = schema if isinstance(schema, dict) else {}
    definitions = {key: root[key] for key in _DEFINITIONS if key in root and '"$ref"' in json.dumps(schema)}
    return json_rule({**definitions, **schema})


def alternatives(schema: Any, root: Mapping[str, Any]) -> list[Any]:
    """Takes a schema apart, so that each part is of one type, or one constant (`{"const": ...}`), or unknown (`{}`).

    Raises `BadRequest` if those are too many.
    """
    return _alternatives(schema, root, [MAX_STEPS, MAX_ALTERNATIVES])


def _alternatives(schema: Any, root: Mapping[str, Any], left: list[int]) -> list[Any]:
    """`left` are the steps, and the constants, that there may be yet."""
    left[0] -= 1
    if not isinstance(schema, dict) or left[0] < 0:
        return [{}]
    if "const" in schema or "enum" in schema:
        values = [schema["const"]] if "const" in schema else schema["enum"]
        left[1] -= len(values)
        if left[1] < 0:
            raise BadRequest("tools: the constants of a parameter's options are too many together")
        return [{"const": value} for value in values]
    if "type" in schema:
        names = [schema["type"]] if isinstance(schema["type"], str) else schema["type"]
        return [{**schema, "type": name} for name in names]
    if "$ref" in schema:
        return _alternatives(resolve(str(schema["$ref"]), root), root, left)
    if options := schema.get("anyOf") or schema.get("oneOf"):
        return [part for option in options for part in _alternatives(option, root, left)]
    return [{**schema, "type": name} for name in sorted(allowed_types(schema, root))] or [{}]


def text_pattern(schema: Mapping[str, Any]) -> str:
    """A pattern of the texts that a schema allows, as far as length and a regular expression say."""
    length = f"/(?s:.{{{schema.get('minLength', 0)},{schema.get('maxLength', '')}}})/"
    pattern = schema.get("pattern")
    if not isinstance(pattern, str):
        return length
    anchored = pattern.startswith("^"), pattern.endswith("$") and not pattern.endswith(r"\$")
    inner = pattern[anchored[0] : len(pattern) - anchored[1]]
    if _FOREIGN.search(inner) or (any(anchored) and "|" in re.sub(r"\(.*\)|\[.*\]|\\.", "", inner)):
        return length
    # Takes a while, and only the runner needs it.
    from llguidance import regex_to_lark

    before, after = ("" if anchor else "(?s:.*)" for anchor in anchored)
    return f"{length} & /{regex_to_lark(f'{before}(?:{inner}){after}', 'dw')}/"


def further_key(terminal: str, pattern: str, known: Sequence[Argument]) -> str:
    """A Lark terminal for the keys of a pattern that are none of the known ones."""
    taken = "|".join("".join(f"\\x{{{ord(char):x}}}" for char in argument.key) for argument in known)
    return f"{terminal}: /{pattern}/{f' & ~/(?:{taken})/' if known else ''}"


def argument_rules(
    rule: str, items: Sequence[tuple[str, bool]], separator: str, end: str, further: str = ""
) -> list[str]:
    """Lark rules: `rule` is the items with separators between them, and the end.

    `items` are Lark expressions, with true for those that must come. Each comes once at most, in any order. Any number
    of `further` ones may come between them, if there is an expression of those.
    """
    if not items:
        return [f"{rule}: {end}{f' | {further} ({separator} {further})* {end}' if further else ''}"]
    if len(items) > MAX_FREE_ORDER:
        return _rules_in_order(rule, items, separator, end, further)
    # The parameter of a rule has one bit for each item: set if it has come. Those that must come have the lowest.
    ordered = sorted(items, key=lambda item: not item[1])
    required = sum(needed for _, needed in items)
    complete = f"is_ones([0:{required}])" if required else "true"
    choices = [
        f"({item}) {rule}_next::set_bit({bit}) %if bit_clear({bit})" for bit, (item, _) in enumerate(ordered)
    ]
    more = "true" if further else f"not(is_ones([0:{len(items)}]))"
    return [
        f"{rule}: {rule}_item::0x0" if required else f"{rule}: {end} | {rule}_item::0x0",
        f"{rule}_item::_ : {' | '.join([*choices, *([f'{further} {rule}_next::_'] if further else [])])}",
        f"{rule}_next::_ : {end} %if {complete}",
        f"  | {separator} {rule}_item::_ %if {more}",
    ]


def _rules_in_order(
    rule: str, items: Sequence[tuple[str, bool]], separator: str, end: str, further: str
) -> list[str]:
    """Rules for many items: `_first` while none has come, `_next` afterwards. The further ones come last."""
    lines = [f"{rule}: {rule}_first0"]
    for index, (item, required) in enumerate(items):
        for state, between in (("first", ""), ("next", separator)):
            line = f"{rule}_{state}{index}: {between} ({item}) {rule}_next{index + 1}"
            lines.append(line if required else f"{line} | {rule}_{state}{index + 1}")
    first, last = f"{rule}_first{len(items)}", f"{rule}_next{len(items)}"
    if not further:
        return [*lines, f"{first}: {end}", f"{last}: {end}"]
    return [*lines, f"{first}: {end} | {further} {last}", f"{last}: ({separator} {further})* {end}"]
