"""How calls are written by most families: texts around a name and the JSON of its arguments.

Such a way to write is a value, a `CallSyntax`: dialects name theirs, and `corectl.output.learned` finds those of other
templates. Reading is generous, as models are not exact: blanks may stand between the texts, the keys of an object may
come in any order, and what ends a block may be missing. The grammar asks for what the template itself writes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import msgspec

from corectl.messages import Tool
from corectl.output.calls import Calls, call_object
from corectl.output.lark import (
    BLANK_RULES,
    ID_RULES,
    as_json,
    as_written,
    atoms,
    call_rules,
    joined,
    literal,
)
from corectl.output.reading import Feed, Literals, Reading, broken

_NAME = re.compile(r"[^\s<>\[\]{}`]*")
_SEPARATORS = ((",",), (";",))
_NUMBER = re.compile(r":[0-9]+$")

Words = tuple[str, ...]


class CallSyntax(msgspec.Struct, frozen=True, kw_only=True):
    """The texts around calls: `open` call `separator` call `close`.

    A call is a JSON object that begins with `before`, has `between` in front of the arguments, and ends with `after`;
    a string of digits in it stands for any number. Or, where `before` is empty, a call is its name, `between`, and the
    arguments. With an `id_prefix` the name is written as an id: the prefix, the name, a colon and a number. With an
    `id_open` that and an id stand between the name and `between`.
    """

    open: str = ""
    before: str = '{"name": '
    between: str = ', "arguments": '
    after: str = "}"
    separator: str = ""
    close: str = ""
    id_prefix: str = ""
    id_open: str = ""

    @property
    def openers(self) -> tuple[str, ...]:
        return () if self._is_json else (self.opener,)

    @property
    def first_openers(self) -> tuple[str, ...]:
        return (self.opener,) if self._is_json else ()

    @property
    def opener(self) -> str:
        """What a block of calls can be known by: the first control token, or the text in front of a list."""
        text = self.open.strip()
        if text.startswith(("<", "[")):
            return _words(text)[0]
        before_list = text.removesuffix("[").rstrip()
        return (before_list if f"{before_list}[" != text else text) or "{"

    @property
    def _rest(self) -> str:
        """What follows the opener in front of the first call."""
        return self.open.strip().removeprefix(self.opener)

    @property
    def _is_json(self) -> bool:
        """True where a block begins like JSON that may stand in any text."""
        return self.opener in ("{", "[")

    @property
    def markers(self) -> tuple[str, ...]:
        """All parts that may be control tokens."""
        texts = (self.open, self.separator, self.close, self.id_open, "" if self.before else self.between)
        words = [word for text in texts for word in _words(text)]
        return tuple(dict.fromkeys(word for word in words if word[0] in "<[" and len(word) > 1))

    def read_block(self, feed: Feed, calls: Calls, opener: str) -> Reading[None]:
        """Reads what follows an opener: one call or more, and what ends them. Raises `NotACall`."""
        opened = opener == "{"
        separator, close, rest = _words(self.separator), _words(self.close), _words(self._rest)
        endings = [separator, close]
        if self.before:
            endings += [*_SEPARATORS, ("]", *close), ("]",)]
        if not opened:
            yield from read_words(feed, (rest, (*rest, "[")) if self.before else (rest,))
        while True:
            if self.before:
                yield from call_object(feed, calls, opened=opened)
            else:
                yield from self._read_named(feed, calls)
            opened = False
            ending = yield from read_words(feed, endings)
            if ending:
                another = ending in (separator, *_SEPARATORS)
            else:
                yield from feed.skip_blanks()
                another = bool(self.before) and (yield from feed.peek()) == "{"
            if not another:
                return

    def _read_named(self, feed: Feed, calls: Calls) -> Reading[None]:
        yield from feed.skip_blanks()
        written = yield from feed.while_in(_NAME)
        name = _NUMBER.sub("", written.removeprefix(self.id_prefix)) if self.id_prefix else written
        calls.check(name)
        id = written if self.id_prefix else ""
        if self.id_open and (yield from read_words(feed, (_words(self.id_open),))):
            id = yield from feed.while_in(_NAME)
        between = _words(self.between)
        if (yield from read_words(feed, (between,))) != between:
            raise broken(f"{self.between.strip()!r} is missing")
        yield from feed.skip_blanks()
        yield from calls.arguments(name, id)

    def grammar(self, tools: Sequence[Tool], *, parallel: bool) -> str:
        """The rule `calls` and those that it needs."""
        blanks = "ws" if self.before else ""
        more = f"( {joined('ws', as_written(self.separator.strip()), blanks, 'call')} )*" if parallel else ""
        opener = literal(self.opener) if self.open.strip() else ""
        close = as_written(self.close.strip())
        calls = joined(
            opener,
            as_written(self._rest),
            blanks if opener else "",
            "call",
            more,
            "ws" if close else "",
            close,
        )
        return f"calls: {calls}\n{call_rules(tools, self._call)}{BLANK_RULES}{ID_RULES}"

    def _call(self, name: str, arguments: str) -> str:
        if self.before:
            key, between, after = as_json(self.before), as_json(self.between), as_json(self.after)
            return joined(key, "ws", literal(literal(name)), "ws", between, "ws", arguments, "ws", after)
        id = '":" NUMBER' if self.id_prefix else f"{literal(self.id_open)} ID" if self.id_open else ""
        return joined(literal(self.id_prefix + name), id, as_written(self.between), arguments)


def _words(text: str) -> Words:
    return tuple(atom for atom in atoms(text) if not atom.isspace())


def read_words(feed: Feed, options: Sequence[Words]) -> Reading[Words]:
    """Takes the longest of some sequences of texts, with blanks anywhere between; empty if none comes."""
    found: Words = ()
    for depth in range(max(len(words) for words in options)):
        options = [words for words in options if len(words) > depth]
        yield from feed.skip_blanks()
        word = yield from feed.starts(Literals(*(words[depth] for words in options)))
        options = [words for words in options if word and words[depth] == word]
        found = next((words for words in options if len(words) == depth + 1), found)
        if not options:
            break
    return found
