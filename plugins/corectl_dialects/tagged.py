"""Calls whose arguments stand one by one between tags, with values of text that nobody quotes.

A value is a string where the tool's schema allows nothing else, and is kept to the letter; otherwise it is read as what
the schema allows, if it is that.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from corectl.messages import Tool
from corectl.output.calls import Calls
from corectl.output.dialect import Tags
from corectl.output.reading import Feed, Literals, Reading, broken
from corectl_dialects.argument_grammar import functions
from corectl_dialects.schemas import allowed_types, members
from corectl_dialects.tagged_grammar import calls_grammar
from corectl_dialects.values import inside_string, json_string, typed_value

_NAME = re.compile(r"(?!\s)[^<>\"\n]+(?<!\s)")
_NAME_RUN = re.compile(r"[^<>\"\n]*")


class TagSyntax(msgspec.Struct, frozen=True, kw_only=True):
    """The tags of one family. See `corectl.output.family.Syntax`.

    `block` stands around one call or more. `call` and `name_end` stand around the name, `call_end` closes the call:
    all are empty where a block is one call that begins with its name. `key` and `value` stand around those of an
    argument, and `padding` around the text of a value. `bare` says that models leave the opening tag of a block out.
    """

    block: Tags
    call: str = ""
    name_end: str = ""
    call_end: str = ""
    key: Tags
    value: Tags
    padding: str = ""
    bare: bool = False

    @property
    def openers(self) -> tuple[str, ...]:
        return (self.block.open, self.call) if self.bare else (self.block.open,)

    @property
    def first_openers(self) -> tuple[str, ...]:
        return ()

    @property
    def markers(self) -> tuple[str, ...]:
        return (self.block.open, self.block.close)

    def grammar(self, tools: Sequence[Tool], *, parallel: bool) -> str:
        writable = functions(tools, _NAME, _NAME)
        return calls_grammar(self, writable, parallel) if writable else ""

    def read_block(self, feed: Feed, calls: Calls, opener: str) -> Reading[None]:
        reader = _BlockReader(self, feed, calls)
        if not self.call:
            yield from reader.read_call()
            return
        if opener != self.call:
            yield from feed.expect(reader.call)
        yield from reader.read_call()
        yield from feed.skip_blanks()
        while (yield from feed.starts(reader.call)):
            yield from reader.read_call()
            yield from feed.skip_blanks()
        yield from feed.starts(reader.block_end)


class _BlockReader:
    """Reads the calls of one block."""

    def __init__(self, syntax: TagSyntax, feed: Feed, calls: Calls) -> None:
        self._syntax = syntax
        self._feed = feed
        self._calls = calls
        self.call = Literals(syntax.call)
        self.block_end = Literals(syntax.block.close)
        self._name_end = Literals(syntax.name_end)
        self._call_end = Literals(syntax.call_end or syntax.block.close)
        self._key_open, self._key_close = Literals(syntax.key.open), Literals(syntax.key.close)
        self._value_open = Literals(syntax.value.open)
        self._value_close = Literals(syntax.padding + syntax.value.close, syntax.value.close)
        self._padding = Literals(syntax.padding)

    def read_call(self) -> Reading[None]:
        """One call, from its name to its end."""
        feed, calls = self._feed, self._calls
        yield from feed.skip_blanks()
        name = (yield from feed.while_in(_NAME_RUN)).strip()
        if self._syntax.name_end:
            yield from feed.expect(self._name_end)
        yield calls.begin(name)
        schema = calls.parameters(name)
        known = members(schema)
        keys: set[str] = set()
        while True:
            yield from feed.skip_blanks()
            if (yield from feed.starts(self._call_end)):
                break
            yield from feed.expect(self._key_open)
            key = (yield from feed.while_in(_NAME_RUN)).strip()
            yield from feed.expect(self._key_close)
            if key in keys and not known.may_repeat(key):
                raise broken(f"the argument {key[:100]!r} comes twice")
            yield calls.piece(f"{', ' if keys else '{'}{json_string(key)}: ")
            keys.add(key)
            yield from self._read_value(known.schema_of(key), schema)
        yield calls.piece("}" if keys else "{}")
        yield calls.end()

    def _read_value(self, schema: object, root: Mapping[str, Any]) -> Reading[None]:
        feed, calls = self._feed, self._calls
        if self._syntax.value.open:
            yield from feed.expect(self._value_open)
        yield from feed.starts(self._padding)
        types = allowed_types(schema, root)
        if types - {"string"}:
            text, close = yield from feed.until(self._value_close)
            end = typed_value(text, types)
        else:
            end = '"'
            yield calls.piece(end)
            close = yield from feed.text_until(
                self._value_close, lambda text: calls.piece(inside_string(text))
            )
        if not close:
            raise broken("the output ended inside a value")
        yield calls.piece(end)
