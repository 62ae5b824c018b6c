"""What one step computes: a pure decision over the running sequences.

Sequences that generate get one token each; prompts are read in chunks that fill the rest of the step, and share it
equally. With company, chunks are small, so that a long prompt does not hold up the others. An image is one piece,
whatever its size, and a step has one at most.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from corectl.runner.engine import Work
from corectl.runner.vision import ImageSpan

PROMPTS_CHUNK = 128
"""Prompt tokens of one step while several prompts are read: the step is a newcomer's time to be heard."""


class Progress(msgspec.Struct):
    """How far a sequence is. `tokens` are prompt and output so far, of which the first `computed` are in the cache.

    `spans` are the images among them, `pauses` places at which a chunk is to end; both in order.
    """

    id: int
    tokens: list[int]
    computed: int = 0
    spans: tuple[ImageSpan, ...] = ()
    pauses: tuple[int, ...] = ()

    @property
    def pending(self) -> int:
        return len(self.tokens) - self.computed

    @property
    def position(self) -> int:
        """Of the next token. An image may take fewer positions than cells."""
        return self.computed - sum(
            span.cells - span.positions for span in self.spans if span.start < self.computed
        )

    @property
    def image(self) -> ImageSpan | None:
        """The image that is next, if one is."""
        return next((span for span in self.spans if span.start == self.computed), None)

    @property
    def text(self) -> int:
        """How many tokens are pending before the next image or pause."""
        end = len(self.tokens)
        if self.spans:
            end = next((span.start for span in self.spans if span.start >= self.computed), end)
        if self.pauses:
            end = min(next((place for place in self.pauses if place > self.computed), end), end)
        return end - self.computed


class Plan(msgspec.Struct, frozen=True):
    """The work of a step, `tokens` in all, and the sequence that must give up its cells first, if the pool is full.

    The first `generating` items are the next tokens of sequences that have read their prompts.
    """

    work: tuple[Work, ...]
    tokens: int = 0
    generating: int = 0
    preempt: int | None = None

    @property
    def reads(self) -> bool:
        """Whether it reads of a prompt, and so takes longer than one token of each sequence does."""
        return self.tokens > self.generating


def plan_step(
    running: Sequence[Progress],
    *,
    free_cells: int,
    num_batch: int,
    chunk: Callable[[int], int],
    turn: int = 0,
) -> Plan:
    """Decides the next step. `running` is in order of arrival; each has at least one pending token.

    `chunk` says how many prompt tokens the step may have besides so many sequences that generate; at 0 prompts wait.
    Where there are fewer than prompts, they take turns: `turn` counts the steps.

    When the free cells do not do for every sequence's next token, the youngest gives up its cells and is computed
    again later; the oldest never does, so that something always moves on. Without work and without one to preempt, the
    only sequence has filled the pool.
    """
    generating = [seq for seq in running if seq.pending == 1]
    if len(generating) > free_cells and len(running) > 1:
        return Plan(work=(), preempt=running[-1].id)
    work = [_work(seq, 1) for seq in generating[: min(num_batch, free_cells)]]
    count = len(work)
    if count == len(running):
        return Plan(tuple(work), count, count)
    prompts = [seq for seq in running if seq.pending > 1]
    budget = min(num_batch - count, free_cells - count)
    if work:
        budget = min(budget, chunk(count))
    elif len(running) > 1:
        budget = min(budget, PROMPTS_CHUNK)
    if work and not budget:
        return Plan(tuple(work), count, count)
    images = _image(prompts, free_cells - count)
    budget = min(budget, free_cells - count - sum(len(item.tokens) for item in images))
    work += images + _share([seq for seq in prompts if seq.text], budget, turn)
    if not work and len(running) > 1:
        return Plan(work=(), preempt=running[-1].id)
    return Plan(tuple(work), sum(len(item.tokens) for item in work), count)


def _share(prompts: Sequence[Progress], budget: int, turn: int) -> list[Work]:
    """Divides a step among prompts: equal parts, of which short ones leave to the others what they do not need."""
    if budget < len(prompts):
        first = turn * budget % len(prompts)
        prompts = [*prompts[first:], *prompts[:first]][:budget]
    work = []
    for index, seq in enumerate(sorted(prompts, key=lambda seq: seq.text)):
        count = min(seq.text, -(-budget // (len(prompts) - index)))
        if count > 0:
            work.append(_work(seq, count))
            budget -= count
    return work


def _image(prompts: Sequence[Progress], free_cells: int) -> list[Work]:
    """The oldest of the images that are next, if there is room for it."""
    for seq in prompts:
        if seq.image is not None:
            return [_work(seq, seq.image.cells)] if seq.image.cells <= free_cells else []
    return []


def _work(seq: Progress, count: int) -> Work:
    end = seq.computed + count
    tokens = seq.tokens[seq.computed : end]
    sample = end == len(seq.tokens)
    if not seq.spans:
        return Work(seq.id, tokens, seq.computed, sample)
    return Work(seq.id, tokens, seq.position, sample, seq.image)
