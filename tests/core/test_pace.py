"""How much of a prompt a step takes while others generate, on machines whose time is arithmetic."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from corectl.messages import SamplingOptions
from corectl.runner.engine import Sampled, Work
from corectl.runner.job import Job
from corectl.runner.loop import BatchLoop
from corectl.runner.pace import FIRST, LEAST, MUCH_LONGER, PROBE, READING, Pace
from tests.core.fake import SharingEngine, engine_info


class Machine:
    """A step takes `base`, `each` for every sequence that generates, and `token` for every prompt token."""

    def __init__(self, *, base: float = 0.008, each: float = 0.001, token: float = 0.0002) -> None:
        self.base, self.each, self.token = base, each, token
        self.slowness = 1.0
        self.now = 0.0

    def compute(self, generating: int, prompt_tokens: int) -> float:
        seconds = self.slowness * (self.base + self.each * generating + self.token * prompt_tokens)
        self.now += seconds
        return seconds


class TimedEngine(SharingEngine):
    """Its steps take a machine's time."""

    def __init__(self, machine: Machine, **sizes: int) -> None:
        super().__init__(engine_info(**sizes))
        self.machine = machine

    def step(self, work: Sequence[Work]) -> list[Sampled]:
        generating = sum(item.sample and len(item.tokens) == 1 for item in work)
        self.machine.compute(generating, sum(len(item.tokens) for item in work) - generating)
        return super().step(work)


def settle(pace: Pace, machine: Machine, generating: int, steps: int) -> list[tuple[int, float]]:
    """Prompt tokens and seconds of steps with as many prompt tokens as there may be."""
    found = []
    for _ in range(steps):
        tokens = min(pace.prompt_tokens(generating), 512)
        seconds = machine.compute(generating, tokens)
        pace.took(seconds, generating=generating, prompt_tokens=tokens)
        found.append((tokens, seconds))
    return found


def known(machine: Machine, generating: int = 1) -> Pace:
    """One that has seen a prompt alone, and then sequences that generate."""
    pace = Pace()
    for count, tokens in [(0, 512)] * 3 + [(generating, 0)] * 20:
        pace.took(machine.compute(count, tokens), generating=count, prompt_tokens=tokens)
    return pace


@pytest.mark.parametrize("generating", [1, 8, 30])
@pytest.mark.parametrize("part", [0.001, 0.01, 0.05])
@pytest.mark.parametrize(
    ("without", "seconds"),
    [(0.01, 6 * 0.01), (0.08, READING), (0.5, 2 * 0.5)],
    ids=["quick", "usual", "slow"],
)
def test_a_step_with_a_prompt_is_as_long_as_readers_bear(
    generating: int, part: float, without: float, seconds: float
) -> None:
    machine = Machine(base=without / 2, each=without / 2 / generating, token=part * without)
    steps = settle(known(machine, generating), machine, generating, 200)
    assert all(found < 1.25 * seconds for _, found in steps)
    mixed = [found for tokens, found in steps[50:] if LEAST < tokens < 512]
    assert all(0.8 * seconds < found for found in mixed)


def test_prompts_move_on_even_where_their_tokens_are_dear() -> None:
    machine = Machine(token=0.1)
    steps = settle(known(machine), machine, 1, 100)
    assert {tokens for tokens, _ in steps} == {0, LEAST}


def test_now_and_then_a_step_shows_what_the_others_take_alone() -> None:
    machine = Machine()
    steps = settle(known(machine), machine, 1, 3 * (PROBE + 1))
    assert [index for index, (tokens, _) in enumerate(steps) if not tokens] == [
        PROBE,
        2 * PROBE + 1,
        3 * PROBE + 2,
    ]


def test_before_anything_is_known_a_prompt_gets_little() -> None:
    pace = Pace()
    assert pace.prompt_tokens(1) == FIRST
    steps = settle(pace, Machine(), 1, 100)
    assert {tokens for tokens, _ in steps[:PROBE]} == {FIRST}
    assert steps[-1][0] > FIRST


def test_a_machine_that_becomes_slower_changes_the_chunks_little() -> None:
    machine = Machine()
    pace = known(machine)
    before = settle(pace, machine, 1, 100)[-1][0]
    machine.slowness = 5
    slow = settle(pace, machine, 1, 20 * PROBE)
    assert before / 3 < max(tokens for tokens, _ in slow[-PROBE:]) < 1.5 * before
    machine.slowness = 1
    assert all(seconds < 1.25 * READING for _, seconds in settle(pace, machine, 1, 20 * PROBE))


