"""What sequences share in the batch loop, over an engine that counts every cell.

What the engine draws depends on every token before, so that cells that were mixed up or left out show in the output.
"""

from __future__ import annotations

import logging
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corectl.errors import EngineError
from corectl.messages import SamplingOptions
from corectl.runner.job import Job
from corectl.runner.loop import BatchLoop
from corectl.runner.pool import WORTHWHILE
from corectl.runner.vision import IMAGE, ImageSpan
from tests.core.fake import FakeEngine, SharingEngine, engine_info
from tests.core.test_batch_loop import Outcome, run

BIG = {"num_ctx": 4096, "cells": 8192, "num_batch": 512, "max_sequences": 8, "idle_sequences": 8}
MEBIBYTE = 1 << 20


def text(start: int, length: int) -> list[int]:
    """Tokens that differ from those of other starts from the first on."""
    return [2 + (start * 37 + place * 11) % 200 for place in range(length)]


def job(id: int, tokens: list[int], *, predict: int = 4, salt: str = "", **how: Any) -> Job:
    sampling = SamplingOptions(num_predict=predict, num_keep=how.pop("keep", 4))
    return Job(id=id, tokens=tokens, sampling=sampling, cache_salt=salt, **how)


class Stage:
    """A loop that lives on from job to job."""

    def __init__(self, *, snapshots: int = MEBIBYTE, window: int = 0, recurrent: bool = False, **sizes: Any):
        info = engine_info(**{**BIG, **sizes})
        self.engine = SharingEngine(info, window=window, recurrent=recurrent)
        self.loop = BatchLoop(self.engine, snapshots=snapshots)
        self.outcome = Outcome(self.loop)

    def add(self, *jobs: Job) -> None:
        for item in jobs:
            self.loop.add(item)

    def run(self, *jobs: Job) -> list[list[int]]:
        """Runs until nothing is left; what the jobs gave."""
        self.add(*jobs)
        self.outcome.drain()
        self.check()
        for item in jobs:
            assert self.outcome.ended[item.id].error is None
        return [self.outcome.tokens.get(item.id, []) for item in jobs]

    def check(self) -> None:
        state = self.loop.state
        assert self.engine.violations == []
        assert state.cells_used == self.engine.used <= state.cells
        assert state.snapshot_bytes >= 0
        if self.loop.idle:
            assert self.engine.running == set() and state.cells_idle == state.cells_used
            assert (state.running, state.waiting) == (0, 0)

    @property
    def saved(self) -> list[bytearray]:
        """The states that anybody may begin with."""
        return [snapshot.state for snapshot in self.loop._pool._states._found.values()]

    @property
    def evaluated(self) -> int:
        return sum(output.tokens for output in self.outcome.outputs)

    def cached(self, id: int) -> int:
        return self.outcome.ended[id].usage.cached_tokens


def afresh(item: Job, **sizes: Any) -> list[int]:
    """What a job gives on an engine that shares nothing."""
    return run(item, engine=FakeEngine(engine_info(**{**BIG, **sizes})))[1].tokens.get(item.id, [])


@pytest.mark.parametrize(
    "kind", [{}, {"window": 16}, {"recurrent": True}], ids=["cut", "window", "recurrent"]
)
def test_the_second_turn_of_a_chat_computes_what_is_new(kind: dict[str, Any]) -> None:
    stage = Stage(**kind)
    first = job(1, text(1, 300), predict=20)
    (said,) = stage.run(first)
    before = stage.evaluated
    second = job(2, [*first.tokens, *said, *text(2, 50)], predict=5)
    assert stage.run(second) == [afresh(second)]
    # Of what was drawn, the last token was not computed.
    assert stage.cached(2) == 300 + 20 - 1
    assert stage.evaluated - before == 1 + 50 + 5 - 1


@pytest.mark.parametrize(
    "kind", [{}, {"window": 16}, {"recurrent": True}], ids=["cut", "window", "recurrent"]
)
def test_the_same_prompt_again_computes_its_last_token(kind: dict[str, Any]) -> None:
    stage = Stage(**kind)
    prompt = text(1, 300)
    (first,) = stage.run(job(1, prompt, predict=40))
    assert stage.run(job(2, prompt, predict=40)) == [first]
    assert stage.cached(2) == 299


@pytest.mark.parametrize(
    "kind", [{}, {"window": 16}, {"recurrent": True}], ids=["cut", "window", "recurrent"]
)
def test_eight_clients_with_one_system_prompt_compute_it_once(kind: dict[str, Any]) -> None:
    stage = Stage(**kind)
    system = text(1, 2000)
    jobs = [job(number, [*system, *text(10 + number, 30)]) for number in range(1, 9)]
    assert stage.run(*jobs) == [afresh(item) for item in jobs]
    assert stage.evaluated == 2000 + 8 * (30 + 4 - 1)
    assert sorted(stage.cached(item.id) for item in jobs) == [0] + [2000] * 7


