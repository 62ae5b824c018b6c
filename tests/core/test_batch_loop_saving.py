"""What becomes of kept sequences in the batch loop: when they go to the machine's memory, and how they come back."""

from __future__ import annotations

from typing import Any

import pytest

from corectl.runner.pool import DEAR, WORTH_A_STEP, WORTHWHILE
from tests.core.test_batch_loop_sharing import Stage, afresh, job, text


def test_what_made_room_begins_again_from_the_machines_memory() -> None:
    stage = Stage(cells=1000, num_ctx=1000)
    prompts = [text(number, 600) for number in range(3)]
    expected = [afresh(job(1, prompt)) for prompt in prompts]
    for id, number in enumerate((0, 1, 2, 1, 0)):
        assert stage.run(job(1 + id, prompts[number])) == [expected[number]]
    assert [stage.cached(id) for id in range(1, 6)] == [0, 0, 0, 599, 599]
    # A part of what was saved will do as well.
    branch = job(6, [*prompts[2][:400], *text(9, 50)])
    assert stage.run(branch) == [afresh(branch)] and stage.cached(6) == 400


def test_a_few_tokens_are_not_worth_a_state() -> None:
    stage = Stage(cells=1000, num_ctx=1000)
    stage.run(job(1, text(1, 600)))
    stage.run(job(2, text(2, 900)))
    stage.run(job(3, [*text(1, WORTHWHILE - 1), *text(3, 50)]))
    assert stage.cached(3) == 0
    stage.run(job(4, [*text(1, 200), *text(4, 50)]))
    assert stage.cached(4) == 200


@pytest.mark.parametrize("kind", [{}, {"window": 16}], ids=["cut", "window"])
def test_where_copies_are_slow_what_makes_room_is_computed_again(kind: dict[str, Any]) -> None:
    sizes: dict[str, Any] = {"num_ctx": 300, "cells": 500, "worth_saving": 2**31}
    stage = Stage(**sizes, **kind)
    saves: list[int] = []
    save = stage.engine.save
    stage.engine.save = lambda id: saves.append(id) or save(id)  # type: ignore[method-assign,func-returns-value]
    # The first two do not fit side by side to their ends, and the third takes the place of both.
    jobs = [job(1, text(1, 30), predict=260), job(2, text(2, 30), predict=260)]
    assert stage.run(*jobs) == [afresh(item, **sizes) for item in jobs]
    stage.run(job(3, text(3, 299)))
    state = stage.loop.state
    assert state.preempted > 0 and state.restored == 0 and state.evicted_tokens > 0
    # What a prompt is read up to is saved all the same, for those that branch off there.
    assert not {1, 2} & set(saves)


def test_a_longer_state_stands_for_shorter_ones() -> None:
    stage = Stage(cells=1000, num_ctx=1000)
    tokens = text(1, 300)
    for number in range(3):
        tokens = [*tokens, *stage.run(job(1 + number, tokens))[0], *text(number, 50)]
        stage.run(job(10 + number, text(90 + number, 950)))
        of_the_chat = [
            state for state in stage.loop._pool._states._found.values() if state.tokens[0] == tokens[0]
        ]
        assert len(of_the_chat) == 1


@pytest.mark.parametrize("kind", [{}, {"window": 16}], ids=["cut", "window"])
def test_kept_cells_do_not_slow_down_those_that_run(kind: dict[str, Any]) -> None:
    stage = Stage(idle_cells=100, **kind)
    prompts = [text(number, 300) for number in range(4)]
    expected = [afresh(job(1, prompt)) for prompt in prompts]
    for number, prompt in enumerate(prompts):
        stage.run(job(1 + number, prompt))
    assert stage.loop.state.cells_idle >= 300, "the latest stays, as long as nobody runs"
    stage.add(job(10, text(50, 40), predict=60))
    for _ in range(20):
        stage.outcome.step()
    assert stage.loop.state.cells_idle <= 100
    stage.run()
    again = [job(20 + number, prompt) for number, prompt in enumerate(prompts)]
    assert [stage.run(item)[0] for item in again] == expected
    assert [stage.cached(item.id) for item in again] == [299] * 4


