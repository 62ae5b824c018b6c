"""Tool calls in an output: the pieces they are delivered in, and the content around them.

A dialect gives `read_content` the texts that begin a block of calls, and a function that reads one block. The function
checks names and delivers arguments through `Calls`, and raises `NotACall` when the block turns out to be none: all that
was taken since the last whole call then comes as content, with a notice.
"""

from __future__ import annotations

import secrets
import string
from collections.abc import Callable, Sequence
from typing import Any

from corectl.messages import Tool, ToolCallDelta
from corectl.output.dialect import Part
from corectl.output.lark import parameters
from corectl.output.reading import Feed, Literals, NotACall, Reading, broken, parse_json, text_part

_ID_LETTERS = string.ascii_lowercase + string.digits
_NAME_KEYS = ("name", "tool_name", "function")
_ARGUMENT_KEYS = ("arguments", "parameters")
_OPEN, _COLON, _COMMA, _CLOSE = Literals("{"), Literals(":"), Literals(","), Literals("}")


def random_letters(count: int) -> str:
    """Random lower-case letters and digits."""
    return "".join(secrets.choice(_ID_LETTERS) for _ in range(count))


def call_id() -> str:
    """A new id for a call."""
    return f"call_{random_letters(8)}"


class Calls:
    """The calls of one output, delivered in pieces and numbered from 0.

    A call whose last piece never comes is none: what it was read from comes as content.
    """

    def __init__(self, feed: Feed, tools: Sequence[Tool], new_id: Callable[[], str] = call_id) -> None:
        self._feed = feed
        self._tools = {str(tool["function"]["name"]): tool for tool in tools}
        self._new_id = new_id
        self._begun = 0

    def knows(self, name: str) -> bool:
        """True for the name of one of the tools."""
        return name in self._tools

    def check(self, name: str) -> None:
        """Raises `NotACall` for a name that is not one of the tools."""
        if not self.knows(name):
            raise NotACall(
                "unknown_tool",
                f"the model wrote a call of {name[:100]!r}, which is not one of the tools; it is left in the content",
            )

    def parameters(self, name: str) -> dict[str, Any]:
        """The schema of the arguments of one of the tools."""
        return parameters(self._tools[name])

    def begin(self, name: str, id: str = "") -> Part:
        """The first piece of a call. Raises `NotACall` for a name that is not one of the tools."""
        self.check(name)
        self._begun += 1
        return Part(call=ToolCallDelta(self._begun - 1, id or self._new_id(), name))

    def piece(self, arguments: str) -> Part:
        """A piece of the JSON text of the arguments."""
        return Part(call=ToolCallDelta(self._begun - 1, arguments=arguments))

    def end(self) -> Part:
        """The last piece of a call; from here on it cannot come as content any more."""
        self._feed.mark()
        return Part(call=ToolCallDelta(self._begun - 1, done=True))

    def whole(self, name: str, arguments: str, id: str = "") -> Reading[None]:
        """Delivers a call whose arguments are there: the text of a JSON object, or JSON that stands for one."""
        text = as_object(arguments)
        yield self.begin(name, id)
        yield self.piece(text)
        yield self.end()

    def arguments(self, name: str, id: str = "") -> Reading[None]:
        """Reads the JSON value that comes next, and delivers it as it comes as the arguments of a call."""
        self.check(name)
        first = yield from self._feed.peek()
        if not first:
            raise broken("the output ended inside it")
        if first != "{":
            yield from self.whole(name, (yield from self._feed.json_value()), id)
            return
        yield self.begin(name, id)
        parse_json((yield from self._feed.json_value(self.piece)))
        yield self.end()


def as_object(arguments: str) -> str:
    """JSON text of an object from arguments as models write them: an object, one in a string, or nothing.

    Raises `NotACall` for anything else.
    """
    if not arguments.strip():
        return "{}"
    value = parse_json(arguments)
    if isinstance(value, str):
        arguments = value.strip() or "{}"
        value = parse_json(arguments)
    if value is None:
        return "{}"
    if not isinstance(value, dict):
        raise broken("its arguments are no object")
    return arguments


def attempt(feed: Feed, taken: str, block: Reading[None]) -> Reading[bool]:
    """Reads a block of calls whose beginning has been taken. What turns out to be none comes as content, with a notice.

    False if that was so.
    """
    feed.mark(taken)
    try:
        yield from block
    except NotACall as failure:
        feed.notice(failure.notice)
        text = feed.recover()
        if text:
            yield text_part(text)
        return False
    return True


def read_content(
    feed: Feed,
    openers: Literals,
    read_block: Callable[[str], Reading[None]],
    *,
    first: Sequence[str] = (),
    blanks: str = "",
) -> Reading[None]:
    """Reads content and blocks of calls to the end. `blanks` have been taken already.

    `read_block` gets the opener that was taken, and reads what follows it. The openers in `first` only count where no
    content has come yet. Blanks around calls are dropped, but not those within content.
    """
    after_call = False
    next_to_come = Literals(*openers.texts, *first)
    fresh = bool(next_to_come.texts)
    while True:
        opener = ""
        if fresh:
            blanks += yield from feed.skip_blanks()
            opener = yield from feed.starts(next_to_come)
        if not opener:
            if after_call and not (yield from feed.peek()):
                return
            if blanks:
                yield text_part(blanks)
                blanks = ""
            if not openers.texts:
                return
            next_to_come = openers
            opener = yield from feed.text_until(openers)
            if not opener:
                return
        fresh = after_call = yield from attempt(feed, blanks + opener, read_block(opener))
        # Blanks that no end of the block came after are as good as those behind it.
        block = feed.recover()
        blanks = block[len(block.rstrip()) :]


def call_object(feed: Feed, calls: Calls, *, opened: bool = False) -> Reading[None]:
    """Reads a call that is a JSON object of a name and arguments, in any order and nested in a `function` or not.

    Under other keys than the usual ones, a string that is the name of a tool is the name, and the first object the
    arguments. `opened` says that the brace has been taken already. Raises `NotACall`.
    """
    if not opened:
        yield from feed.expect(_OPEN)
    name, held, other, delivered = "", "", "", False
    while True:
        yield from feed.skip_blanks()
        if (yield from feed.starts(_CLOSE)) or (delivered and (yield from feed.peek()) != ","):
            break
        yield from feed.starts(_COMMA)
        yield from feed.skip_blanks()
        key = yield from feed.json_string()
        yield from feed.expect(_COLON)
        yield from feed.skip_blanks()
        start = yield from feed.peek()
        if key == "function" and start == "{" and not delivered:
            yield from call_object(feed, calls)
            delivered = True
        elif key in _NAME_KEYS and start == '"' and not name:
            name = yield from feed.json_string()
            calls.check(name)
        elif key in _ARGUMENT_KEYS and name and not delivered:
            yield from calls.arguments(name)
            delivered = True
        else:
            value = yield from feed.json_value()
            if key in _ARGUMENT_KEYS:
                held = held or value
            elif start == "{":
                other = other or value
            elif start == '"' and not name and calls.knows(text := str(parse_json(value))):
                name = text
    if not delivered:
        if not name:
            raise broken("it has no name")
        yield from calls.whole(name, held or other)
    feed.mark()
