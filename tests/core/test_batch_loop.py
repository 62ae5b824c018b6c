"""The batch loop over an engine that is strict about positions, cells and sizes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corectl.errors import BadRequest, EngineError
from corectl.messages import SamplingOptions
from corectl.runner.engine import Sampled, SequenceSpec, Work
from corectl.runner.job import Ended, Job, StepOutput
from corectl.runner.loop import BatchLoop
from tests.core.fake import EOS, FakeEngine, engine_info, letters

PATIENCE = 20_000


def job(id: int, length: int = 5, *, predict: int = 8, shift: bool = True, keep: int = 4) -> Job:
    sampling = SamplingOptions(num_predict=predict, num_keep=keep)
    return Job(id=id, tokens=[10 + id + place % 7 for place in range(length)], sampling=sampling, shift=shift)


class Outcome:
    """Runs a loop to its end and keeps what every sequence gave."""

    def __init__(self, loop: BatchLoop) -> None:
        self.loop = loop
        self.tokens: dict[int, list[int]] = {}
        self.ended: dict[int, Ended] = {}
        self.outputs: list[StepOutput] = []

    def step(self) -> StepOutput:
        output = self.loop.step()
        self.outputs.append(output)
        for sampled in output.sampled:
            assert sampled.id not in self.ended, "a token after the end"
            self.tokens.setdefault(sampled.id, []).append(sampled.token)
        for ended in output.ended:
            assert ended.id not in self.ended, "ended twice"
            self.ended[ended.id] = ended
        return output

    def drain(self) -> Outcome:
        for _ in range(PATIENCE):
            if self.loop.idle:
                return self
            self.step()
        raise AssertionError("the loop does not come to an end")


def run(*jobs: Job, engine: FakeEngine | None = None, **sizes: Any) -> tuple[FakeEngine, Outcome]:
    engine = engine or FakeEngine(engine_info(**sizes))
    loop = BatchLoop(engine)
    for item in jobs:
        loop.add(item)
    outcome = Outcome(loop).drain()
    assert engine.violations == [] and engine.caches == {}
    return engine, outcome


def alone(item: Job, **sizes: Any) -> list[int]:
    return run(item, **sizes)[1].tokens[item.id]


def test_usage_counts_prompt_and_output() -> None:
    _, outcome = run(job(1, 5, predict=8))
    ended = outcome.ended[1]
    assert ended.reason == "length" and ended.error is None
    assert (ended.usage.prompt_tokens, ended.usage.output_tokens) == (5, 8)
    assert ended.usage.prompt_ns > 0 and ended.usage.output_ns > 0
    assert len(outcome.tokens[1]) == 8


def test_an_end_token_ends_and_is_not_shown() -> None:
    engine = FakeEngine(engine_info(), draw=lambda tokens: EOS if len(tokens) == 7 else letters(tokens))
    _, outcome = run(job(1, 5), engine=engine)
    assert outcome.ended[1].reason == "stop"
    assert len(outcome.tokens[1]) == 2
    assert outcome.ended[1].usage.output_tokens == 3


def test_num_predict_is_bounded_by_ten_contexts() -> None:
    for predict in (-1, 0, 10**6):
        _, outcome = run(job(1, predict=predict), num_ctx=8, cells=8, can_shift=True)
        assert outcome.ended[1].reason == "length"
        assert outcome.ended[1].usage.output_tokens == 80


def test_a_job_with_a_shorter_context_keeps_to_it() -> None:
    def asked(**how: Any) -> Job:
        return msgspec.structs.replace(job(1, 10, predict=-1, **how), num_ctx=16)

    _, outcome = run(asked(shift=False), num_ctx=64, can_shift=True)
    assert (outcome.ended[1].reason, outcome.ended[1].usage.output_tokens) == ("length", 6)
    _, outcome = run(asked(keep=3), num_ctx=64, can_shift=True)
    assert outcome.ended[1].usage.output_tokens == 160
    assert outcome.ended[1].shifted_tokens == outcome.ended[1].shifts * ((15 - 3) // 2) > 0


def test_sequences_share_steps() -> None:
    _, outcome = run(*(job(number) for number in range(1, 5)))
    assert max(output.sequences for output in outcome.outputs) == 4
    assert len(outcome.outputs) == 8


def test_no_more_than_max_sequences_run_and_the_others_follow_in_order() -> None:
    _, outcome = run(*(job(number, predict=3) for number in range(1, 8)), max_sequences=2)
    assert max(output.sequences for output in outcome.outputs) == 2
    assert list(outcome.ended) == list(range(1, 8))


def test_a_long_prompt_is_read_in_parts() -> None:
    engine, outcome = run(job(1, 63, predict=1), num_batch=10)
    assert [len(step[0].tokens) for step in engine.steps] == [10] * 6 + [3]
    assert [output.tokens for output in outcome.outputs] == [10] * 6 + [3]


def test_a_full_context_without_shift_ends_with_length() -> None:
    for can_shift, shift in ((False, True), (True, False)):
        _, outcome = run(job(1, 10, predict=-1, shift=shift), num_ctx=16, can_shift=can_shift)
        assert outcome.ended[1].reason == "length"
        assert outcome.ended[1].shifts == 0
        assert len(outcome.tokens[1]) == 6


def test_a_shift_keeps_the_first_tokens_and_forgets_half_of_the_rest() -> None:
    _, outcome = run(job(1, 10, predict=7, keep=3), num_ctx=16, can_shift=True)
    ended = outcome.ended[1]
    assert (ended.shifts, ended.shifted_tokens) == (1, (15 - 3) // 2)
    assert len(outcome.tokens[1]) == 7


@pytest.mark.parametrize(("keep", "discarded"), [(-1, 2), (10**6, 1), (0, 7), (4, 5)])
def test_num_keep_never_leaves_a_context_without_room(keep: int, discarded: int) -> None:
    _, outcome = run(job(1, 10, predict=7, keep=keep), num_ctx=16, can_shift=True)
    assert outcome.ended[1].shifted_tokens == discarded


def test_the_begin_token_is_kept_besides_num_keep() -> None:
    engine = FakeEngine(engine_info(num_ctx=16, can_shift=True), adds_bos=True)
    _, outcome = run(job(1, 10, predict=7, keep=3), engine=engine)
    assert outcome.ended[1].shifted_tokens == (15 - 4) // 2


def test_the_smallest_context_generates_on() -> None:
    _, outcome = run(job(1, 3, predict=-1), num_ctx=4, cells=4, can_shift=True)
    assert outcome.ended[1].usage.output_tokens == 40


def test_a_shift_lets_those_in_who_wait_for_cells() -> None:
    loop = BatchLoop(FakeEngine(engine_info(num_ctx=16, cells=32, can_shift=True)))
    outcome = Outcome(loop)
    for number in (1, 2):
        loop.add(job(number, 10, predict=-1))
    while loop.state.cells_used < 28:
        outcome.step()
    loop.add(job(3, 8, predict=2))
    outcome.step()
    assert 3 not in outcome.tokens, "there is no room yet"
    while 3 not in outcome.ended:
        outcome.step()
    assert len(outcome.tokens[1]) < 32, "it did not wait until another had ended"
    assert outcome.drain().ended[1].usage.output_tokens == 160


def test_preempted_sequences_give_what_they_would_have_given_alone() -> None:
    jobs = [job(number, 10, predict=40) for number in range(1, 5)]
    _, outcome = run(*jobs, cells=64)
    for item in jobs:
        assert outcome.tokens[item.id] == alone(item)
    recomputed = sum(output.tokens for output in outcome.outputs) - 4 * (10 + 40 - 1)
    assert recomputed > 0, "nothing was preempted: the test does not test it"


def test_cancel_frees_at_once_and_only_that_one() -> None:
    engine = FakeEngine(engine_info(max_sequences=2))
    loop = BatchLoop(engine)
    for number in (1, 2, 3):
        loop.add(job(number))
    outcome = Outcome(loop)
    outcome.step()
    loop.cancel(1)
    assert set(engine.caches) == {2}
    loop.cancel(99)
    loop.cancel(1)
    outcome.drain()
    assert set(outcome.ended) == {2, 3} and engine.caches == {}


def test_cancel_of_one_that_waits_never_reaches_the_engine() -> None:
    engine = FakeEngine(engine_info(max_sequences=1))
    loop = BatchLoop(engine)
    loop.add(job(1, predict=2))
    loop.add(job(2))
    loop.cancel(2)
    outcome = Outcome(loop).drain()
    assert set(outcome.ended) == {1}
    assert {work.id for step in engine.steps for work in step} == {1}


def test_stop_ends_with_usage_and_only_once() -> None:
    engine = FakeEngine(engine_info())
    loop = BatchLoop(engine)
    loop.add(job(1))
    outcome = Outcome(loop)
    outcome.step()
    outcome.step()
    ended = loop.stop(1)
    assert ended is not None
    assert (ended.reason, ended.usage.output_tokens, ended.usage.prompt_tokens) == ("stop", 2, 5)
    assert loop.idle and engine.caches == {}
    assert loop.stop(1) is None


def test_stop_of_one_that_was_preempted() -> None:
    engine = FakeEngine(engine_info(cells=32, num_ctx=32))
    loop = BatchLoop(engine)
    loop.add(job(1, 10, predict=20))
    loop.add(job(2, 10, predict=20))
    outcome = Outcome(loop)
    while engine.caches.get(2) != [] or not outcome.tokens:
        outcome.step()
    assert loop.stop(2) is not None
    outcome.drain()
    assert engine.caches == {} and set(outcome.ended) == {1}


class Failing(FakeEngine):
    """Raises in its third step."""

    error: Exception = EngineError("out of memory")

    def step(self, work: Sequence[Work]) -> list[Sampled]:
        if len(self.steps) == 2:
            self.steps.append([])
            raise self.error
        return super().step(work)


@pytest.mark.parametrize(
    ("error", "message"),
    [(EngineError("out of memory"), "out of memory"), (ZeroDivisionError("oops"), "ZeroDivisionError: oops")],
)
def test_a_failed_step_ends_what_runs_and_lets_the_waiting_try(error: Exception, message: str) -> None:
    engine = Failing(engine_info(max_sequences=2))
    engine.error = error
    _, outcome = run(*(job(number) for number in (1, 2, 3)), engine=engine)
    for number in (1, 2):
        failure = outcome.ended[number].error
        assert isinstance(failure, EngineError) and failure.message == message
    assert outcome.ended[3].reason == "length" and outcome.ended[3].error is None


class Picky(FakeEngine):
    """Refuses sequence 2."""

    def add(self, sequence: SequenceSpec) -> None:
        if sequence.id == 2:
            raise BadRequest("grammar: not understood")
        super().add(sequence)


@pytest.mark.parametrize("others", [(), (1, 3)])
def test_a_sequence_that_the_engine_refuses_fails_alone(others: tuple[int, ...]) -> None:
    jobs = [job(number) for number in sorted((2, *others))]
    _, outcome = run(*jobs, engine=Picky(engine_info()))
    failure = outcome.ended[2].error
    assert isinstance(failure, BadRequest) and failure.message == "grammar: not understood"
    assert all(outcome.ended[number].error is None for number in others)
    assert set(outcome.ended) == {2, *others}


def test_a_pool_that_is_smaller_than_a_context_ends_with_an_error_not_a_hang() -> None:
    _, outcome = run(job(1, 5, predict=30), cells=16, num_ctx=64)
    failure = outcome.ended[1].error
    assert isinstance(failure, EngineError) and "too small" in failure.message
    assert len(outcome.tokens[1]) == 16 - 5 + 1


JOBS = st.lists(
    st.tuples(st.integers(1, 31), st.integers(1, 60), st.integers(-1, 20), st.booleans()),
    min_size=1,
    max_size=9,
)


@settings(max_examples=60, deadline=None)
@given(
    shapes=JOBS,
    cells=st.integers(32, 100),
    num_batch=st.integers(1, 48),
    slots=st.integers(1, 5),
    can_shift=st.booleans(),
    cancels=st.lists(st.tuples(st.integers(0, 40), st.integers(1, 9), st.booleans()), max_size=4),
)
def test_nothing_is_lost_whatever_the_sizes(
    shapes: list[tuple[int, int, int, bool]],
    cells: int,
    num_batch: int,
    slots: int,
    can_shift: bool,
    cancels: list[tuple[int, int, bool]],
) -> None:
    """Every sequence ends once, with the tokens that it gives alone, unless it was cancelled or stopped."""
    sizes = {"num_ctx": 32, "num_batch": num_batch, "max_sequences": slots, "can_shift": can_shift}
    jobs = {
        number: job(number, length, predict=predict, keep=keep, shift=shift)
        for number, (length, predict, keep, shift) in enumerate(shapes, 1)
    }
    engine = FakeEngine(engine_info(cells=cells, **sizes))
    outcome = Outcome(BatchLoop(engine))
    for item in jobs.values():
        outcome.loop.add(item)
    left = set()
    for step in range(PATIENCE):
        if outcome.loop.idle:
            break
        for when, number, politely in cancels:
            if when == step and number in jobs and number not in outcome.ended:
                outcome.loop.stop(number) if politely else outcome.loop.cancel(number)
                left.add(number)
        if not outcome.loop.idle:
            outcome.step()
    assert outcome.loop.idle and engine.violations == [] and engine.caches == {}
    assert set(outcome.ended) == set(jobs) - left
    for number, item in jobs.items():
        expected = alone(item, cells=32, **sizes)
        tokens = outcome.tokens.get(number, [])
        assert tokens == (expected[: len(tokens)] if number in left else expected)
        assert number in left or outcome.ended[number].error is None
