"""Sequences in one engine: batches, chunks, slots, limits, probabilities, context shifts."""

from __future__ import annotations

import math
from collections.abc import Iterator

import llama_cpp
import numpy as np
import pytest

from corectl.errors import EngineError
from corectl.runner.engine import SequenceSpec, Work
from corectl_llamacpp.engine import LlamaEngine
from tests.backends.conftest import GREEDY, Driver, draw, load, smollm2, tokens_of

PROMPTS = ("Once upon a time", "The capital of France is", "def add(a, b):", "1, 2, 3, 4,")


def _prompt(engine: LlamaEngine, length: int) -> list[int]:
    tokens = engine.tokenizer.encode("The quick brown fox jumps over the lazy dog near the river. " * 12)
    assert len(tokens) >= length
    return tokens[:length]


@pytest.fixture(scope="module")
def small() -> Iterator[LlamaEngine]:
    """Its pool is no larger than one context."""
    loaded = load(smollm2(), num_ctx=256, cells=256, num_batch=128, max_sequences=2)
    yield loaded
    loaded.close()


def test_info_says_what_was_loaded(engine: LlamaEngine) -> None:
    info = engine.info
    assert (info.num_ctx, info.cells, info.num_batch, info.max_sequences) == (256, 1024, 128, 4)
    assert info.can_shift
    assert smollm2().stat().st_size * 0.9 < info.memory < smollm2().stat().st_size * 2
    assert "llama" in info.description and "Q4_1" in info.description


def test_a_batch_gives_what_each_sequence_gives_alone(engine: LlamaEngine) -> None:
    prompts = [engine.tokenizer.encode(text) for text in PROMPTS]
    alone = [tokens_of(draw(engine, prompt, 12)) for prompt in prompts]
    drivers = [Driver(engine, id, prompt) for id, prompt in enumerate(prompts)]
    for _ in range(12):
        sampled = engine.step([driver.work() for driver in drivers])
        assert [item.id for item in sampled] == [driver.id for driver in drivers]
        for driver in drivers:
            driver.take(sampled)
    for driver in drivers:
        driver.end()
    assert [driver.tokens[driver.start :] for driver in drivers] == alone
    assert len({tuple(tokens) for tokens in alone}) == len(PROMPTS)


def test_a_sequence_that_joins_later_disturbs_nobody(engine: LlamaEngine) -> None:
    first_prompt, second_prompt = (engine.tokenizer.encode(text) for text in PROMPTS[:2])
    alone = tokens_of(draw(engine, first_prompt, 12))
    first = Driver(engine, 1, first_prompt)
    first.run(4)
    second = Driver(engine, 2, second_prompt)
    for _ in range(4):
        sampled = engine.step([first.work(), second.work()])
        first.take(sampled)
        second.take(sampled)
    second.end()
    first.run(4)
    first.end()
    assert first.tokens[first.start :] == alone
    assert second.tokens[second.start :] == tokens_of(draw(engine, second_prompt, 4))


@pytest.mark.parametrize("chunk", [7, 16, 49])
def test_a_prompt_in_chunks_is_a_prompt_at_once(engine: LlamaEngine, chunk: int) -> None:
    prompt = _prompt(engine, 50)
    at_once = draw(engine, prompt, 6, chunk=50, top_logprobs=5)
    assert draw(engine, prompt, 6, chunk=chunk, top_logprobs=5) == at_once


def test_no_token_is_drawn_before_the_end_of_a_prompt(engine: LlamaEngine) -> None:
    driver = Driver(engine, 1, _prompt(engine, 20))
    assert engine.step([driver.work(10)]) == []
    assert len(engine.step([driver.work(10)])) == 1
    driver.end()


def test_clear_and_compute_again(engine: LlamaEngine) -> None:
    driver = Driver(engine, 1, _prompt(engine, 30), top_logprobs=3)
    before = driver.run(4)
    engine.clear(driver.id)
    driver.tokens, driver.computed = driver.tokens[:30], 0
    assert driver.run(4) == before
    driver.end()


def test_slots_are_used_again(engine: LlamaEngine) -> None:
    prompt = engine.tokenizer.encode(PROMPTS[0])
    texts = {tuple(tokens_of(draw(engine, prompt, 3))) for _ in range(3 * engine.info.max_sequences)}
    assert len(texts) == 1


def test_too_many_sequences(engine: LlamaEngine) -> None:
    prompt = engine.tokenizer.encode(PROMPTS[0])
    drivers = [Driver(engine, id, prompt) for id in range(engine.info.max_sequences)]
    with pytest.raises(EngineError, match="more than 4 sequences that are not only kept"):
        engine.add(SequenceSpec(id=50, prompt=tuple(prompt), sampling=GREEDY))
    for driver in drivers:
        driver.end()
    assert len(draw(engine, prompt, 1)) == 1