def test_a_single_stall_does_not_make_the_next_steps_long() -> None:
    for stalled in (0, 40):
        machine = Machine()
        pace = known(machine)
        pace.took(3.0, generating=1, prompt_tokens=stalled)
        steps = settle(pace, machine, 1, 60)
        assert all(seconds < 1.25 * MUCH_LONGER * machine.compute(1, 0) for _, seconds in steps)
        assert sum(tokens for tokens, _ in steps) > 40 * LEAST


def test_a_machine_on_which_every_fifth_step_stalls() -> None:
    """What counts is what most steps take."""
    machine = Machine()
    pace = known(machine)
    quick = machine.compute(1, 0)
    for step in range(400):
        tokens = pace.prompt_tokens(1) if step >= 200 else 0
        seconds = machine.compute(1, tokens)
        assert seconds < 1.25 * MUCH_LONGER * quick
        pace.took(seconds + 2.0 * (step % 5 == 0), generating=1, prompt_tokens=tokens)


def test_while_a_prompt_is_read_no_step_takes_much_longer_than_others() -> None:
    machine = Machine()
    sizes = {"num_ctx": 8192, "cells": 16384, "num_batch": 512, "max_sequences": 4}
    loop = BatchLoop(TimedEngine(machine, **sizes), clock=lambda: machine.now)
    for id in (1, 2):
        loop.add(Job(id=id, tokens=[2, 3, id], sampling=SamplingOptions(num_predict=2000)))
    alone = sorted(gaps(loop, machine, 50))[25]
    loop.add(Job(id=3, tokens=[5] * 4000, sampling=SamplingOptions(num_predict=5)))
    beside: list[float] = []
    while loop.state.cells_used < 4000:
        beside += gaps(loop, machine, 1)
        assert len(beside) < 4000 / LEAST
    typical = sorted(beside)[len(beside) // 2]
    assert max(beside) < 1.5 * typical < 1.5 * MUCH_LONGER * alone
    assert sum(beside) < 3 * 4000 * machine.token + len(beside) * machine.base


def crowd(machine: Machine, *prompts: int) -> BatchLoop:
    """One sequence that generates, and then so many prompts at once."""
    sizes = {"num_ctx": 8192, "cells": 65536, "num_batch": 512, "max_sequences": 16}
    loop = BatchLoop(TimedEngine(machine, **sizes), clock=lambda: machine.now)
    loop.add(Job(id=1, tokens=[2, 3, 1], sampling=SamplingOptions(num_predict=20_000)))
    gaps(loop, machine, 1)
    for id, length in enumerate(prompts, 2):
        loop.add(Job(id=id, tokens=[id] * length, sampling=SamplingOptions(num_predict=1)))
    return loop


def test_many_prompts_teach_the_pace_as_few_do() -> None:
    """Each has one token of a step at first, and is not one that generates for that."""
    machine = Machine(base=0.01, each=0.0)
    loop = crowd(machine, *[1000] * 15)
    began = machine.now
    gaps(loop, machine, 1)
    while loop.state.running > 1:
        gaps(loop, machine, 1)
    # With the first guess, 16 tokens, in each step it would be 13.
    assert machine.now - began < 5


def test_a_long_prompt_gets_its_turn_among_short_ones() -> None:
    """Where a step has fewer tokens than there are prompts."""
    machine = Machine(base=0.05, each=0.0, token=0.05)
    loop = crowd(machine, 500, *[100] * 14)
    steps, id = 0, 100
    gaps(loop, machine, 1)
    long = next(seq for seq in loop._running.values() if seq.id == 2)
    while long.computed < 300:
        gaps(loop, machine, 1)
        steps += 1
        for _ in range(16 - loop.state.running - loop.state.waiting):
            id += 1
            loop.add(Job(id=id, tokens=[id] * 100, sampling=SamplingOptions(num_predict=1)))
        assert steps < 300 * 15 / LEAST * 1.5


def gaps(loop: BatchLoop, machine: Machine, steps: int) -> list[float]:
    found = []
    for _ in range(steps):
        before = machine.now
        loop.step()
        found.append(machine.now - before)
    return found
