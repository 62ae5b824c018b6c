"""FunctionGemma and Gemma 4: `call:NAME{key:value,...}` between tags of their own, strings in quotes of their own.

As their chat templates write it. A string is all text up to the next quote: nothing in it is escaped.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import msgspec

from corectl.messages import Tool
from corectl.output.calls import Calls
from corectl.output.dialect import Dialect, Tags
from corectl.output.family import FamilyDialect
from corectl.output.reading import MAX_DEPTH, Feed, Literals, Reading, broken
from corectl_dialects.gemma_grammar import KEY, NAME, gemma_grammar
from corectl_dialects.values import Emit, inside_string, json_string, typed_value

_BARE = re.compile(r"[^,{}\[\]<>]*")
_CALL, _COLON, _COMMA = Literals("call:"), Literals(":"), Literals(",")
_OPEN, _CLOSE, _CLOSE_LIST = Literals("{"), Literals("}"), Literals("]")
_SCALARS = frozenset({"boolean", "integer", "null", "number"})


class GemmaSyntax(msgspec.Struct, frozen=True, kw_only=True):
    """See `corectl.output.family.Syntax`. `tags` stand around a call, `quote` at both ends of a string."""

    tags: Tags
    quote: str

    @property
    def openers(self) -> tuple[str, ...]:
        return (self.tags.open,)

    @property
    def first_openers(self) -> tuple[str, ...]:
        return ()

    @property
    def markers(self) -> tuple[str, ...]:
        return (self.tags.open, self.tags.close, self.quote)

    def grammar(self, tools: Sequence[Tool], *, parallel: bool) -> str:
        return gemma_grammar(self.tags, self.quote, tools, parallel=parallel)

    def read_block(self, feed: Feed, calls: Calls, opener: str) -> Reading[None]:
        yield from feed.expect(_CALL)
        name = yield from feed.while_in(NAME)
        yield from feed.expect(_OPEN)
        yield calls.begin(name)
        yield from _Values(feed, Literals(self.quote), calls.piece).object()
        yield calls.end()
        yield from feed.skip_blanks()
        yield from feed.starts(Literals(self.tags.close))


class _Values:
    """Reads values, and emits them as JSON text while they come. Raises `NotACall` where there is none."""

    def __init__(self, feed: Feed, quote: Literals, emit: Emit) -> None:
        self._feed = feed
        self._quote = quote
        self._emit = emit

    def object(self, depth: int = 0) -> Reading[None]:
        """Pairs of a bare key and a value; the brace in front has been taken."""
        yield self._emit("{")
        separator = ""
        while True:
            yield from self._feed.skip_blanks()
            if (yield from self._feed.starts(_CLOSE)):
                break
            if separator:
                yield self._emit(separator)
            yield self._emit(f"{json_string((yield from self._key()))}:")
            yield from self._feed.expect(_COLON)
            yield from self._value(depth + 1)
            yield from self._feed.skip_blanks()
            separator = yield from self._feed.starts(_COMMA)
            if not separator:
                yield from self._feed.expect(_CLOSE)
                break
        yield self._emit("}")

    def _key(self) -> Reading[str]:
        if (yield from self._feed.starts(self._quote)):
            key, closed = yield from self._feed.until(self._quote)
            if not closed:
                raise broken("the output ended inside a key")
            return key
        key = (yield from self._feed.while_in(KEY)).strip().strip('"')
        if not key:
            raise broken("a key is missing")
        return key

    def _value(self, depth: int) -> Reading[None]:
        if depth > MAX_DEPTH:
            raise broken("it is nested too deeply")
        yield from self._feed.skip_blanks()
        start = yield from self._feed.peek()
        if (yield from self._feed.starts(self._quote)):
            yield self._emit('"')
            if not (
                yield from self._feed.text_until(self._quote, lambda text: self._emit(inside_string(text)))
            ):
                raise broken("the output ended inside a string")
            yield self._emit('"')
        elif (yield from self._feed.starts(_OPEN)):
            yield from self.object(depth)
        elif start == "[":
            self._feed.take(1)
            yield from self._list(depth)
        else:
            yield from self._bare(start)

    def _list(self, depth: int) -> Reading[None]:
        yield self._emit("[")
        separator = ""
        while True:
            yield from self._feed.skip_blanks()
            if (yield from self._feed.starts(_CLOSE_LIST)):
                break
            if separator:
                yield self._emit(separator)
            yield from self._value(depth + 1)
            yield from self._feed.skip_blanks()
            separator = yield from self._feed.starts(_COMMA)
            if not separator:
                yield from self._feed.expect(_CLOSE_LIST)
                break
        yield self._emit("]")

    def _bare(self, start: str) -> Reading[None]:
        """A value without quotes: a number or a word, else a text; or a string in JSON's quotes."""
        if start == '"':
            text = yield from self._feed.json_string()
            yield self._emit(json_string(text))
            return
        text = (yield from self._feed.while_in(_BARE)).strip()
        if not text:
            raise broken("a value is missing")
        yield self._emit(typed_value(text, _SCALARS))


DIALECTS: tuple[Dialect, ...] = (
    FamilyDialect(
        name="functiongemma",
        telltales=("<start_function_call>",),
        calls=GemmaSyntax(tags=Tags("<start_function_call>", "<end_function_call>"), quote="<escape>"),
    ),
    FamilyDialect(
        name="gemma4",
        aliases=("gemma4-no-thinking",),
        telltales=("<|tool_call>",),
        calls=GemmaSyntax(tags=Tags("<|tool_call>", "<tool_call|>"), quote='<|"|>'),
        tags=Tags("<|channel>thought", "<channel|>"),
    ),
)
