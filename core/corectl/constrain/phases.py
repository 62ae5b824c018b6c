"""What an output goes through: a thought, free text, calls, content. A phase says what may come, and what is next."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import llguidance
import msgspec

from corectl.constrain.masking import Logits, TokenMask, ban, keep
from corectl.constrain.native import TOO_COMPLEX, reason_of
from corectl.constrain.vocabulary import Vocabulary
from corectl.constrain.watch import BLANKS, Marks, Watch
from corectl.errors import BadRequest, EngineError
from corectl.messages import Notice

MAX_GAP = 2
"""Tokens of line breaks that may stand between a thought and what follows it."""

_MULTIPLE_BYTES = 0xC0
"""Bytes from here on begin a character of two bytes or more."""


class Phase(Protocol):
    """A part of an output. Only the batch loop's thread calls it."""

    def mask(self, logits: Logits) -> None:
        """See `corectl.runner.engine.Constraint`."""
        ...

    def accept(self, token: int) -> Phase:
        """Takes a drawn token. The phase that the output is in after it.

        Raises `EngineError` if it was not allowed, and `BadRequest` if the grammar has become too complex to tell.
        """
        ...

    def resume(self, text: bytes) -> Phase:
        """Takes text that the last token of the phase before has brought along. The phase after it."""
        ...


class Free:
    """The model may write what it likes, and nobody looks."""

    def mask(self, logits: Logits) -> None:
        return

    def accept(self, token: int) -> Phase:
        return self

    def resume(self, text: bytes) -> Phase:
        return self


FREE = Free()


class Watched:
    """The model may write what it likes until it writes one of some marks.

    `then` gets the text from there on; where it gives no phase, the mark was none. As long as a `matcher` goes along
    with what is written, it is what constrains the output from the first thing that is not blank.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        marks: Marks,
        then: Callable[[bytes], Phase | None],
        matcher: llguidance.LLMatcher | None = None,
        then_match: Callable[[llguidance.LLMatcher], Phase] | None = None,
    ) -> None:
        self._vocabulary = vocabulary
        self._marks = marks
        self._watch = Watch(marks)
        self._then = then
        self._matcher = matcher
        self._then_match = then_match

    def mask(self, logits: Logits) -> None:
        banned = self._watch.banned
        if banned.size:
            ban(logits, banned)

    def accept(self, token: int) -> Phase:
        if self._vocabulary.is_end(token):
            return FREE
        text = self._marks.text(token)
        if not text:
            return self
        if self._matcher is not None and self._then_match is not None:
            if not self._matcher.consume_token(token):
                self._matcher = None
            elif text.strip(BLANKS):
                return self._then_match(self._matcher)
        return self.resume(text)

    def resume(self, text: bytes) -> Phase:
        found = self._watch.feed(text)
        return self if found is None else self._then(found) or self


class Thinking:
    """A thought, until its closing tag. `then` is what follows it, and gets the text that came with the tag.

    Where something `must_follow`, the output cannot end in the thought. After `budget` tokens, if that is not below 0,
    the output goes on with `cut_short`.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        close: Marks,
        then: Callable[[], Phase],
        *,
        must_follow: bool,
        budget: int,
        cut_short: Callable[[], Phase],
    ) -> None:
        self._vocabulary = vocabulary
        self._close = close
        self._watch = Watch(close)
        self._then = then
        self._must_follow = must_follow
        self._budget = budget
        self._cut_short = cut_short
        self._tokens = 0
        self._recent = b""

    def begin(self) -> Phase:
        """The phase to start with, which is not this one where no thought is wanted."""
        return self if self._budget else self._cut_short()

    def mask(self, logits: Logits) -> None:
        if self._must_follow:
            ban(logits, self._vocabulary.ends)
            banned = self._watch.banned
            if banned.size:
                ban(logits, banned)

    def accept(self, token: int) -> Phase:
        text = self._close.text(token)
        self._tokens += 1
        self._recent = (self._recent + text)[-3:]
        phase = self.resume(text)
        if phase is self and 0 <= self._budget <= self._tokens and not _within_character(self._recent):
            return self._cut_short()
        return phase

    def resume(self, text: bytes) -> Phase:
        found = self._watch.feed(text)
        return self if found is None else self._then().resume(found[self._close.longest :])


def _within_character(end: bytes) -> bool:
    """True if text with this end lacks bytes of its last UTF-8 character. Three bytes are enough."""
    for missing, byte in enumerate(reversed(end), 1):
        if byte >= _MULTIPLE_BYTES:
            return missing < (2 if byte < 0xE0 else 3 if byte < 0xF0 else 4)
        if byte < 0x80:
            return False
    return False


class Way(msgspec.Struct, frozen=True):
    """A grammar that an output may follow. Once it is complete, `then` says what is next; without it, nothing is.

    A grammar may go on after it could have ended. With `repeats` it only does if that is what the model likes best:
    a model that would rather write something else is not made to write the same again.
    """

    matcher: llguidance.LLMatcher
    then: Callable[[llguidance.LLMatcher], Phase] | None = None
    repeats: bool = False


class Constrained:
    """The output follows one of some grammars: all that it can still be are kept alive.

    In front of it up to `gap` tokens of nothing but line breaks may stand.
    """

    def __init__(self, vocabulary: Vocabulary, ways: Sequence[Way], *, gap: int = 0) -> None:
        self._vocabulary = vocabulary
        self._ways = list(ways)
        self._gap = gap
        self._mask = TokenMask(vocabulary.size)

    def mask(self, logits: Logits) -> None:
        self._mask.fill(self._ways[0].matcher)
        for way in self._ways[1:]:
            other = TokenMask(self._vocabulary.size)
            other.fill(way.matcher)
            self._mask.add(other)
        if any(way.matcher.is_error() for way in self._ways):
            # Nothing that can be drawn now is right: the end is, once `accept` has seen it, an error.
            keep(logits, self._vocabulary.ends)
            return
        if self._gap:
            self._mask.allow(self._vocabulary.line_breaks)
        if self._would_rather_end(logits):
            keep(logits, self._vocabulary.ends)
            return
        self._mask.apply(logits)

    def _would_rather_end(self, logits: Logits) -> bool:
        complete = any(way.repeats and way.matcher.is_accepting() for way in self._ways)
        return complete and not self._mask.allows(int(logits.argmax()))

    def accept(self, token: int) -> Phase:
        if self._gap and token in self._vocabulary.line_breaks:
            self._gap -= 1
            return self
        self._gap = 0
        if self._vocabulary.is_end(token) and any(way.matcher.is_accepting() for way in self._ways):
            return FREE
        before = self._ways
        self._ways = [way for way in before if way.matcher.consume_token(token)]
        if not self._ways:
            reason = reason_of(before[0].matcher.get_error())
            if reason.startswith(TOO_COMPLEX):
                raise BadRequest(f"the grammar or schema cannot be enforced any further: {reason}")
            raise EngineError(f"the output left its grammar: {reason}")
        for way in self._ways:
            if way.then is not None and way.matcher.is_accepting():
                return way.then(way.matcher)
        return self

    def resume(self, text: bytes) -> Phase:
        phase: Phase = self
        for token in self._vocabulary.tokens(text.lstrip(BLANKS) if self._gap else text):
            phase = phase.accept(token)
        return phase


class PhasedConstraint:
    """See `corectl.runner.engine.Constraint`."""

    def __init__(self, phase: Phase, notices: list[Notice]) -> None:
        self._phase = phase
        self.notices = notices

    def mask(self, logits: Logits) -> None:
        self._phase.mask(logits)

    def accept(self, token: int) -> None:
        self._phase = self._phase.accept(token)
