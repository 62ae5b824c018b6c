"""Values as models write them, in Python's way or in JSON's, turned into JSON text."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable

from corectl.output.dialect import Part
from corectl.output.reading import MAX_DEPTH, Feed, Literals, NotACall, Reading, broken
from corectl_dialects.schemas import json_type

_QUOTES = Literals('"""', "'''", '"', "'")
_CLOSING_QUOTE = {quote: Literals(quote) for quote in _QUOTES.texts}
_STRING_RUN = {'"': re.compile(r'[^\\"]*'), "'": re.compile(r"[^\\']*")}
_SCALAR = re.compile(r"[-+.\w]*")
_JSON_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?")
_COMMA, _COLON = Literals(","), Literals(":")
_WORDS = {"true": "true", "True": "true", "false": "false", "False": "false", "null": "null", "None": "null"}
_ESCAPES = {char: f"\\{char}" for char in '\\"bfnrt'} | {
    "'": "'",
    "/": "/",
    "\n": "",
    "a": "\\u0007",
    "v": "\\u000b",
    "0": "\\u0000",
}
_HEX_ESCAPES = {"x": 2, "u": 4, "U": 8}
_HEX = re.compile(r"[0-9a-fA-F]+")

Emit = Callable[[str], Part]


def json_string(text: str) -> str:
    """JSON text of a string."""
    return json.dumps(text, ensure_ascii=False)


def inside_string(text: str) -> str:
    """Text as it stands between the quotes of a JSON string."""
    return json_string(text)[1:-1]


def read_value(feed: Feed, emit: Emit, depth: int = 0) -> Reading[None]:
    """Reads the literal that comes next, in Python or JSON syntax, and emits it as JSON text while it comes.

    Raises `NotACall` for anything else, and for nesting deeper than `MAX_DEPTH`.
    """
    if depth > MAX_DEPTH:
        raise broken("it is nested too deeply")
    yield from feed.skip_blanks()
    start = yield from feed.peek()
    if start in _STRING_RUN:
        yield from _read_string(feed, emit)
    elif start and start in "[(":
        yield from _read_list(feed, emit, depth)
    elif start == "{":
        yield from _read_object(feed, emit, depth)
    else:
        yield emit(_scalar((yield from feed.while_in(_SCALAR))))


def _read_string(feed: Feed, emit: Emit) -> Reading[None]:
    quote = yield from feed.starts(_QUOTES)
    yield emit('"')
    while True:
        yield from feed.while_in(_STRING_RUN[quote[0]], lambda run: emit(inside_string(run)))
        if (yield from feed.starts(_CLOSING_QUOTE[quote])):
            yield emit('"')
            return
        char = yield from feed.peek()
        feed.take(len(char))
        if not char:
            raise broken("the output ended inside a string")
        yield emit((yield from _escape(feed)) if char == "\\" else inside_string(char))


def _escape(feed: Feed) -> Reading[str]:
    """What stands for the escape sequence that comes next in JSON; what is none stays as it is."""
    char = yield from feed.peek()
    feed.take(len(char))
    if char in _HEX_ESCAPES:
        digits = ""
        while len(digits) < _HEX_ESCAPES[char] and _HEX.fullmatch((yield from feed.peek())):
            digits += feed.take(1)
        code = int(digits, 16) if len(digits) == _HEX_ESCAPES[char] else None
        if code is not None and code <= 0xFFFF:
            return f"\\u{code:04x}"
        return inside_string(f"\\{char}{digits}" if code is None or code > 0x10FFFF else chr(code))
    return _ESCAPES.get(char, inside_string(f"\\{char}"))


def _read_list(feed: Feed, emit: Emit, depth: int) -> Reading[None]:
    closer = Literals("]" if feed.take(1) == "[" else ")")
    yield emit("[")
    separator = ""
    while True:
        yield from feed.skip_blanks()
        if (yield from feed.starts(closer)):
            break
        if separator:
            yield emit(separator)
        yield from read_value(feed, emit, depth + 1)
        yield from feed.skip_blanks()
        separator = yield from feed.starts(_COMMA)
        if not separator:
            yield from feed.expect(closer)
            break
    yield emit("]")


def _read_object(feed: Feed, emit: Emit, depth: int) -> Reading[None]:
    closer = Literals("}")
    feed.take(1)
    yield emit("{")
    separator = ""
    while True:
        yield from feed.skip_blanks()
        if (yield from feed.starts(closer)):
            break
        if separator:
            yield emit(separator)
        if (yield from feed.peek()) not in _STRING_RUN:
            raise broken("a key is no string")
        yield from _read_string(feed, emit)
        yield emit((yield from feed.expect(_COLON)))
        yield from read_value(feed, emit, depth + 1)
        yield from feed.skip_blanks()
        separator = yield from feed.starts(_COMMA)
        if not separator:
            yield from feed.expect(closer)
            break
    yield emit("}")


def _scalar(text: str) -> str:
    """JSON text of a number, or of a word for true, false and null. Raises `NotACall` for anything else."""
    if text in _WORDS:
        return _WORDS[text]
    if _JSON_NUMBER.fullmatch(text):
        return text
    try:
        return str(int(text, 0))
    except ValueError:
        pass
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise broken(f"{text[:40]!r} is no value")
    return repr(number)


def to_json(text: str) -> str:
    """JSON text of the one literal that a text consists of. Raises `NotACall` if it is something else."""
    feed = Feed()
    feed.add(text)
    feed.ended = True
    pieces = [part.text for part in read_value(feed, lambda piece: Part(text=piece)) if part is not None]
    if feed.rest().strip():
        raise broken("something stands behind a value")
    return "".join(pieces)


def typed_value(text: str, types: frozenset[str]) -> str:
    """JSON text of an argument that was written without quotes, by the JSON types that its schema allows.

    It is read as one of the types other than string if it is one; else it is a string.
    """
    others = types - {"string"}
    if others:
        try:
            value = to_json(text)
        except NotACall:
            return json_string(text)
        if json_type(value) in others or (json_type(value) == "integer" and "number" in others):
            return value
    return json_string(text)
