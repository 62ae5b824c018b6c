"""The step planner: pure, so every decision is checked on many random situations."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from corectl.runner.plan import PROMPTS_CHUNK, Plan, Progress, plan_step
from corectl.runner.vision import IMAGE, ImageSpan

CHUNK = 64


def seq(id: int, computed: int, pending: int) -> Progress:
    return Progress(
        id=id, tokens=[id * 1000 + place for place in range(computed + pending)], computed=computed
    )


def illustrated(id: int, *parts: int, computed: int = 0, positions: int = 2) -> Progress:
    """A prompt of texts and images: a part below 0 is an image of so many cells."""
    tokens: list[int] = []
    spans: list[ImageSpan] = []
    for part in parts:
        if part < 0:
            spans.append(ImageSpan(start=len(tokens), cells=-part, positions=positions, handle=None))
        tokens += [IMAGE] * -part if part < 0 else [7] * part
    return Progress(id=id, tokens=tokens, computed=computed, spans=tuple(spans))


def step(running: Sequence[Progress], *, free_cells: int, num_batch: int, chunk: int = CHUNK) -> Plan:
    return plan_step(running, free_cells=free_cells, num_batch=num_batch, chunk=lambda generating: chunk)


def counts(plan: Plan) -> dict[int, int]:
    return {work.id: len(work.tokens) for work in plan.work}


def test_a_prompt_alone_fills_the_batch() -> None:
    plan = step([seq(1, 0, 700)], free_cells=4096, num_batch=512)
    assert counts(plan) == {1: 512}
    assert not plan.work[0].sample and plan.work[0].position == 0


def test_the_last_part_of_a_prompt_gives_a_token() -> None:
    (work,) = step([seq(1, 512, 188)], free_cells=4096, num_batch=512).work
    assert (work.position, len(work.tokens), work.sample) == (512, 188, True)
    assert list(work.tokens) == [1000 + place for place in range(512, 700)]


def test_prompts_are_read_in_small_parts_while_others_generate() -> None:
    plan = step([seq(1, 10, 1), seq(2, 0, 700), seq(3, 0, 700)], free_cells=4096, num_batch=512)
    assert counts(plan) == {1: 1, 2: CHUNK // 2, 3: CHUNK // 2}


def test_prompts_take_turns_where_there_are_more_than_tokens() -> None:
    running = [seq(1, 10, 1), *(seq(id, 0, 50 * id) for id in range(2, 8))]
    given = [0] * 8
    for turn in range(3):
        plan = plan_step(running, free_cells=4096, num_batch=512, chunk=lambda generating: 4, turn=turn)
        assert plan.generating == 1 and plan.tokens == 5 and plan.reads
        for work in plan.work:
            given[work.id] += len(work.tokens)
    assert given[1:] == [3, 2, 2, 2, 2, 2, 2]


def test_the_chunk_depends_on_how_many_generate() -> None:
    asked: list[int] = []

    def chunk(generating: int) -> int:
        asked.append(generating)
        return 30

    running = [seq(1, 10, 1), seq(2, 10, 1), seq(3, 0, 700)]
    plan = plan_step(running, free_cells=4096, num_batch=512, chunk=chunk)
    assert counts(plan) == {1: 1, 2: 1, 3: 30} and asked == [2]


def test_a_step_without_room_for_prompts() -> None:
    running = [seq(1, 10, 1), seq(2, 0, 700), illustrated(3, -40, 9)]
    assert counts(step(running, free_cells=4096, num_batch=512, chunk=0)) == {1: 1}


def test_a_chunk_ends_at_a_pause() -> None:
    item = Progress(id=1, tokens=[7] * 100, pauses=(30, 99))
    taken = []
    while item.pending:
        (work,) = step([item], free_cells=4096, num_batch=50).work
        taken.append((len(work.tokens), work.sample))
        item.computed += len(work.tokens)
    assert taken == [(30, False), (50, False), (19, False), (1, True)]


def test_short_prompts_share_a_step() -> None:
    plan = step([seq(1, 0, 20), seq(2, 0, 30), seq(3, 0, 900)], free_cells=4096, num_batch=512)
    assert counts(plan) == {1: 20, 2: 30, 3: PROMPTS_CHUNK - 50}
    assert [work.sample for work in plan.work] == [True, True, False]


def test_a_prompt_of_one_token_counts_as_generating() -> None:
    (work,) = step([seq(1, 0, 1)], free_cells=10, num_batch=8).work
    assert (work.position, work.sample) == (0, True)


def test_an_image_is_one_piece_whatever_its_size() -> None:
    seq = illustrated(1, 10, -300, 5)
    taken = []
    while seq.pending:
        (work,) = step([seq], free_cells=4096, num_batch=128).work
        taken.append((len(work.tokens), work.position, work.image is not None, work.sample))
        seq.computed += len(work.tokens)
    # Two positions are what the image counts for.
    assert taken == [(10, 0, False, False), (300, 10, True, False), (5, 12, False, True)]


def test_neighbouring_images() -> None:
    seq = illustrated(1, 1, -4, -4, 1, computed=5)
    (work,) = step([seq], free_cells=64, num_batch=32).work
    assert work.image is seq.spans[1] and (work.position, len(work.tokens)) == (3, 4)


def test_one_image_in_a_step_and_text_beside_it() -> None:
    running = [seq(1, 10, 1), illustrated(2, -40, 9), illustrated(3, -40, 9), seq(4, 0, 900)]
    plan = step(running, free_cells=4096, num_batch=512)
    assert counts(plan) == {1: 1, 2: 40, 4: CHUNK}
    plan = step(running[1:3], free_cells=4096, num_batch=512)
    assert counts(plan) == {2: 40}


def test_an_image_waits_for_cells_and_the_others_go_on() -> None:
    running = [seq(1, 10, 1), illustrated(2, -40, 9)]
    assert counts(step(running, free_cells=40, num_batch=512)) == {1: 1}
    assert counts(step(running, free_cells=41, num_batch=512)) == {1: 1, 2: 40}


def test_the_youngest_gives_way_to_an_image() -> None:
    running = [illustrated(1, -40, 9), illustrated(2, 5, -40, 9, computed=5)]
    assert step(running, free_cells=39, num_batch=512) == Plan(work=(), preempt=2)


def test_the_youngest_gives_way_when_cells_run_out() -> None:
    running = [seq(1, 10, 1), seq(2, 10, 1), seq(3, 10, 1)]
    assert step(running, free_cells=2, num_batch=8) == Plan(work=(), preempt=3)
    assert step(running[:2], free_cells=2, num_batch=8).preempt is None


def test_the_youngest_gives_way_when_no_prompt_can_go_on() -> None:
    assert step([seq(1, 10, 5), seq(2, 10, 5)], free_cells=0, num_batch=8).preempt == 2


def test_the_only_sequence_is_never_preempted() -> None:
    assert step([seq(1, 10, 1)], free_cells=0, num_batch=8) == Plan(work=())


def test_nothing_running_is_nothing_to_do() -> None:
    assert step([], free_cells=8, num_batch=8) == Plan(work=())


SITUATIONS = st.lists(
    st.tuples(st.integers(0, 300), st.one_of(st.just(1), st.integers(1, 300))), min_size=1, max_size=12
)


@given(SITUATIONS, st.integers(0, 400), st.integers(1, 256))
def test_a_plan_never_asks_for_more_than_there_is(
    shapes: list[tuple[int, int]], free: int, num_batch: int
) -> None:
    running = [seq(number, *shape) for number, shape in enumerate(shapes, 1)]
    plan = step(running, free_cells=free, num_batch=num_batch)
    by_id = {item.id: item for item in running}
    assert sum(counts(plan).values()) <= min(free, num_batch)
    assert len(counts(plan)) == len(plan.work)
    for work in plan.work:
        item = by_id[work.id]
        end = item.computed + len(work.tokens)
        assert work.tokens and work.position == item.computed
        assert list(work.tokens) == item.tokens[item.computed : end]
        assert work.sample == (end == len(item.tokens))


@given(SITUATIONS, st.integers(0, 400), st.integers(1, 256))
def test_something_always_moves_on(shapes: list[tuple[int, int]], free: int, num_batch: int) -> None:
    """Either there is work, or the youngest goes, or one sequence alone has filled everything."""
    running = [seq(number, *shape) for number, shape in enumerate(shapes, 1)]
    plan = step(running, free_cells=free, num_batch=num_batch)
    if plan.preempt is not None:
        assert plan.preempt == running[-1].id and len(running) > 1 and not plan.work
    else:
        assert plan.work or (len(running) == 1 and free == 0)


@given(SITUATIONS, st.integers(0, 4000), st.integers(12, 256))
def test_all_that_generate_get_a_token_where_the_batch_is_large_enough(
    shapes: list[tuple[int, int]], free: int, num_batch: int
) -> None:
    running = [seq(number, *shape) for number, shape in enumerate(shapes, 1)]
    plan = step(running, free_cells=free, num_batch=num_batch)
    if plan.preempt is None and (len(running) > 1 or free):
        assert {item.id for item in running if item.pending == 1} <= set(counts(plan))
