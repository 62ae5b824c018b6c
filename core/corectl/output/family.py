"""The dialect of most families: one thought, then content and calls in one of the usual syntaxes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec

from corectl.messages import Template, Tool
from corectl.output.calls import Calls, call_id, read_content
from corectl.output.dialect import OutputReader, OutputRequest, OutputShape, Tags
from corectl.output.reading import Feed, FeedReader, Literals, Reading
from corectl.output.thinking import read_thought, starts_in_thought, thought_markers, thought_tags


class Syntax(Protocol):
    """A way to write calls: `corectl.output.syntax.CallSyntax`, or one of a plugin's own. Stateless.

    `openers`, `first_openers` and `markers` mean the same as in an `OutputShape`.
    """

    @property
    def openers(self) -> tuple[str, ...]: ...

    @property
    def first_openers(self) -> tuple[str, ...]: ...

    @property
    def markers(self) -> tuple[str, ...]: ...

    def grammar(self, tools: Sequence[Tool], *, parallel: bool) -> str:
        """Lark source with a rule `calls`: one or more calls from an opener to the end. Empty if none can be made."""
        ...

    def read_block(self, feed: Feed, calls: Calls, opener: str) -> Reading[None]:
        """Reads what follows an opener. See `corectl.output.calls.read_content`."""
        ...


class FamilyDialect(msgspec.Struct, frozen=True, kw_only=True):
    """See `corectl.output.dialect.Dialect`.

    A template is claimed that has all of the `telltales` and none of the texts in `lacks`. `tags` are those of the
    thought where the template shows none. `content_open` stands in front of content; `dropped` are texts around content
    or calls that are no part of either.
    """

    name: str
    calls: Syntax | None = None
    aliases: tuple[str, ...] = ()
    telltales: tuple[str, ...] = ()
    lacks: tuple[str, ...] = ()
    tags: Tags | None = None
    content_open: str = ""
    dropped: tuple[str, ...] = ()
    new_id: Callable[[], str] = call_id

    def claims(self, template: Template) -> bool:
        if not self.telltales or any(text in template.text for text in self.lacks):
            return False
        return all(text in template.text for text in self.telltales)

    def shape(self, request: OutputRequest) -> OutputShape:
        tags = self._tags(request)
        in_thought = starts_in_thought(request, tags)
        shape = OutputShape(
            thought=tags if request.think or in_thought else None,
            in_thought=in_thought,
            content_open=self.content_open,
            markers=thought_markers(tags),
        )
        if self.calls is None or not request.tools:
            return shape
        return msgspec.structs.replace(
            shape,
            call_openers=self.calls.openers,
            first_openers=self.calls.first_openers,
            calls=self.calls.grammar(request.tools, parallel=request.parallel),
            markers=(*shape.markers, *self.calls.markers),
        )

    def reader(self, request: OutputRequest) -> OutputReader:
        return FeedReader(lambda feed: self._read(feed, request))

    def _read(self, feed: Feed, request: OutputRequest) -> Reading[None]:
        tags = self._tags(request)
        blanks = ""
        if tags is not None:
            blanks = yield from read_thought(feed, tags, starts_in_thought(request, tags))
        syntax = self.calls if request.tools else None
        calls = Calls(feed, request.tools, self.new_id)

        def read_block(opener: str) -> Reading[None]:
            if syntax is not None and opener not in self.dropped:
                yield from syntax.read_block(feed, calls, opener)

        yield from read_content(
            feed,
            Literals(*self.dropped, *(syntax.openers if syntax else ())),
            read_block,
            first=syntax.first_openers if syntax else (),
            blanks=blanks,
        )

    def _tags(self, request: OutputRequest) -> Tags | None:
        return thought_tags(request.template) or self.tags
