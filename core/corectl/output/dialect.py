"""What a dialect is: how a family of models writes thoughts and tool calls, and how both are read and enforced.

A dialect gives two things for a request. Its `shape` is a value that says where a thought may stand and what a tool
call looks like, which the constraint on the sampler is made from. Its `reader` takes the model's text apart.
"""

from __future__ import annotations

from typing import Protocol

import msgspec

from corectl.messages import Notice, Template, Tool, ToolCallDelta


class Tags(msgspec.Struct, frozen=True):
    """The texts around something."""

    open: str
    close: str


class OutputRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What a dialect may know of one request.

    `tools` are those that may be called now; without them, text that looks like a call is content. `prompt` is the
    rendered prompt, whose end tells whether the model starts inside a thought. `think` is false where the request
    wants no thought. `parallel` allows more than one call.
    """

    template: Template | None
    prompt: str = ""
    tools: tuple[Tool, ...] = ()
    think: bool = True
    parallel: bool = True


class OutputShape(msgspec.Struct, frozen=True, kw_only=True):
    """What an output looks like: first a thought, if there is one, and then content, tool calls, or both.

    `in_thought` says that the prompt has opened the thought already. `content_open` is what stands in front of content
    (empty in most dialects). `call_openers` are the texts that a call can begin with. `first_openers` are others, which
    only count as the first text after the thought, and where there are no other openers after another call as well;
    blanks in front of them are no part of them.

    `calls` is a grammar in Lark syntax, as llguidance reads it, of one or more calls from the opener to the end, with
    a rule named `calls`; empty where the dialect cannot say. `markers` are the texts of control tokens that must be
    shown to the reader; in `calls` each stands as a string literal of its own.
    """

    thought: Tags | None = None
    in_thought: bool = False
    content_open: str = ""
    call_openers: tuple[str, ...] = ()
    first_openers: tuple[str, ...] = ()
    calls: str = ""
    markers: tuple[str, ...] = ()


class Part(msgspec.Struct, frozen=True):
    """Something that was read: content, thought, or a piece of a tool call."""

    text: str = ""
    thinking: str = ""
    call: ToolCallDelta | None = None


class OutputReader(Protocol):
    """Takes one output apart as it comes. What it gives in all never depends on where the chunks end.

    Nothing is lost: what does not parse comes as text, and `notices` say so. A call is delivered while it is written;
    one whose last piece (`done`) never comes is none, and the text that it was read from comes as content.
    """

    @property
    def notices(self) -> list[Notice]: ...

    def push(self, text: str) -> list[Part]:
        """Takes the next text, which is never empty. Text that may be the start of a tag is held back."""
        ...

    def finish(self) -> list[Part]:
        """What was still held back, at the end. Called once."""
        ...


class Dialect(Protocol):
    """A family's way to write. Stateless; see `corectl.hookspecs.corectl_dialects` for when it is called."""

    @property
    def name(self) -> str: ...

    @property
    def aliases(self) -> tuple[str, ...]:
        """Further names that a Modelfile's PARSER may use."""
        ...

    def claims(self, template: Template) -> bool:
        """True if a template is written for this dialect."""
        ...

    def shape(self, request: OutputRequest) -> OutputShape: ...

    def reader(self, request: OutputRequest) -> OutputReader: ...
