"""The MLX backend on the first two layers of SmolLM2: batches, prompts in parts, what moves on, and what is refused."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pytest

from corectl.errors import EngineError
from corectl.messages import SamplingOptions
from corectl.runner.abilities import SequenceMemory
from corectl.runner.engine import (
    Engine,
    SequenceSpec,
    Work,
)
from corectl_mlx.backend import MlxBackend
from corectl_mlx.batches import divided
from corectl_mlx.caches import Rows, trimmed
from tests.backends.mlx_kit import GREEDY, PROMPTS, Driver, alone, load, tokens_of
from tests.forms import Forms

pytest.importorskip("mlx_lm")


@pytest.fixture(scope="module")
def engine(forms: Forms) -> Iterator[Engine]:
    loaded = load(forms.safetensors(2))
    yield loaded
    loaded.close()


def test_it_says_what_it_is_without_loading_anything() -> None:
    says = MlxBackend().availability()
    assert says.usable and says.variant in ("cpu", "metal") and says.version
    assert {"num_gpu", "num_thread", "kv_cache_type"} <= set(says.ignores)


def test_sequences_together_say_what_each_says_alone(engine: Engine) -> None:
    expected = [tokens_of(alone(engine, text)) for text in PROMPTS]
    driver = Driver(engine)
    for id, text in enumerate(PROMPTS):
        driver.add(id, text)
    # They come one by one, and leave one by one.
    driver.step(0)
    driver.step(0, 1)
    driver.step(0, 1, 2)
    for _ in range(8):
        driver.step(*(id for id in range(4) if len(driver.said[id]) < 8))
    while len(driver.said[3]) < 8:
        driver.step(3)
    assert [driver.tokens(id)[:8] for id in range(4)] == expected
    driver.remove(0, 1, 2, 3)


def cells_of(engine: Any) -> int:
    """Cells that the caches of all sequences take, with their padding."""
    own = sum(item.length for item in engine._sequences.values() if item.caches is not None)
    lengths = {id: item.length for id, item in engine._sequences.items()}
    batches = (len(rows.ids) * max(map(lengths.__getitem__, rows.ids)) for rows in engine._batches.rows)
    return int(own + sum(batches))


def test_padding_never_takes_more_than_the_pool_has_counted(forms: Forms) -> None:
    loaded = load(forms.safetensors(2), cells=340, num_batch=512)
    texts = ("word " * 200, *PROMPTS[:3])
    expected = [tokens_of(alone(loaded, text)) for text in texts]
    driver = Driver(loaded)
    for id, text in enumerate(texts):
        driver.add(id, text)
    together = []
    for turn in range(8):
        # One joins later, and one pauses.
        ids = [id for id in range(4) if id != 3 or turn > 1]
        driver.step(*(id for id in ids if id != 1 or turn != 4))
        assert cells_of(loaded) <= 340
        together.append(sorted(len(rows.ids) for rows in loaded._batches.rows))  # type: ignore[attr-defined]
    assert together[0] == [2] and [3] in together, "the short ones are computed together"
    while len(driver.said[3]) < 8 or len(driver.said[1]) < 8:
        driver.step(*(id for id in range(4) if len(driver.said[id]) < 8))
    assert [driver.tokens(id) for id in range(4)] == expected
    loaded.close()


@pytest.mark.parametrize(
    ("lengths", "spare", "groups"),
    [
        ((5,), 0, [{0}]),
        ((5, 5, 5), 0, [{0, 1, 2}]),
        ((9, 5, 5), 8, [{0, 1, 2}]),
        ((9, 5, 5), 7, [{0}, {1, 2}]),
        ((9, 5, 4), 1, [{0}, {1, 2}]),
        ((9, 5, 4), 0, [{0}, {1}, {2}]),
        ((100, 1, 99, 2), 2, [{0, 2}, {1, 3}]),
        ((3, 7), -5, [{0}, {1}]),
        ((7, 7), -5, [{0, 1}]),
    ],
)
def test_groups_for_the_padding_that_there_is_room_for(
    lengths: Sequence[int], spare: int, groups: list[set[int]]
) -> None:
    found = divided(dict(enumerate(lengths)), spare)
    assert sorted(map(sorted, found)) == sorted(map(sorted, groups))


def test_one_that_pauses_goes_on_where_it_was(engine: Engine) -> None:
    expected = tokens_of(alone(engine, PROMPTS[0]))
    driver = Driver(engine)
    for id in (0, 1):
        driver.add(id, PROMPTS[id])
    driver.step(0, 1)
    driver.step(0, 1)
    for _ in range(3):
        driver.step(1)
    for _ in range(6):
        driver.step(0, 1)
    assert driver.tokens(0) == expected
    driver.remove(0, 1)


def test_a_step_that_was_begun_in_vain_leaves_nothing(engine: Engine) -> None:
    """The next step of a greedy sequence is begun with the token that was drawn, which a caller need not follow."""
    tokens = engine.tokenizer.encode(PROMPTS[0])
    other = engine.tokenizer.encode(PROMPTS[1])
    engine.add(SequenceSpec(id=0, prompt=tuple(tokens), sampling=GREEDY))
    engine.step([Work(0, tokens, 0, True)])
    done = len(tokens)
    found = []
    for token in other:
        found += engine.step([Work(0, [token], done, True)])
        done += 1
    # The same tokens where no step is ahead, because probabilities were asked for.
    engine.add(SequenceSpec(id=1, prompt=tuple(tokens), sampling=GREEDY, top_logprobs=0))
    (drawn,) = engine.step([Work(1, tokens + other, 0, True)])
    assert found[-1].token == drawn.token
    for id in (0, 1):
        engine.remove(id)


@pytest.mark.parametrize(("cells", "room"), [(64, 32), (16, 16)])
def test_no_step_is_begun_beyond_the_context_or_the_pool(forms: Forms, cells: int, room: int) -> None:
    engine: Any = load(forms.safetensors(2), num_ctx=32, cells=cells, max_sequences=1)
    engine.add(SequenceSpec(id=0, prompt=(5,), sampling=GREEDY))
    token = 5
    for done in range(room):
        (drawn,) = engine.step([Work(0, [token], done, True)])
        token = drawn.token
        assert engine._sequences[0].caches[0].offset == min(done + 2, room)
    engine.close()


def test_prompts_in_parts_beside_one_that_generates(engine: Engine) -> None:
    expected = tokens_of(alone(engine, PROMPTS[1]))
    assert tokens_of(alone(engine, PROMPTS[1], chunk=2)) == expected
    driver = Driver(engine)
    driver.add(0, PROMPTS[0])
    driver.step(0)
    driver.add(1, PROMPTS[1])
    while len(driver.said[1]) < 8:
        driver.step(0, 1, chunk=3)
    assert driver.tokens(1) == expected
    driver.remove(0, 1)


def test_what_was_computed_moves_on(engine: Engine) -> None:
    assert isinstance(engine, SequenceMemory) and not engine.can_cut
    expected = tokens_of(alone(engine, PROMPTS[0] + " the city of"))
    driver = Driver(engine)
    first = driver.add(0, PROMPTS[0])
    driver.step(0)
    driver.step(0)
    engine.keep(0)
    driver.add(1, PROMPTS[0] + " the city of")
    assert engine.copy(0, 1, len(first))
    engine.remove(0)
    driver.begin_at(1, len(first))
    for _ in range(8):
        driver.step(1)
    assert driver.tokens(1) == expected
    assert not engine.copy(1, 1, 10_000)
    driver.remove(1)


def test_a_saved_state_is_the_sequence(engine: Engine) -> None:
    assert isinstance(engine, SequenceMemory)
    expected = tokens_of(alone(engine, PROMPTS[1]))
    driver = Driver(engine)
    driver.add(0, PROMPTS[1])
    driver.add(2, PROMPTS[2])
    driver.step(0, 2)
    driver.step(0, 2)
    state = engine.save(0)
    assert state is not None and len(state) == engine.state_size(0)
    engine.clear(0)
    driver.step(2)
    assert engine.state_size(0) == 0 and engine.save(0) is None
    assert engine.restore(0, state)
    for _ in range(6):
        driver.step(0, 2)
    assert driver.tokens(0) == expected
    driver.remove(0, 2)


def test_a_cleared_sequence_is_computed_again(engine: Engine) -> None:
    expected = tokens_of(alone(engine, PROMPTS[2]))
    driver = Driver(engine)
    driver.add(0, PROMPTS[2])
    driver.step(0)
    engine.clear(0)
    driver.begin_at(0, 0)
    driver.step(0, chunk=3)
    while len(driver.said[0]) < 8:
        driver.step(0)
    assert driver.tokens(0) == expected
    driver.remove(0)


def test_probabilities_belong_to_the_tokens(engine: Engine) -> None:
    found = alone(engine, PROMPTS[0], top_logprobs=3)
    assert tokens_of(found) == tokens_of(alone(engine, PROMPTS[0]))
    for item in found:
        assert item.chosen is not None and item.chosen == item.top[0]
        assert item.token == item.chosen.token and item.chosen.logprob <= 0
        assert [top.logprob for top in item.top] == sorted((top.logprob for top in item.top), reverse=True)


class Only:
    """A constraint that leaves two tokens."""

    notices = ()

    def __init__(self) -> None:
        self.seen = 0

    def mask(self, logits: npt.NDArray[np.float32]) -> None:
        self.seen = len(logits)
        kept = logits[[40, 41]].copy()
        logits[:] = -np.inf
        logits[[40, 41]] = kept

    def accept(self, token: int) -> None:
        pass


def test_a_mask_leaves_what_it_leaves_and_only_for_its_sequence(engine: Engine) -> None:
    only = Only()
    free = tokens_of(alone(engine, PROMPTS[1], 4))
    driver = Driver(engine)
    driver.add(0, PROMPTS[0], constraint=only)
    driver.add(1, PROMPTS[1])
    for _ in range(4):
        driver.step(0, 1)
    assert set(driver.tokens(0)) <= {40, 41}
    assert driver.tokens(1) == free
    assert only.seen == engine.tokenizer.size
    driver.remove(0, 1)


def test_a_bias_counts_where_the_likeliest_is_taken(engine: Engine) -> None:
    (first, *_) = tokens_of(alone(engine, PROMPTS[0]))
    sampling = msgspec.structs.replace(GREEDY, logit_bias={first: -100.0})
    driver = Driver(engine, sampling)
    driver.add(7, PROMPTS[0])
    while len(driver.said[7]) < 8:
        driver.step(7)
    driver.remove(7)
    assert first not in driver.tokens(7)


def test_a_cache_that_has_let_go_of_its_beginning_is_not_cut() -> None:
    class Chunked:
        start_position = 100

        def is_trimmable(self) -> bool:
            return True

    assert trimmed([Chunked()], 300, 300) and not trimmed([Chunked()], 300, 200)


def test_a_failure_while_sequences_are_joined_ends_no_more_than_them(
    forms: Forms, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = load(forms.safetensors(2))
    driver = Driver(loaded)
    driver.add(1, PROMPTS[0])
    driver.add(2, PROMPTS[1])
    driver.step(1)
    driver.step(2)

    def fails(self: Rows, joining: Any) -> None:
        raise RuntimeError("out of memory")

    with monkeypatch.context() as patch:
        patch.setattr(Rows, "join", fails)
        with pytest.raises(RuntimeError):
            driver.step(1, 2)
    driver.remove(1, 2)
    assert tokens_of(alone(loaded, PROMPTS[0]))
    loaded.close()


def test_seeds(engine: Engine) -> None:
    def said(seed: int) -> list[int]:
        driver = Driver(engine, SamplingOptions(seed=seed, temperature=1.5))
        driver.add(0, PROMPTS[0])
        for _ in range(8):
            driver.step(0)
        driver.remove(0)
        return driver.tokens(0)

    assert said(1) == said(1) != said(2)


def test_bad_work_is_refused_and_harms_nobody(engine: Engine) -> None:
    expected = tokens_of(alone(engine, PROMPTS[0]))
    driver = Driver(engine)
    driver.add(0, PROMPTS[0])
    driver.step(0)
    done = len(engine.tokenizer.encode(PROMPTS[0]))
    for work in (
        [],
        [Work(0, [], done, True)],
        [Work(0, [engine.tokenizer.size], done, True)],
        [Work(0, [-1], done, True)],
        [Work(0, [5], done + 1, True)],
        [Work(0, [5] * 300, done, True)],
    ):
        with pytest.raises(EngineError):
            engine.step(work)
    for _ in range(7):
        driver.step(0)
    assert driver.tokens(0) == expected
    driver.add(1, "a"), driver.add(2, "b"), driver.add(3, "c")
    with pytest.raises(EngineError, match="more than 4"):
        driver.add(4, "d")
    driver.remove(0, 1, 2, 3)
    with pytest.raises(EngineError):
        engine.shift(0, 1, 1)
    with pytest.raises(EngineError):
        engine.embed([])
