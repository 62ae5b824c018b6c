"""Images in the batch loop: whole, encoded in time, and nobody else's trouble."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from corectl.errors import EngineError
from corectl.messages import SamplingOptions
from corectl.runner.engine import SequenceSpec
from corectl.runner.job import Job
from corectl.runner.loop import BatchLoop
from corectl.runner.vision import IMAGE, ImageSpan
from tests.core.fake import FakeEngine, FakeVision, engine_info
from tests.core.test_batch_loop import Outcome, alone, run


def job(id: int, *parts: int, predict: int = 8, shift: bool = True) -> Job:
    """Parts are texts of so many tokens, and below 0 images of so many cells. The last one is a text."""
    tokens: list[int] = []
    spans: list[ImageSpan] = []
    for part in parts:
        if part < 0:
            handle = IMAGE - 10 * id - len(spans)
            spans.append(ImageSpan(start=len(tokens), cells=-part, positions=1, handle=handle))
        tokens += [IMAGE] * -part if part < 0 else [10 + id + place % 7 for place in range(part)]
    return Job(
        id=id, tokens=tokens, spans=tuple(spans), sampling=SamplingOptions(num_predict=predict), shift=shift
    )


def test_images_and_texts_of_one_prompt_follow_each_other() -> None:
    engine, outcome = run(job(1, 3, -20, 40, -5, -6, 2), num_ctx=100, num_batch=32)
    sizes = [len(work[0].tokens) for work in engine.steps]
    assert sizes[:6] == [3, 20, 32, 8, 5, 6]
    assert engine.vision.encoded == {IMAGE - 10, IMAGE - 11, IMAGE - 12}
    assert outcome.ended[1].usage.prompt_tokens == 76
    assert len(outcome.tokens[1]) == 8


def test_the_engine_hears_of_text_only_for_its_penalties() -> None:
    heard: list[SequenceSpec] = []

    class Listening(FakeEngine):
        def add(self, sequence: SequenceSpec) -> None:
            heard.append(sequence)
            super().add(sequence)

    work = job(1, 2, -4, 3)
    run(work, engine=Listening(engine_info()))
    assert heard[0].prompt == tuple(token for token in work.tokens if token != IMAGE)


def test_a_sequence_with_images_is_not_shifted() -> None:
    _, outcome = run(job(1, 3, -20, 40, predict=1000), can_shift=True)
    assert (outcome.ended[1].reason, outcome.ended[1].shifts) == ("length", 0)
    assert len(outcome.tokens[1]) == 1


def test_others_go_on_while_an_image_is_read() -> None:
    engine, _ = run(job(1, 5, predict=20), job(2, -30, 4), job(3, -30, 4), num_batch=32)
    with_images = [work for work in engine.steps if any(item.image for item in work)]
    assert len(with_images) == 2
    assert all(any(item.id == 1 for item in work) for work in with_images)


def test_an_image_that_fails_takes_its_sequence_only() -> None:
    class Blind(FakeVision):
        def encode(self, span: ImageSpan) -> None:
            if span.handle == IMAGE - 20:
                raise EngineError("too bright")
            super().encode(span)

    engine = FakeEngine(engine_info(num_batch=32))
    engine.vision = Blind()
    loop = BatchLoop(engine)
    for item in (job(1, 5), job(2, 2, -9, 4), job(3, -9, 4)):
        loop.add(item)
    outcome = Outcome(loop).drain()
    assert engine.violations == [] and engine.caches == {}
    error = outcome.ended[2].error
    assert error is not None and error.message == "too bright" and 2 not in outcome.tokens
    assert [outcome.ended[id].reason for id in (1, 3)] == ["length", "length"]


def test_cancelled_between_two_images() -> None:
    engine = FakeEngine(engine_info())
    loop = BatchLoop(engine)
    loop.add(job(1, 1, -9, 2, -9, 4))
    for _ in range(3):
        loop.step()
    loop.cancel(1)
    assert loop.idle and engine.caches == {}
    assert engine.vision.encoded == {IMAGE - 10}


PARTS = st.lists(st.integers(-12, 9).filter(bool), max_size=3).map(lambda parts: (*parts, 2))


@settings(max_examples=60)
@given(
    shapes=st.lists(st.tuples(PARTS, st.integers(1, 12)), min_size=1, max_size=5),
    cells=st.integers(64, 120),
    num_batch=st.integers(1, 32),
    slots=st.integers(1, 4),
)
def test_nothing_is_lost_whatever_the_sizes(
    shapes: Sequence[tuple[Sequence[int], int]], cells: int, num_batch: int, slots: int
) -> None:
    jobs = [job(number, *parts, predict=predict) for number, (parts, predict) in enumerate(shapes, 1)]
    _, outcome = run(*jobs, cells=cells, num_batch=num_batch, max_sequences=slots)
    for item in jobs:
        assert outcome.ended[item.id].error is None
        assert outcome.tokens.get(item.id, []) == alone(item, num_batch=num_batch)