def test_clients_that_come_while_the_prompt_is_read_wait_for_it() -> None:
    stage = Stage(num_batch=100)
    system = text(1, 1000)
    stage.add(job(1, [*system, *text(11, 30)]))
    for _ in range(4):
        stage.outcome.step()
    stage.add(*(job(number, [*system, *text(10 + number, 30)]) for number in (2, 3)))
    stage.run()
    assert stage.evaluated == 1000 + 3 * (30 + 4 - 1)


@pytest.mark.parametrize("kind", [{}, {"recurrent": True}], ids=["cut", "recurrent"])
def test_a_leader_that_leaves_holds_up_nobody(kind: dict[str, Any]) -> None:
    stage = Stage(num_batch=100, **kind)
    system = text(1, 1000)
    jobs = [job(number, [*system, *text(10 + number, 30)]) for number in (1, 2, 3)]
    stage.add(*jobs)
    for _ in range(4):
        stage.outcome.step()
    assert stage.loop.state.waiting == 2
    stage.loop.cancel(1)
    stage.run()
    assert [stage.outcome.tokens[number] for number in (2, 3)] == [afresh(item) for item in jobs[1:]]
    # What the first has computed is not lost.
    assert stage.cached(2) == 400
    assert stage.cached(3) == 1000


def test_a_leader_that_fails_holds_up_nobody() -> None:
    stage = Stage(num_batch=100)
    system = text(1, 1000)
    stage.add(*(job(number, [*system, *text(10 + number, 30)]) for number in (1, 2)))
    stage.outcome.step()
    working = stage.engine.step

    def fail(work: Any) -> Any:
        stage.engine.step = working  # type: ignore[method-assign]
        raise EngineError("out of memory")

    stage.engine.step = fail  # type: ignore[method-assign]
    stage.outcome.step()
    stage.run()
    assert stage.outcome.ended[1].error is not None
    assert stage.outcome.ended[2].error is None and stage.cached(2) == 0


def test_nobody_waits_for_little() -> None:
    stage = Stage(num_batch=8)
    system = text(1, WORTHWHILE - 1)
    stage.add(*(job(number, [*system, *text(10 + number, 30)]) for number in (1, 2)))
    stage.outcome.step()
    assert stage.loop.state.running == 2
    stage.run()


def test_salts_share_nothing() -> None:
    stage = Stage()
    prompt = text(1, 300)
    stage.run(*(job(number, prompt, salt=salt) for number, salt in enumerate(("", "a", "b"), 1)))
    assert [stage.cached(number) for number in (1, 2, 3)] == [0, 0, 0]
    stage.run(job(4, prompt, salt="a"))
    assert stage.cached(4) == 299


def test_what_ran_last_is_evicted_last_and_what_runs_never() -> None:
    stage = Stage(cells=1000, num_ctx=1000, snapshots=0)
    prompts = [text(number, 300) for number in range(4)]
    stage.run(*(job(1 + number, prompts[number], predict=1) for number in range(3)))
    stage.run(job(4, prompts[0], predict=1))
    stage.run(job(5, prompts[3], predict=1))
    assert stage.loop.state.evicted_tokens == 300
    # The second had not been used for the longest time.
    stage.run(job(6, prompts[0], predict=1), job(7, prompts[2], predict=1))
    assert [stage.cached(id) for id in (4, 5, 6, 7)] == [299, 0, 299, 299]
    stage.run(job(8, prompts[1], predict=1))
    assert stage.cached(8) == 0
    stage.run(job(9, text(50, 900), predict=90))
    assert stage.loop.state.preempted == 0


def test_no_more_are_kept_than_the_engine_has_places_for() -> None:
    stage = Stage(max_sequences=2, idle_sequences=3)
    for number in range(1, 20):
        stage.run(job(number, text(number, 20), predict=1))
    assert len(stage.engine.kept) == 5
    # They do not keep the others from running.
    stage.add(*(job(100 + number, text(70 + number, 20)) for number in range(2)))
    stage.outcome.step()
    assert stage.loop.state.running == 2
    stage.run()


def test_a_conversation_takes_one_place_however_long_it_is() -> None:
    stage = Stage()
    tokens = text(1, 20)
    for number in range(1, 10):
        tokens = [*tokens, *stage.run(job(number, tokens))[0], *text(number, 5)]
    assert len(stage.engine.kept) == 1


