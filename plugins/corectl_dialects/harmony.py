"""The harmony format of gpt-oss: an output is one message or more, each with a channel, and perhaps a recipient.

As the format's published guide says: `analysis` holds thoughts, `final` the answer, `commentary` what is said before
calls; a message to `functions.NAME` is a call with JSON arguments, whatever its channel, and the recipient may stand in
front of the channel or behind it. Tools have TypeScript identifiers there, so that names with other characters are
known by a legal one as well.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence

import msgspec

from corectl.messages import Template, Tool
from corectl.output.calls import Calls
from corectl.output.dialect import OutputReader, OutputRequest, OutputShape, Part, Tags
from corectl.output.lark import joined, json_rule, literal, parameters
from corectl.output.reading import Feed, FeedReader, Literals, NotACall, Reading, broken

START, CHANNEL, MESSAGE, CONSTRAIN = "<|start|>", "<|channel|>", "<|message|>", "<|constrain|>"
END, CALL, RETURN = "<|end|>", "<|call|>", "<|return|>"
MARKERS = (START, CHANNEL, MESSAGE, CONSTRAIN, END, CALL, RETURN)
FUNCTIONS = "functions."

_FINAL = f"{CHANNEL}final{MESSAGE}"
# The prompt ends in the role of the first message; each message that follows has its own.
_THOUGHT = Tags(f"{CHANNEL}analysis{MESSAGE}", f"{END}{START}assistant")
# Calls belong into the commentary; models put some into the analysis.
_CALL_CHANNELS = ("commentary", "analysis")
_CALL_OPENERS = (
    *(f"{CHANNEL}{channel} to={FUNCTIONS}" for channel in _CALL_CHANNELS),
    f"{START}assistant to={FUNCTIONS}",
)
# Behind the role that the prompt, or a thought, has ended in.
_FIRST_OPENERS = (f"to={FUNCTIONS}",)

_WORD_RUN = re.compile(r"[\w.+/-]*")
_RECIPIENT_RUN = re.compile(r"[^\s<]*")
_ILLEGAL = re.compile(r"[^A-Za-z0-9_$]")
_CUT_OFF = re.compile(
    r"(<\|start\|>\w*)?( ?to=[\w.-]{0,100})?(<\|channel\|>\w*( to=[\w.-]{0,100})? ?(<\|constrain\|>)?(json)?)?"
)
_HEADER = Literals(START, CHANNEL)
_CHANNEL, _MESSAGE, _CONSTRAIN, _TO = (
    Literals(CHANNEL),
    Literals(MESSAGE),
    Literals(CONSTRAIN),
    Literals("to="),
)
_ENDS = Literals(END, CALL, RETURN)
_BODY_ENDS = Literals(END, CALL, RETURN, START, CHANNEL)


class Header(msgspec.Struct, frozen=True):
    """What stands in front of a message. `recipient` is empty for one to the user."""

    channel: str = ""
    recipient: str = ""


class HarmonyDialect:
    """See `corectl.output.dialect.Dialect`."""

    name = "harmony"
    aliases: tuple[str, ...] = ("gpt-oss",)

    def claims(self, template: Template) -> bool:
        return all(text in template.text for text in (START, MESSAGE, END, CHANNEL))

    def shape(self, request: OutputRequest) -> OutputShape:
        prefilled = prompt_header(request.prompt)
        in_thought = prefilled is not None and prefilled.channel == "analysis"
        in_content = prefilled is not None and not in_thought
        return OutputShape(
            thought=None if in_content else _THOUGHT,
            in_thought=in_thought,
            content_open="" if in_content else _FINAL,
            call_openers=_CALL_OPENERS if request.tools else (),
            first_openers=_FIRST_OPENERS if request.tools and not in_content else (),
            calls=_grammar(request.tools) if request.tools else "",
            markers=MARKERS,
        )

    def reader(self, request: OutputRequest) -> OutputReader:
        return FeedReader(lambda feed: _Reader(feed, request).read())


def prompt_header(prompt: str) -> Header | None:
    """The header of the message that a prompt ends in; None if it ends before one."""
    head, message, body = prompt[prompt.rfind(START) :].rpartition(MESSAGE)
    if not message or any(marker in body for marker in (END, CALL, RETURN)):
        return None
    feed = Feed()
    feed.add(head + message)
    feed.ended = True
    reading = _read_header(feed, "")
    try:
        next(reading)
    except StopIteration as result:
        header: Header | None = result.value
        return header
    except NotACall:
        pass
    return None


def written_names(tools: Sequence[Tool]) -> dict[str, str]:
    """The names that tools may have in an output, each with the name of the tool.

    A tool has its own name, if it can be read, and a legal identifier that no other tool has.
    """
    names = list(dict.fromkeys(str(tool["function"]["name"]) for tool in tools))
    written = {name: name for name in names if name and _RECIPIENT_RUN.fullmatch(name)}
    numbers: dict[str, int] = {}
    for name in names:
        identifier = _ILLEGAL.sub("_", name)
        if not identifier or identifier[0].isdigit():
            identifier = f"_{identifier}"
        free, number = identifier, numbers.get(identifier, 2)
        while written.get(free, name) != name:
            free, number = f"{identifier}_{number}", number + 1
        numbers[identifier] = number
        written[free] = name
    return written


def _read_header(feed: Feed, opened: str) -> Reading[Header | None]:
    """Reads up to the body of a message. `opened` is the marker that was taken already.

    None, with nothing but blanks taken, if no message begins. Raises `NotACall` for a header that is none.
    """
    begun = opened or (yield from feed.starts(_HEADER))
    if begun == START:
        yield from feed.while_in(_WORD_RUN)
    recipient = yield from _read_recipient(feed)
    channel = ""
    if begun == CHANNEL or (yield from feed.starts(_CHANNEL)):
        channel = yield from feed.while_in(_WORD_RUN)
        recipient = recipient or (yield from _read_recipient(feed))
    if begun or channel or recipient:
        yield from feed.skip_blanks()
        constrained = yield from feed.starts(_CONSTRAIN)
        yield from feed.skip_blanks()
        # The kind of a body. Behind a role alone such a word is text.
        if constrained or channel or recipient:
            yield from feed.while_in(_WORD_RUN)
        yield from feed.skip_blanks()
    if (yield from feed.starts(_MESSAGE)):
        return Header(channel, recipient)
    if recipient:
        raise broken("its header does not end")
    if begun or channel:
        raise NotACall(
            "output_not_parsed", "the header of a message could not be read and is left in the content"
        )
    return None


def _read_recipient(feed: Feed) -> Reading[str]:
    yield from feed.skip_blanks()
    return (yield from feed.while_in(_RECIPIENT_RUN)) if (yield from feed.starts(_TO)) else ""


class _Reader:
    """Reads the messages of one output."""

    def __init__(self, feed: Feed, request: OutputRequest) -> None:
        self._feed = feed
        self._request = request
        self._calls = Calls(feed, request.tools)
        self._names = written_names(request.tools)
        self._begun: set[bool] = set()
        self._fresh = False

    def read(self) -> Reading[None]:
        """Reads all messages."""
        opened = ""
        prefilled = prompt_header(self._request.prompt)
        if prefilled is not None:
            opened = yield from self._read_body(prefilled)
        while (yield from self._feed.peek()):
            header = yield from self._next_header(opened)
            opened = yield from self._read_body(header)

    def _next_header(self, opened: str) -> Reading[Header]:
        """Where no message begins, what comes is taken for content."""
        feed = self._feed
        self._fresh = True
        opened = opened if opened in _HEADER.texts else ""
        while not opened and (yield from feed.starts(_ENDS)):
            pass
        feed.mark(opened)
        try:
            header, failure = (yield from _read_header(feed, opened)), None
        except NotACall as error:
            header, failure = None, error.notice
        if header is not None:
            return header
        text = feed.recover()
        # A header that the end of the output cuts off says nothing.
        if (yield from feed.peek()) or not _CUT_OFF.fullmatch(text):
            if failure is not None:
                feed.notice(failure)
            if text:
                yield self._raw(text)
        return Header()

    def _read_body(self, header: Header) -> Reading[str]:
        """Reads the body of a message, and gives the marker that ended it."""
        if header.recipient and self._request.tools:
            try:
                yield from self._read_call(header.recipient)
            except NotACall as failure:
                self._feed.notice(failure.notice)
                yield self._raw(self._feed.recover())
        elif header.recipient:
            yield self._raw(self._feed.recover())
        self._feed.recover()
        part = self._thought if header.channel == "analysis" and not header.recipient else self._text
        return (yield from self._feed.text_until(_BODY_ENDS, part))

    def _read_call(self, recipient: str) -> Reading[None]:
        written = recipient.removeprefix(FUNCTIONS)
        yield from self._feed.skip_blanks()
        yield from self._calls.arguments(self._names.get(written, written))
        yield from self._feed.skip_blanks()

    def _raw(self, text: str) -> Part:
        """Content as it was written, markers and all."""
        self._fresh = False
        return self._text(text)

    def _text(self, text: str) -> Part:
        return Part(text=self._line(text, thought=False))

    def _thought(self, text: str) -> Part:
        return Part(thinking=self._line(text, thought=True))

    def _line(self, text: str, *, thought: bool) -> str:
        """What another message adds goes on a line of its own."""
        separator = "\n" if self._fresh and thought in self._begun else ""
        self._fresh = False
        self._begun.add(thought)
        return separator + text


def _grammar(tools: Sequence[Tool]) -> str:
    """One call: the model ends its turn after it."""
    in_channel, in_role, rules = [], [], []
    named: dict[str, list[str]] = defaultdict(list)
    for written, name in written_names(tools).items():
        named[name].append(written)
    for index, tool in enumerate(tools):
        rules.append(f"arguments{index}: {json_rule(parameters(tool))}")
        for written in named[str(tool["function"]["name"])]:
            name, arguments = literal(written), f"{literal(MESSAGE)} arguments{index}"
            in_channel.append(joined(name, "type", arguments))
            in_role.append(joined(name, literal(CHANNEL), "channel", "type", arguments))
    return "\n".join(
        [
            'calls: begin? in_channel | begin " " in_role | " "? in_role',
            f"begin: {literal(START)} {literal('assistant')}",
            f"in_channel: {literal(CHANNEL)} channel {literal(f' to={FUNCTIONS}')} ({' | '.join(in_channel)})",
            f"in_role: {literal(f'to={FUNCTIONS}')} ({' | '.join(in_role)})",
            f"channel: {' | '.join(map(literal, _CALL_CHANNELS))}",
            f'type: (" "? {literal(CONSTRAIN)} "json" | " json" | " code")?',
            *rules,
        ]
    )