def _works(engine: LlamaEngine) -> bool:
    return len(draw(engine, engine.tokenizer.encode(PROMPTS[1]), 2)) == 2


def test_a_step_that_is_too_long(engine: LlamaEngine) -> None:
    driver = Driver(engine, 1, [10] * (engine.info.num_batch + 1))
    with pytest.raises(EngineError, match="129 tokens; at most 128"):
        engine.step([driver.work(1000)])
    driver.end()
    halves = [Driver(engine, id, [10] * 70) for id in (1, 2)]
    with pytest.raises(EngineError, match="140 tokens; at most 128"):
        engine.step([half.work(100) for half in halves])
    for half in halves:
        half.end()
    assert _works(engine)


@pytest.mark.parametrize(
    ("tokens", "position"),
    [((), 0), ((10**6,), 0), ((-7,), 0), ((10,), 5), ((10,), -3)],
    ids=["empty", "token too large", "token negative", "gap", "position negative"],
)
def test_invalid_work_is_refused(engine: LlamaEngine, tokens: tuple[int, ...], position: int) -> None:
    driver = Driver(engine, 1, [10, 11])
    driver.run(1)
    engine.clear(1)
    engine.step([Work(1, [10, 11], 0, sample=True)])
    with pytest.raises(EngineError):
        engine.step([Work(1, tokens, position, sample=True)])
    driver.end()
    assert _works(engine)


def test_a_step_without_work_is_refused(engine: LlamaEngine) -> None:
    with pytest.raises(EngineError):
        engine.step([])
    assert _works(engine)


def test_a_full_pool_is_an_error_that_can_be_survived(small: LlamaEngine) -> None:
    first = Driver(small, 1, _prompt(small, 120))
    first.run(1, chunk=128)
    second = Driver(small, 2, _prompt(small, 120))
    second.run(1, chunk=128)
    with pytest.raises(EngineError, match="no room in the key-value cache"):
        small.step([Work(1, [10] * 60, first.computed, sample=False)])
    second.end()
    assert len(small.step([Work(1, [10] * 60, first.computed, sample=True)])) == 1
    first.end()
    assert _works(small)


@pytest.mark.parametrize("top", [0, 1, 20])
def test_probabilities_are_a_log_softmax_of_the_raw_logits(engine: LlamaEngine, top: int) -> None:
    driver = Driver(engine, 1, engine.tokenizer.encode(PROMPTS[1]), top_logprobs=top)
    sampled = driver.run(1)[0]
    raw = llama_cpp.llama_get_logits_ith(engine._context, -1)
    logits = np.ctypeslib.as_array(raw, shape=(engine.tokenizer.size,)).astype(np.float64)
    driver.end()
    expected = logits - (logits.max() + np.log(np.exp(logits - logits.max()).sum()))
    assert sampled.chosen is not None and sampled.chosen.token == sampled.token == int(logits.argmax())
    assert sampled.chosen.logprob == pytest.approx(expected[sampled.token], abs=1e-5)
    assert [item.token for item in sampled.top] == np.argsort(-logits, kind="stable")[:top].tolist()
    assert [item.logprob for item in sampled.top] == pytest.approx(np.sort(expected)[::-1][:top], abs=1e-5)
    assert sum(math.exp(item.logprob) for item in sampled.top) <= 1 + 1e-6


def test_probabilities_only_where_they_are_asked_for(engine: LlamaEngine) -> None:
    sampled = draw(engine, engine.tokenizer.encode(PROMPTS[1]), 2)
    assert all(item.chosen is None and item.top == () for item in sampled)


def test_a_context_shift_makes_room_and_generation_goes_on(engine: LlamaEngine) -> None:
    driver = Driver(engine, 1, _prompt(engine, 60))
    driver.run(4)
    last = _last_position(engine, 1)
    assert last == driver.computed - 1
    engine.shift(1, keep=4, discard=24)
    del driver.tokens[4:28]
    driver.computed -= 24
    assert _last_position(engine, 1) == last - 24
    assert engine.save(1) is None, "its keys are still those of the old positions"
    more = tokens_of(driver.run(8))
    assert engine.save(1) is not None
    driver.end()
    assert len(more) == 8 and all(0 <= token < engine.tokenizer.size for token in more)


def test_a_state_for_which_there_is_no_memory_is_not_saved(
    engine: LlamaEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = Driver(engine, 1, _prompt(engine, 20))
    driver.run(1)
    monkeypatch.setattr(engine, "state_size", lambda id: 1 << 60)
    assert engine.save(1) is None
    driver.end()


def _last_position(engine: LlamaEngine, id: int) -> int:
    return int(llama_cpp.llama_memory_seq_pos_max(engine._memory, engine._slots[id].number))