def test_a_request_that_was_cancelled_leaves_what_it_has_computed() -> None:
    stage = Stage(num_batch=50)
    prompt = text(1, 300)
    stage.add(job(1, prompt))
    for _ in range(3):
        stage.outcome.step()
    stage.loop.cancel(1)
    stage.check()
    stage.run(job(2, prompt))
    assert stage.cached(2) == 150


def test_prompts_share_what_is_before_their_first_image() -> None:
    def seen(id: int, before: list[int], handle: int) -> Job:
        span = ImageSpan(start=len(before), cells=20, positions=1, handle=handle)
        return job(id, [*before, *[IMAGE] * 20, *text(5, 10)], spans=(span,))

    stage = Stage()
    before = text(1, 100)
    first, second = stage.run(seen(1, before, IMAGE - 1)), stage.run(seen(2, before, IMAGE - 2))
    assert stage.cached(2) == 100 and first != second
    assert stage.run(job(3, [*before, *text(6, 10)])) == [afresh(job(3, [*before, *text(6, 10)]))]
    assert stage.cached(3) == 100
    assert stage.run(seen(4, before, IMAGE - 1)) == first


@pytest.mark.parametrize("others", ["run", "are kept"])
@pytest.mark.parametrize("snapshots", [0, MEBIBYTE])
def test_a_shift_moves_no_cell_of_others(others: str, snapshots: int) -> None:
    sizes: dict[str, Any] = {"num_ctx": 128, "cells": 512, "can_shift": True}
    stage = Stage(snapshots=snapshots, **sizes)
    prompt = text(1, 100)
    jobs = [job(1, prompt, predict=100 if others == "run" else 2), job(2, prompt, predict=100)]
    assert stage.run(*jobs) == [afresh(item, **sizes) for item in jobs]
    assert stage.outcome.ended[2].shifts > 0 and stage.cached(2) == 99
    assert stage.loop.state.shifts == sum(ended.shifts for ended in stage.outcome.ended.values())
    # What a shift leaves is not what the tokens alone would give.
    assert 2 not in stage.engine.kept


@pytest.mark.parametrize("snapshots", [0, MEBIBYTE])
def test_preempted_sequences_come_back(snapshots: int) -> None:
    sizes: dict[str, Any] = {"num_ctx": 64, "cells": 100, "max_sequences": 4, "worth_saving": 1}
    stage = Stage(snapshots=snapshots, **sizes)
    jobs = [job(number, text(number, 10), predict=40) for number in range(1, 5)]
    assert stage.run(*jobs) == [afresh(item, **sizes) for item in jobs]
    state = stage.loop.state
    assert state.preempted > 0
    computed_again = stage.evaluated - 4 * (10 + 40 - 1)
    if snapshots:
        assert state.restored == state.preempted and computed_again == 0
    else:
        assert state.restored == 0 and computed_again > 0
    # Nothing is put aside any more; what there may be is of kept ones that made room.
    assert state.snapshot_bytes == sum(map(len, stage.saved)) <= snapshots


def test_one_that_is_cancelled_while_it_is_put_aside_leaves_nothing() -> None:
    stage = Stage(num_ctx=64, cells=64)
    stage.add(*(job(number, text(number, 20), predict=40) for number in (1, 2)))
    while not stage.loop.state.preempted:
        stage.outcome.step()
    assert stage.loop.state.snapshot_bytes > 0
    stage.loop.cancel(2)
    assert stage.loop.state.snapshot_bytes == 0
    stage.run()
    assert set(stage.outcome.ended) == {1}


def test_most_of_it_shared_is_copied_again_instead_of_restored() -> None:
    stage = Stage(num_ctx=256, cells=250)
    jobs = [job(number, [*text(1, 150), number], predict=60) for number in (1, 2)]
    assert stage.run(*jobs) == [afresh(item) for item in jobs]
    assert stage.loop.state.preempted > 0 and stage.loop.state.restored == 0
    assert stage.evaluated < 150 + 2 * 60 + 60 + 5


@pytest.mark.parametrize("kind", [{"window": 16}, {"recurrent": True}], ids=["window", "recurrent"])
def test_a_branch_that_was_missed_once_is_saved_for_the_next(kind: dict[str, Any]) -> None:
    stage = Stage(**kind)
    system = text(1, 500)
    for number in range(1, 5):
        item = job(number, [*system, *text(10 + number, 100)], predict=30)
        assert stage.run(item) == [afresh(item)]
    # The second shows where they part, and saves the state there.
    assert [stage.cached(number) for number in range(1, 5)] == [0, 0, 500, 500]


