"""From what a request wants of its output to a constraint on the sampler."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from weakref import WeakKeyDictionary

import llguidance

from corectl.constrain import lark
from corectl.constrain.compile import Compiler
from corectl.constrain.phases import (
    FREE,
    MAX_GAP,
    Constrained,
    Phase,
    PhasedConstraint,
    Thinking,
    Watched,
    Way,
)
from corectl.constrain.tools import compile_calls
from corectl.constrain.vocabulary import Vocabulary
from corectl.constrain.watch import BLANKS, Mark, Marks
from corectl.errors import NotSupported
from corectl.messages import Grammar, Notice, ToolChoice
from corectl.output.dialect import OutputShape, Tags
from corectl.runner.engine import Constraint, Tokenizer

Refuses = Callable[[bytes], bool]

_compilers: WeakKeyDictionary[Tokenizer, Compiler] = WeakKeyDictionary()


def compiler_of(tokenizer: Tokenizer) -> Compiler:
    """The compiler for a model's vocabulary, made at the first call. Only for the thread that prepares requests."""
    if tokenizer not in _compilers:
        _compilers[tokenizer] = Compiler(Vocabulary(tokenizer))
    return _compilers[tokenizer]


def build_constraint(
    shape: OutputShape,
    tokenizer: Tokenizer,
    *,
    grammar: Grammar | None,
    choice: ToolChoice,
    think_budget: int,
) -> Constraint | None:
    """The constraint for one request, or None if the model may write what it likes.

    Called on the thread that prepares requests. Raises `BadRequest` for a grammar that cannot be enforced.
    """
    required = choice.mode == "required"
    if required and not shape.calls:
        raise NotSupported("tool_choice: this model cannot be made to call a tool")
    if grammar is None and not shape.calls and (shape.thought is None or think_budget < 0):
        return None
    plan = _Plan(shape, compiler_of(tokenizer), grammar, choice, think_budget)
    return PhasedConstraint(plan.start(), plan.notices)


