"""Grammars of calls whose arguments stand between tags: see `corectl_dialects.tagged`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from corectl.output.lark import BLANK_RULES, joined, literal
from corectl_dialects.argument_grammar import (
    Function,
    alternatives,
    argument_rules,
    further_key,
    json_value,
    text_pattern,
)

if TYPE_CHECKING:
    from corectl_dialects.tagged import TagSyntax

_FURTHER_KEY = r'[^\s<>"]{1,64}'


def calls_grammar(syntax: TagSyntax, tools: Iterable[Function], parallel: bool) -> str:
    """The calls of the tools, each with values that its schema allows, to the closing tag of the block."""
    calls = []
    rules: list[str] = []
    for number, tool in enumerate(tools):
        calls.append(f"{literal(syntax.call + tool.name + syntax.name_end)} ws arguments{number}")
        rules += _argument_rules(syntax, tool, number)
    return "\n".join([*_block_rules(syntax, parallel), f"call: {' | '.join(calls)}", *rules, BLANK_RULES])


def _block_rules(syntax: TagSyntax, parallel: bool) -> list[str]:
    more = "(ws call)*" if parallel and syntax.call else ""
    close = joined("ws", literal(syntax.block.close)) if syntax.call else ""
    ways = [joined(literal(syntax.block.open), "ws", "call", more, close)]
    if syntax.bare:
        ways.append(joined("call", more, f"({close})?"))
    return [joined("calls:", "block", "(ws block)*" if parallel else ""), f"block: {' | '.join(ways)}"]


def _argument_rules(syntax: TagSyntax, tool: Function, number: int) -> list[str]:
    rules = []
    items = []
    for index, argument in enumerate(tool.arguments):
        value = f"value{number}_{index}"
        rules += _value_rules(syntax, value, argument.schema, tool.root)
        items.append((joined(*_opening(syntax, literal(argument.key)), value, "ws"), argument.required))
    further = ""
    if tool.others is not None:
        key, value = f"KEY{number}", f"value{number}"
        rules += [
            further_key(key, _FURTHER_KEY, tool.arguments),
            *_value_rules(syntax, value, tool.others, tool.root),
        ]
        further = joined(*_opening(syntax, key), value, "ws")
    end = literal(syntax.call_end or syntax.block.close)
    return [*argument_rules(f"arguments{number}", items, "", end, further), *rules]


def _opening(syntax: TagSyntax, key: str) -> list[str]:
    """What stands in front of a value. `key` is a Lark expression."""
    opening = [literal(syntax.key.open), key]
    if not syntax.value.open:
        return [*opening, literal(syntax.key.close + syntax.padding)]
    return [*opening, literal(syntax.key.close), "ws", literal(syntax.value.open + syntax.padding)]


def _value_rules(syntax: TagSyntax, rule: str, schema: Any, root: Mapping[str, Any]) -> list[str]:
    """A rule for a value and what closes it: text up to there for a string, JSON for everything else."""
    close = syntax.padding + syntax.value.close
    ways = []
    rules = []
    for number, option in enumerate(alternatives(schema, root)):
        text = option.get("const")
        if isinstance(text, str):
            ways.append(literal(text + close))
        elif "const" in option or option.get("type", "string") != "string":
            ways.append(f"{json_value(option, root)} {literal(close)}")
        else:
            ways.append(f"{rule}_text{number}")
            terminal = f"{rule}_TEXT{number}".upper()
            rules.append(f"{rule}_text{number}[suffix=/{_pattern(close)}/]: {terminal}")
            rules.append(f"{terminal}: {text_pattern(option)}{_without_end(syntax)}")
    return [f"{rule}: {' | '.join(ways)}", *rules]


def _without_end(syntax: TagSyntax) -> str:
    """Where something belongs in front of the closing tag, the tag without it must not stand in a text either."""
    return f" & ~/(?s:.*){_pattern(syntax.value.close)}(?s:.*)/" if syntax.padding else ""


def _pattern(text: str) -> str:
    """A text as a regular expression between slashes."""
    return "".join(f"\\x{ord(char):02x}" if char in "/\n" else re.escape(char) for char in text)