def test_the_log_says_why_a_prompt_was_computed(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "corectl.runner")
    stage = Stage(cells=700, num_ctx=700, snapshots=0)
    prompt = text(1, 300)
    span = ImageSpan(start=100, cells=9, positions=1, handle=IMAGE - 1)
    stage.run(job(1, prompt))
    stage.run(job(2, prompt))
    stage.run(job(3, prompt, salt="mine"))
    stage.run(job(4, [*prompt[:100], *[IMAGE] * 9, 5, 6], spans=(span,)))
    stage.run(job(5, text(2, 600)))
    stage.run(job(6, prompt, predict=200))
    moved = Stage(window=16)
    moved.run(job(7, prompt, predict=40))
    moved.run(job(8, [*prompt[:200], *text(3, 9)]))
    said = [record.getMessage() for record in caplog.records if record.getMessage().startswith("prompt")]
    assert said == [
        "prompt 1: 0 of 300 tokens cached: no prompt began like the rest",
        "prompt 2: 299 of 300 tokens cached: all that can be",
        "prompt 3: 0 of 300 tokens cached: the rest belongs to another cache_salt",
        "prompt 4: 100 of 111 tokens cached: an image is next",
        "prompt 5: 0 of 600 tokens cached: no prompt began like the rest",
        "prompt 6: 0 of 300 tokens cached: the rest was evicted",
        "prompt 7: 0 of 300 tokens cached: no prompt began like the rest",
        "prompt 8: 0 of 209 tokens cached: the memory of this model cannot be taken there",
    ]


JOBS = st.lists(
    st.tuples(
        st.integers(0, 2),  # which text it begins with
        st.integers(0, 90),  # how much of that
        st.integers(1, 30),  # how much of its own
        st.integers(1, 40),  # tokens to generate
        st.sampled_from(["", "", "a"]),
        st.integers(0, 25),  # the step at which it arrives
    ),
    min_size=1,
    max_size=10,
)


@settings(max_examples=150, deadline=None)
@given(
    shapes=JOBS,
    cells=st.integers(128, 400),
    num_batch=st.integers(8, 128),
    places=st.tuples(st.integers(1, 5), st.integers(0, 4)),
    kind=st.sampled_from([{}, {}, {"window": 16}, {"recurrent": True}]),
    can_shift=st.booleans(),
    snapshots=st.sampled_from([0, 300, MEBIBYTE]),
    idle_cells=st.sampled_from([0, 20, 60]),
    cancels=st.lists(st.tuples(st.integers(0, 60), st.integers(1, 10), st.booleans()), max_size=4),
)
def test_nothing_is_lost_or_mixed_up_whatever_is_shared(
    shapes: list[tuple[int, int, int, int, str, int]],
    cells: int,
    num_batch: int,
    places: tuple[int, int],
    kind: dict[str, Any],
    can_shift: bool,
    snapshots: int,
    idle_cells: int,
    cancels: list[tuple[int, int, bool]],
) -> None:
    sizes: dict[str, Any] = {
        "num_ctx": 128,
        "num_batch": num_batch,
        "can_shift": can_shift,
        "max_sequences": places[0],
    }
    idle: dict[str, Any] = {"idle_sequences": places[1], "idle_cells": idle_cells}
    stage = Stage(snapshots=snapshots, cells=cells, **idle, **sizes, **kind)
    jobs = {}
    arrivals: dict[int, list[Job]] = {}
    for number, (start, shared, own, predict, salt, when) in enumerate(shapes, 1):
        tokens = [*text(start, shared), *text(20 + number, own)]
        jobs[number] = job(number, tokens, predict=predict, salt=salt)
        arrivals.setdefault(when, []).append(jobs[number])
    left = set()
    for step in range(10_000):
        stage.add(*arrivals.pop(step, []))
        for when, number, politely in cancels:
            if when == step and number in jobs and number not in stage.outcome.ended:
                stage.loop.stop(number) if politely else stage.loop.cancel(number)
                left.add(number)
        if not stage.loop.idle:
            stage.outcome.step()
            stage.check()
        elif stage.loop.tidy():
            stage.check()
        elif not arrivals:
            break
    assert stage.loop.idle and not arrivals
    for number, item in jobs.items():
        expected = afresh(item, **sizes)
        given_tokens = stage.outcome.tokens.get(number, [])
        if number in left:
            assert given_tokens == expected[: len(given_tokens)]
        else:
            assert given_tokens == expected and stage.outcome.ended[number].error is None
    state = stage.loop.state
    stage.loop.add(job(1000, text(90, 100), predict=1))
    stage.outcome.drain()
    assert stage.outcome.ended[1000].error is None
    assert state.cached_tokens <= state.prompt_tokens