@pytest.mark.parametrize("kind", [{}, {"window": 16}], ids=["cut", "window"])
def test_what_is_saved_while_nothing_runs_costs_no_step_anything(kind: dict[str, Any]) -> None:
    stage = Stage(idle_cells=100, **kind)
    prompts = [text(number, 300) for number in range(4)]
    for number, prompt in enumerate(prompts):
        stage.run(job(1 + number, prompt))
    while stage.loop.tidy():
        pass
    assert stage.loop.state.cells_idle >= 300, "what is saved stays as long as nobody runs"
    saves: list[int] = []
    save = stage.engine.save
    stage.engine.save = lambda id: saves.append(id) or save(id)  # type: ignore[method-assign,func-returns-value]
    stage.add(job(10, text(50, 2000), predict=5))
    stage.outcome.step()
    assert stage.loop.state.cells_idle <= 100 and not saves
    stage.run()
    assert stage.loop.state.evicted_tokens == 0
    stage.run(*(job(20 + number, prompt) for number, prompt in enumerate(prompts)))
    assert [stage.cached(20 + number) for number in range(4)] == [299] * 4


def test_what_is_quickly_saved_need_not_wait_for_a_pause() -> None:
    stage = Stage(idle_cells=100, snapshots=1 << 30)
    stage.run(job(1, text(1, 300)), job(2, text(2, 300)))
    saved: list[int] = []
    save = stage.engine.save
    stage.engine.save = lambda id: saved.append(id) or save(id)  # type: ignore[method-assign,func-returns-value]
    stage.engine.state_size = lambda id: 8 << 20 if id == 1 else 2 << 20  # type: ignore[method-assign]
    assert stage.loop.tidy(quick=True) and not stage.loop.tidy(quick=True)
    assert saved == [2]
    assert stage.loop.tidy() and not stage.loop.tidy()
    assert saved == [2, 1]


def test_no_text_is_held_back_while_states_are_saved_or_restored() -> None:
    """Whoever holds output is told before a state is copied, which may take long."""
    stage = Stage(idle_cells=100, cells=1000, num_ctx=1000)
    told = False
    copies: list[bool] = []

    def tell(long: bool) -> None:
        nonlocal told
        told = long

    def noting(work: Any) -> Any:
        def noted(*arguments: Any) -> Any:
            copies.append(told)
            return work(*arguments)

        return noted

    stage.engine.save = noting(stage.engine.save)  # type: ignore[method-assign]
    stage.engine.restore = noting(stage.engine.restore)  # type: ignore[method-assign]
    arrivals = {0: 1, 3: 2, 400: 1, 500: 2}
    for step in range(3000):
        if step in arrivals:
            number = arrivals[step]
            stage.add(job(step, text(number, 450), predict=300))
        if not stage.loop.idle:
            told = False
            stage.loop.step(tell)
    assert stage.loop.idle and stage.loop.state.preempted
    assert len(copies) >= 4 and all(copies)


def test_nothing_is_thrown_away_for_the_sake_of_speed() -> None:
    """There is room for one state only: the other one stays in the pool."""
    stage = Stage(idle_cells=50, snapshots=600)
    for number in range(2):
        stage.run(job(1 + number, text(number, 300)))
    stage.run(job(10, text(50, 40), predict=60))
    for number in range(2):
        stage.run(job(20 + number, text(number, 300)))
    assert [stage.cached(20 + number) for number in range(2)] == [299] * 2


@pytest.mark.parametrize("pause", [True, False], ids=["after a pause", "at once"])
def test_where_many_have_stayed_the_oldest_states_go_instead(pause: bool) -> None:
    """There is room for two states, and a hundredth of a cell costs too much."""
    stage = Stage(idle_cells=1, snapshots=1500)
    prompts = [text(number, 300) for number in range(6)]
    for number, prompt in enumerate(prompts):
        stage.run(job(1 + number, prompt))
        while pause and stage.loop.tidy():
            pass
    stage.add(job(10, text(50, 40), predict=60))
    for _ in range(20):
        stage.outcome.step()
    assert 0 < stage.loop.state.snapshot_bytes <= 1500
    assert stage.loop.state.cells_idle <= DEAR
    stage.run()
    stage.run(*(job(20 + number, prompt) for number, prompt in enumerate(prompts[4:])))
    assert [stage.cached(20 + number) for number in range(2)] == [299] * 2, "the latest"
    stage.run(job(30, prompts[0]))
    assert stage.cached(30) == 0


