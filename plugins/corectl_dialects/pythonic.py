"""Calls as Python writes them: a name, and arguments with names and literals in brackets."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from corectl.messages import Tool
from corectl.output.calls import Calls, call_object
from corectl.output.dialect import Tags
from corectl.output.lark import BLANK_RULES, joined, literal
from corectl.output.reading import Feed, Literals, Reading, broken
from corectl_dialects.argument_grammar import alternatives, argument_rules, functions, further_key, json_value
from corectl_dialects.schemas import members
from corectl_dialects.values import json_string, read_value

_NAME = re.compile(r"[^\s()\[\]{},;='\"]+")
_NAME_RUN = re.compile(r"[^\s()\[\]{},;='\"]*")
_FURTHER_KEY = rf"{_NAME.pattern[:-1]}{{1,64}}"
_LIST_OPEN, _LIST_CLOSE = Literals("["), Literals("]")
_CALL_OPEN, _CALL_CLOSE = Literals("("), Literals(")")
_EQUALS, _COMMA = Literals("="), Literals(",")
_SEPARATORS = Literals(",", ";")

# A string in single quotes, as an alternative to JSON's.
_QUOTED_RULES = r"""QUOTED: /'([^'\\\x00-\x1F\x7F]|\\['"\\nrt])*'/"""
_BOUNDS = frozenset(("pattern", "format", "minLength", "maxLength"))
_WORDS: dict[object, list[str]] = {True: ["True", "true"], False: ["False", "false"], None: ["None", "null"]}


class PythonicSyntax(msgspec.Struct, frozen=True, kw_only=True):
    """What stands around the calls of one family. See `corectl.output.family.Syntax`.

    The calls of a `block` are a list, or come one a line where not `listed`. `bare` says that models leave the tags of
    the block out: then the list must be the first that comes.
    """

    block: Tags
    listed: bool = True
    bare: bool = False

    @property
    def openers(self) -> tuple[str, ...]:
        return (self.block.open,)

    @property
    def first_openers(self) -> tuple[str, ...]:
        return ("[",) if self.bare else ()

    @property
    def markers(self) -> tuple[str, ...]:
        return (self.block.open, self.block.close)

    def grammar(self, tools: Sequence[Tool], *, parallel: bool) -> str:
        calls = []
        rules = []
        for number, tool in enumerate(functions(tools, _NAME, _NAME)):
            calls.append(f"{literal(tool.name + '(')} arguments{number}")
            items = []
            for index, argument in enumerate(tool.arguments):
                value = f"value{number}_{index}"
                items.append((f"{literal(argument.key + '=')} {value}", argument.required))
                rules.append(f"{value}: {' | '.join(_values(argument.schema, tool.root))}")
            further = ""
            if tool.others is not None:
                key, value = f"KEY{number}", f"value{number}"
                rules.append(further_key(key, _FURTHER_KEY, tool.arguments))
                rules.append(f"{value}: {' | '.join(_values(tool.others, tool.root))}")
                further = f'{key} "=" {value}'
            rules += argument_rules(f"arguments{number}", items, '"," " "?', '")"', further)
        if not calls:
            return ""
        separator = '"," ws' if self.listed else '"\\n"'
        several = joined("call", f"({separator} call)*" if parallel else "")
        body = f'"[" {several} "]"' if self.listed else several
        ways = [joined(literal(self.block.open), "ws", body, "ws", literal(self.block.close))]
        if self.bare:
            ways.append(joined(body, f"(ws {body})*" if parallel else ""))
        head = [f"calls: {' | '.join(ways)}", f"call: {' | '.join(calls)}"]
        return "\n".join([*head, *rules, _QUOTED_RULES, BLANK_RULES])

    def read_block(self, feed: Feed, calls: Calls, opener: str) -> Reading[None]:
        yield from feed.skip_blanks()
        in_list = opener == "[" or bool((yield from feed.starts(_LIST_OPEN)))
        block_end = Literals(self.block.close)
        while True:
            yield from feed.skip_blanks()
            if (yield from feed.peek()) == "{":
                # Some write JSON when a prompt asks for it.
                yield from call_object(feed, calls)
            else:
                yield from _read_call(feed, calls)
            yield from feed.skip_blanks()
            separated = yield from feed.starts(_SEPARATORS)
            yield from feed.skip_blanks()
            if in_list and ((yield from feed.starts(_LIST_CLOSE)) or not separated):
                yield from feed.skip_blanks()
                yield from feed.starts(block_end)
                return
            if (yield from feed.starts(block_end)) or not (yield from feed.peek()):
                return


def _read_call(feed: Feed, calls: Calls) -> Reading[None]:
    name = yield from feed.while_in(_NAME_RUN)
    yield from feed.expect(_CALL_OPEN)
    yield calls.begin(name)
    known = members(calls.parameters(name))
    keys: set[str] = set()
    while True:
        yield from feed.skip_blanks()
        if (yield from feed.starts(_CALL_CLOSE)):
            break
        key = yield from feed.while_in(_NAME_RUN)
        yield from feed.expect(_EQUALS)
        if key in keys and not known.may_repeat(key):
            raise broken(f"the argument {key[:100]!r} comes twice")
        yield calls.piece(f"{', ' if keys else '{'}{json_string(key)}: ")
        keys.add(key)
        yield from read_value(feed, calls.piece)
        yield from feed.skip_blanks()
        if not (yield from feed.starts(_COMMA)):
            yield from feed.expect(_CALL_CLOSE)
            break
    yield calls.piece("}" if keys else "{}")
    yield calls.end()


def _values(schema: Any, root: Mapping[str, Any]) -> list[str]:
    """Lark expressions for what a schema allows: Python's words and strings where they differ, JSON for the rest."""
    ways = []
    for option in alternatives(schema, root):
        if "const" in option:
            ways += _constant(option["const"])
        elif option.get("type") == "boolean":
            ways += [literal(word) for value in (True, False) for word in _WORDS[value]]
        elif option.get("type") == "null":
            ways += [literal(word) for word in _WORDS[None]]
        else:
            ways.append(json_value(option, root))
            if option.get("type") == "string" and not _BOUNDS & option.keys():
                ways.append("QUOTED")
    return ways


def _constant(value: object) -> list[str]:
    if value is None or isinstance(value, bool):
        return [literal(word) for word in _WORDS[value]]
    ways = [literal(json.dumps(value, ensure_ascii=False))]
    if isinstance(value, str) and value.isprintable() and not {"'", "\\"} & set(value):
        ways.append(literal(f"'{value}'"))
    return ways
