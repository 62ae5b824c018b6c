"""What the batch loop gives to an engine, and gets from it: sequences, parts of steps, tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import msgspec

from corectl.messages import Notice, SamplingOptions
from corectl.runner.vision import ImageSpan

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


class Constraint(Protocol):
    """Keeps one sequence to a grammar. The batch loop's thread calls it, and nobody else."""

    @property
    def notices(self) -> Sequence[Notice]:
        """What the client should know, once the sequence has ended."""
        ...

    def mask(self, logits: npt.NDArray[np.float32]) -> None:
        """Sets the logits of tokens that must not come next to minus infinity, in place.

        `logits` has one value per token of the vocabulary. The engine calls it once before each token that it draws,
        after probabilities were taken, and before any sampler. Never raises.
        """
        ...

    def accept(self, token: int) -> None:
        """Takes note of a drawn token. Called by the batch loop. Raises `EngineError` if the grammar is broken."""
        ...


class SequenceSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What an engine needs to know of a sequence before its first step.

    `prompt` seeds the repetition penalties. `top_logprobs` below 0 means that no probabilities are wanted. With a
    `constraint`, tokens are drawn from what its mask leaves.
    """

    id: int
    prompt: tuple[int, ...]
    sampling: SamplingOptions
    top_logprobs: int = -1
    constraint: Constraint | None = None


class Work(msgspec.Struct, frozen=True):
    """One sequence's part of a step: its next tokens, which go to consecutive positions from `position` on.

    With `sample`, a token is drawn from the logits after the last of them. With an `image`, the tokens are the cells of
    that span, which is encoded; there is one image at most in a step, and none is sampled after.
    """

    id: int
    tokens: Sequence[int]
    position: int
    sample: bool
    image: ImageSpan | None = None


class Candidate(msgspec.Struct, frozen=True):
    """A token and its natural-log probability before any sampler."""

    token: int
    logprob: float


class Sampled(msgspec.Struct, frozen=True):
    """A drawn token. `chosen` and `top` (best first) are filled where probabilities were asked for."""

    id: int
    token: int
    chosen: Candidate | None = None
    top: tuple[Candidate, ...] = ()


class Passage(msgspec.Struct, frozen=True):
    """Tokens that are embedded as one. From `second` on they are of a pair's second text; below 0 there is none."""

    tokens: list[int]
    second: int = -1


class PairTokens(msgspec.Struct, frozen=True, kw_only=True):
    """A query and a document with what a cross-encoder wants before, between and after them.

    Where both stand in one text, they are the `document`, and `query` is empty.
    """

    head: list[int]
    query: list[int]
    middle: list[int]
    document: list[int]
    tail: list[int]

    @property
    def length(self) -> int:
        return sum(map(len, (self.head, self.query, self.middle, self.document, self.tail)))

    def passage(self) -> Passage:
        first = [*self.head, *self.query, *self.middle]
        return Passage([*first, *self.document, *self.tail], len(first) or -1)