def test_a_pause_in_which_not_all_states_fit_has_an_end() -> None:
    stage = Stage(idle_cells=1, snapshots=1500)
    prompts = [text(number, 300) for number in range(6)]
    stage.run(*(job(1 + number, prompt) for number, prompt in enumerate(prompts)))
    saved: list[int] = []
    save = stage.engine.save
    stage.engine.save = lambda id: saved.append(id) or save(id)  # type: ignore[method-assign,func-returns-value]
    while stage.loop.tidy():
        assert len(saved) <= len(prompts)
    assert sorted(saved) == sorted(set(saved))
    # What has ended since is worth another look.
    stage.run(job(10, text(20, 300)))
    assert stage.loop.tidy()


def test_what_cannot_be_saved_stays_although_it_costs_time() -> None:
    stage = Stage(idle_cells=100, snapshots=100)
    stage.run(job(1, text(1, 300)))
    stage.run(job(2, text(2, 300), predict=20))
    assert stage.loop.state.snapshot_bytes == 0
    stage.run(job(3, text(1, 300)))
    assert stage.cached(3) == 299


@pytest.mark.parametrize(
    "kind", [{}, {"window": 16}, {"recurrent": True}], ids=["cut", "window", "recurrent"]
)
def test_states_never_take_more_memory_than_they_may(kind: dict[str, Any]) -> None:
    stage = Stage(cells=1000, num_ctx=1000, snapshots=2000, idle_cells=50, **kind)
    sizes: list[int] = []
    save = stage.engine.save

    def watched(id: int) -> bytearray | None:
        state = save(id)
        sizes.append(stage.loop.state.snapshot_bytes + len(state or b""))
        return state

    stage.engine.save = watched  # type: ignore[method-assign]
    for number in range(12):
        stage.run(job(2 * number, text(number, 400)), job(2 * number + 1, text(number + 40, 300)))
    assert len(sizes) > 10 and max(sizes) <= 2000


@pytest.mark.parametrize("kind", [{"window": 16}, {"recurrent": True}], ids=["window", "recurrent"])
def test_states_never_take_more_than_they_may(kind: dict[str, Any]) -> None:
    stage = Stage(snapshots=1500, **kind)
    for number in range(1, 30):
        item = job(number, text(number % 7, 40 * (1 + number % 5)), predict=3)
        assert stage.run(item) == [afresh(item)]
        assert stage.loop.state.snapshot_bytes <= 1500
    assert stage.loop.state.snapshot_bytes > 0


def test_a_short_prompt_takes_no_step_more_before_it_comes_again() -> None:
    """Where memory cannot be cut, a state is saved in a step that ends before a prompt's last token."""
    stage = Stage(window=16)
    prompt = text(1, WORTH_A_STEP - 1)
    steps = []
    for number in range(3):
        # What was only kept is gone each time: there is room for one.
        stage.run(job(10 + number, text(90 + number, 4000), predict=20))
        stage.run(job(20 + number, text(95 + number, 4000), predict=20))
        before = len(stage.outcome.outputs)
        stage.run(job(1 + number, prompt, predict=1))
        steps.append(len(stage.outcome.outputs) - before)
    assert (steps, [stage.cached(1 + number) for number in range(3)]) == ([1, 2, 1], [0, 0, WORTH_A_STEP - 2])


def test_a_long_prompt_is_saved_at_once() -> None:
    stage = Stage(window=16)
    stage.run(job(1, text(1, WORTH_A_STEP + 1), predict=1))
    assert len(stage.outcome.outputs) == 2 and len(stage.saved) == 1
