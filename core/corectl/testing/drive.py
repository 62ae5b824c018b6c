"""Sequences in an engine, step by step, as a batch loop would take them; and how two runs are compared."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from types import TracebackType
from typing import Any

import msgspec

from corectl.messages import SamplingOptions
from corectl.runner.engine import Constraint, Engine, Sampled, SequenceSpec, Work

GREEDY = SamplingOptions(temperature=0)

PIECE = 32
"""Prompts are computed in pieces of at most so many tokens, unless a check wants otherwise."""

_ids = itertools.count(1)


class Driver:
    """One sequence: knows what it has computed, and what was drawn."""

    def __init__(self, engine: Engine, prompt: Sequence[int], **spec: Any) -> None:
        self.engine = engine
        self.id = next(_ids)
        self.tokens = list(prompt)
        self.computed = 0
        self.start = len(self.tokens)
        self.sampled: list[Sampled] = []
        engine.add(SequenceSpec(id=self.id, prompt=tuple(prompt), **spec))

    @property
    def drawn(self) -> list[int]:
        return [item.token for item in self.sampled]

    def work(self, piece: int = PIECE) -> Work:
        """The next part of a step. Call `take` with what the step gave."""
        end = min(self.computed + piece, len(self.tokens))
        item = Work(self.id, self.tokens[self.computed : end], self.computed, sample=end == len(self.tokens))
        self.computed = end
        return item

    def take(self, sampled: Sequence[Sampled]) -> None:
        mine = [item for item in sampled if item.id == self.id]
        self.sampled += mine
        self.tokens += [item.token for item in mine]

    def step(self, piece: int = PIECE) -> list[Sampled]:
        """One step of this sequence alone."""
        work = self.work(piece)
        sampled = self.engine.step([work])
        assert len(sampled) == work.sample, (
            f"a step drew {len(sampled)} tokens, {int(work.sample)} were wanted"
        )
        self.take(sampled)
        return sampled

    def run(self, count: int, piece: int = PIECE) -> list[Sampled]:
        """Computes what is pending and draws `count` tokens, alone. Returns those."""
        before = len(self.sampled)
        while len(self.sampled) < before + count:
            self.step(piece)
        return self.sampled[before:]

    def rewind(self, computed: int, tokens: Sequence[int]) -> None:
        """From now on the sequence is `tokens`, of which the first `computed` are in the engine."""
        self.tokens, self.computed = list(tokens), computed
        self.start = len(self.tokens)
        self.sampled = []


class Sequences:
    """Sequences that are gone when the `with` block ends, however it ends."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._there: dict[int, Driver] = {}

    def __enter__(self) -> Sequences:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for driver in list(self._there.values()):
            self.end(driver)

    def begin(
        self,
        prompt: Sequence[int],
        sampling: SamplingOptions = GREEDY,
        *,
        top_logprobs: int = -1,
        constraint: Constraint | None = None,
    ) -> Driver:
        driver = Driver(
            self._engine, prompt, sampling=sampling, top_logprobs=top_logprobs, constraint=constraint
        )
        self._there[driver.id] = driver
        return driver

    def step(self, *drivers: Driver) -> None:
        """One step for several, together."""
        piece = min(PIECE, self._engine.info.num_batch // len(drivers))
        work = [driver.work(piece) for driver in drivers]
        sampled = self._engine.step(work)
        wanted = sorted(item.id for item in work if item.sample)
        assert sorted(item.id for item in sampled) == wanted, "tokens were drawn for others than asked"
        for driver in drivers:
            driver.take(sampled)

    def run(self, count: int, *drivers: Driver) -> None:
        """Steps together until each has drawn `count` tokens more; who has them waits for the others."""
        goals = {driver.id: len(driver.sampled) + count for driver in drivers}
        while left := [driver for driver in drivers if len(driver.sampled) < goals[driver.id]]:
            self.step(*left)

    def end(self, driver: Driver) -> None:
        del self._there[driver.id]
        self._engine.remove(driver.id)


def draw(
    engine: Engine,
    prompt: Sequence[int],
    count: int,
    sampling: SamplingOptions = GREEDY,
    *,
    piece: int = PIECE,
    top_logprobs: int = -1,
) -> list[Sampled]:
    """`count` tokens after `prompt`, drawn by a sequence of their own."""
    with Sequences(engine) as sequences:
        return sequences.begin(prompt, sampling, top_logprobs=top_logprobs).run(count, piece)


def tokens_of(sampled: Sequence[Sampled]) -> list[int]:
    return [item.token for item in sampled]


class Comparison(msgspec.Struct):
    """Compares greedy runs whose logits may differ by rounding.

    Two runs may choose different tokens only where the best two are closer than `margin` (in natural logarithms of
    probabilities); what follows then is not compared. Where probabilities are known, they may differ by `margin`.
    """

    margin: float
    compared: int = 0
    asked: int = 0

    def same(self, expected: Sequence[Sampled], found: Sequence[Sampled]) -> None:
        """Fails where two runs are not the same."""
        assert len(expected) == len(found), f"{len(found)} tokens instead of {len(expected)}"
        self.asked += len(expected)
        for place, (first, second) in enumerate(zip(expected, found, strict=True)):
            self._same_probabilities(place, first, second)
            if first.token != second.token:
                assert len(first.top) > 1, f"token {place} is {second.token} instead of {first.token}"
                gap = first.top[0].logprob - first.top[1].logprob
                assert gap < self.margin, (
                    f"token {place} is {second.token} instead of {first.token}, which is likelier by {gap:.3f}"
                )
                return
            self.compared += 1

    def _same_probabilities(self, place: int, first: Sampled, second: Sampled) -> None:
        theirs = {item.token: item.logprob for item in second.top}
        for item in first.top:
            if item.token in theirs:
                gap = abs(item.logprob - theirs[item.token])
                assert gap <= self.margin, f"log probabilities of token {place} differ by {gap:.3f}"

    def conclude(self) -> None:
        """Fails if next to nothing was compared."""
        assert self.compared * 4 >= self.asked > 0, (
            f"of {self.asked} tokens {self.compared} could be compared: the model's choices are too close; "
            "give the suite another model, or a smaller `margin`"
        )