class _Plan:
    """The phases of one output. What can fail or take time is done when it is made; the rest as the output needs it."""

    def __init__(
        self, shape: OutputShape, compiler: Compiler, grammar: Grammar | None, choice: ToolChoice, budget: int
    ) -> None:
        self._shape = shape
        self._vocabulary = compiler.vocabulary
        self._required = choice.mode == "required"
        self._budget = budget
        self.notices: list[Notice] = []
        content = None if grammar is None else compiler.content(grammar)
        self._content = None if self._required else content
        self._calls: llguidance.LLMatcher | None = None
        if shape.calls:
            self._calls = compile_calls(shape.calls, compiler)
        self._tags = shape.thought or Tags("", "")
        texts = {self._tags.open, self._tags.close, shape.content_open} - {""}
        self._texts = {
            text: compiler.grammar(lark.spelled(self._vocabulary, text), "template") for text in texts
        }
        self._find_marks(compiler, parallel=choice.parallel)

    def _find_marks(self, compiler: Compiler, *, parallel: bool) -> None:
        constrained = bool(self._ways())
        key = repr((self._shape, constrained))
        hidden = self._vocabulary.controls_but(self._shape.markers)

        def marks(kind: str, find: Callable[[], list[Mark]]) -> Marks:
            return compiler.small.get(kind, key, lambda _: Marks(self._vocabulary, find(), hidden))

        refuses = _is_no_blank if constrained else None
        self._end_of_thought = marks("thought", lambda: [Mark(self._tags.close.encode(), refuses=refuses)])
        calls = self._calls is not None and not constrained
        self._begin_calls = marks(
            "calls", lambda: self._call_marks(self._shape.first_openers) if calls else []
        )
        self._more_calls = self._begin_calls
        if calls and not parallel:
            self._more_calls = marks("no calls", self._no_more_calls)
        elif calls and self._shape.call_openers:
            self._more_calls = marks("more calls", lambda: self._call_marks(first=()))
        self._at_start = self._begin_calls
        if self._shape.thought is not None:
            self._at_start = self._begin_calls.with_first(self._tags.open.encode())

    def start(self) -> Phase:
        """The phase that the output begins in."""
        shape, ways = self._shape, self._ways()
        if shape.in_thought:
            return self._thought()
        if not ways:
            return Watched(self._vocabulary, self._at_start, self._thought_or_calls)
        if shape.thought is not None:
            ways.append(self._spelled(self._tags.open, self._thought))
        return Constrained(self._vocabulary, ways)

    def _thought(self) -> Phase:
        thinking = Thinking(
            self._vocabulary,
            self._end_of_thought,
            self._after_thought,
            must_follow=bool(self._ways()),
            budget=self._budget,
            cut_short=self._cut_short,
        )
        return thinking.begin()

    def _cut_short(self) -> Phase:
        message = f"the thought was ended after {self._budget} tokens, which is its budget"
        self.notices.append(Notice(code="thinking_budget", message=message))
        return Constrained(self._vocabulary, [self._spelled(self._tags.close, self._after_thought)])

    def _after_thought(self) -> Phase:
        ways = self._ways()
        if ways:
            return Constrained(self._vocabulary, ways, gap=MAX_GAP)
        return FREE if self._calls is None else Watched(self._vocabulary, self._begin_calls, self._called)

    def _ways(self) -> list[Way]:
        """The grammars one of which the output must follow after its thought; none if it need not."""
        ways = []
        if self._content is not None:
            content = Way(self._content.deep_copy())
            opened = self._shape.content_open
            ways.append(
                self._spelled(opened, lambda: Constrained(self._vocabulary, [content])) if opened else content
            )
        if self._calls is not None and (ways or self._required):
            ways.append(Way(self._calls.deep_copy(), repeats=True))
        return ways

    def _spelled(self, text: str, then: Callable[[], Phase]) -> Way:
        return Way(self._texts[text].deep_copy(), lambda matcher: then())

    def _thought_or_calls(self, text: bytes) -> Phase | None:
        opened = self._tags.open.encode()
        if opened and text.startswith(opened):
            thought = self._thought()
            # Without a budget the thought is over, whatever the end of its tag has brought along.
            return thought.resume(text[len(opened) :]) if self._budget else thought
        return self._called(text)

    def _called(self, text: bytes) -> Phase | None:
        """The phase after text that begins with the opener of a call."""
        matcher = self._matcher_after(text)
        if matcher is None:
            return None
        way = Way(matcher, self._between_calls)
        return (
            self._between_calls(matcher) if matcher.is_accepting() else Constrained(self._vocabulary, [way])
        )

    def _between_calls(self, matcher: llguidance.LLMatcher) -> Phase:
        def go_on(matcher: llguidance.LLMatcher) -> Phase:
            if matcher.is_accepting():
                return self._between_calls(matcher)
            return Constrained(self._vocabulary, [Way(matcher, self._between_calls)])

        return Watched(self._vocabulary, self._more_calls, self._called, matcher, go_on)

    def _call_marks(self, first: Sequence[str]) -> list[Mark]:
        return [
            Mark(opener.encode(), at_first, self._misfit(opener.encode()))
            for openers, at_first in ((self._shape.call_openers, False), (first, True))
            for opener in openers
        ]

    def _no_more_calls(self) -> list[Mark]:
        """After a call, what only counts as the first text also counts behind a separator."""
        openers = (*self._shape.call_openers, *self._shape.first_openers)
        return [Mark(opener.encode(), refuses=_always) for opener in openers]

    def _misfit(self, opener: bytes) -> Refuses | None:
        """What says that the grammar of calls does not go on with some text after an opener."""
        begun = self._matcher_after(opener)
        if begun is None:
            return None
        return lambda rest: not begun.deep_copy().consume_tokens(self._vocabulary.tokens(rest))

    def _matcher_after(self, text: bytes) -> llguidance.LLMatcher | None:
        if self._calls is None:
            return None
        matcher = self._calls.deep_copy()
        return matcher if matcher.consume_tokens(self._vocabulary.tokens(text)) else None


def _always(rest: bytes) -> bool:
    return True


def _is_no_blank(rest: bytes) -> bool:
    return bool(rest.strip(BLANKS))
