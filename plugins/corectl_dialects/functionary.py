"""Functionary v3.2: every part of a message begins with `>>>`, who it is for, and a line end.

As its chat template writes it: content is for `all`, the arguments of a call for the tool of that name, and the prompt
ends in the first `>>>`.
"""

from __future__ import annotations

from corectl.messages import Template
from corectl.output.calls import Calls, attempt
from corectl.output.dialect import OutputReader, OutputRequest, OutputShape
from corectl.output.lark import BLANK_RULES, call_rules, joined, literal
from corectl.output.reading import Feed, FeedReader, Literals, Reading, text_part

_MARK = ">>>"
_ALL = "all"


class FunctionaryDialect:
    """See `corectl.output.dialect.Dialect`."""

    name = "functionary-v3.2"
    aliases = ()

    def claims(self, template: Template) -> bool:
        return f"{_MARK}{_ALL}" in template.text

    def shape(self, request: OutputRequest) -> OutputShape:
        mark = _first_mark(request)
        if not request.tools:
            return OutputShape(content_open=f"{mark}{_ALL}\n")
        return OutputShape(
            content_open=f"{mark}{_ALL}\n",
            call_openers=tuple(f"{_MARK}{name}\n" for name in _names(request)),
            first_openers=() if mark else tuple(f"{name}\n" for name in _names(request)),
            calls=_grammar(request, mark),
        )

    def reader(self, request: OutputRequest) -> OutputReader:
        return FeedReader(lambda feed: _read(feed, request))


def _first_mark(request: OutputRequest) -> str:
    """What is left for the model to write in front of the first part."""
    return "" if request.prompt.rstrip().endswith(_MARK) else _MARK


def _names(request: OutputRequest) -> list[str]:
    return [str(tool["function"]["name"]) for tool in request.tools]


def _grammar(request: OutputRequest, mark: str) -> str:
    more = f"( ws {literal(_MARK)} call )*" if request.parallel else ""
    # Behind content a call has its mark, even where the prompt has that of the first part.
    calls = joined(literal(_MARK) if mark else f"{literal(_MARK)}?", "call", more)
    rules = call_rules(request.tools, lambda name, arguments: f"{literal(f'{name}{chr(10)}')} {arguments}")
    return f"calls: {calls}\n{rules}{BLANK_RULES}"


def _read(feed: Feed, request: OutputRequest) -> Reading[None]:
    calls = Calls(feed, request.tools)
    heads = [f"{name}\n" for name in (_ALL, *_names(request))]
    openers = Literals(*(_MARK + head for head in heads))
    opener = ""
    if not _first_mark(request):
        blanks = yield from feed.skip_blanks()
        opener = yield from feed.starts(Literals(*heads))
        if blanks and not opener:
            yield text_part(blanks)
    while True:
        name = opener.removeprefix(_MARK).strip()
        if name and name != _ALL:
            yield from attempt(feed, opener, _read_call(feed, calls, name))
            feed.recover()
        opener = yield from feed.text_until(openers)
        if not opener:
            return


def _read_call(feed: Feed, calls: Calls, name: str) -> Reading[None]:
    yield from feed.skip_blanks()
    yield from calls.arguments(name)
    yield from feed.skip_blanks()
