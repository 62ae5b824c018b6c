"""From options to a native sampler chain: which samplers, in which order, and what they do."""

from __future__ import annotations

import ctypes
import math
from typing import Any

import llama_cpp
import numpy as np
import numpy.typing as npt
import pytest

from corectl.messages import SamplingOptions
from corectl.runner.sampling import Logits, Sampler, Tokens, likeliest
from corectl_llamacpp import sampler
from corectl_llamacpp.engine import LlamaEngine
from corectl_llamacpp.sampler import LARGE, Candidates, build_chain, num_candidates
from tests.backends.conftest import GREEDY, draw, tokens_of

STORY = "Tell me a story about a fox. Once upon a time there"
PLAIN = SamplingOptions(temperature=1, top_k=0, top_p=1, min_p=0)
VOCABULARY = 8


def _chain(options: SamplingOptions, prompt: tuple[int, ...] = ()) -> Any:
    return build_chain(options, n_vocab=VOCABULARY, num_ctx=64, prompt=prompt)


def _names(options: SamplingOptions) -> list[str]:
    chain = _chain(options)
    count = llama_cpp.llama_sampler_chain_n(chain)
    parts = (llama_cpp.llama_sampler_chain_get(chain, index) for index in range(count))
    names = [llama_cpp.llama_sampler_name(part).decode() for part in parts]
    llama_cpp.llama_sampler_free(chain)
    return names


def _apply(options: SamplingOptions, logits: list[float], prompt: tuple[int, ...] = ()) -> dict[int, float]:
    """What the chain leaves of these logits: token to logit."""
    data = (llama_cpp.llama_token_data * len(logits))(
        *(llama_cpp.llama_token_data(id=id, logit=logit, p=0.0) for id, logit in enumerate(logits))
    )
    candidates = llama_cpp.llama_token_data_array(data=data, size=len(logits), selected=-1, sorted=False)
    chain = _chain(options, prompt)
    llama_cpp.llama_sampler_apply(chain, ctypes.byref(candidates))
    llama_cpp.llama_sampler_free(chain)
    left: list[Any] = [candidates.data[index] for index in range(candidates.size)]
    return {item.id: item.logit for item in left}


@pytest.mark.parametrize(
    ("options", "names"),
    [
        (GREEDY, ["greedy"]),
        (SamplingOptions(temperature=-1), ["greedy"]),
        (SamplingOptions(temperature=0, top_k=5, top_p=0.5), ["greedy"]),
        (SamplingOptions(temperature=0, repeat_penalty=1.1), ["penalties", "greedy"]),
        (SamplingOptions(top_k=5), ["top-k", "top-p", "temp", "dist"]),
        (SamplingOptions(top_k=0, top_p=1), ["temp", "dist"]),
        (SamplingOptions(top_k=0, top_p=1, min_p=0.1), ["min-p", "temp", "dist"]),
        (SamplingOptions(top_k=0, top_p=1, typical_p=0.9), ["typical", "temp", "dist"]),
        (
            SamplingOptions(top_k=5, typical_p=0.9, top_p=0.9, min_p=0.1, presence_penalty=1),
            ["penalties", "top-k", "typical", "top-p", "min-p", "temp", "dist"],
        ),
        (SamplingOptions(top_k=5, repeat_penalty=1.1, repeat_last_n=0), ["top-k", "top-p", "temp", "dist"]),
        (SamplingOptions(top_k=VOCABULARY, top_p=1), ["temp", "dist"]),
    ],
)
def test_the_chain_has_what_the_options_need_in_the_documented_order(
    options: SamplingOptions, names: list[str]
) -> None:
    assert _names(options) == names


def _replaced(**changes: Any) -> SamplingOptions:
    values: dict[str, Any] = {"temperature": 1.0, "top_k": 0, "top_p": 1.0}
    return SamplingOptions(**{**values, **changes})


LOGITS = [math.log(p) for p in (0.4, 0.25, 0.15, 0.1, 0.05, 0.03, 0.015, 0.005)]


@pytest.mark.parametrize(
    ("options", "left"),
    [
        (PLAIN, 8),
        (_replaced(top_k=3), 3),
        (_replaced(top_p=0.7), 3),
        (_replaced(min_p=0.2), 4),
        (_replaced(top_k=2, top_p=0.99), 2),
    ],
)
def test_what_is_cut_off(options: SamplingOptions, left: int) -> None:
    assert sorted(_apply(options, LOGITS)) == list(range(left))


def test_temperature_divides() -> None:
    found = _apply(_replaced(temperature=0.5), LOGITS)
    assert [found[id] - found[0] for id in range(8)] == pytest.approx(
        [2 * (value - LOGITS[0]) for value in LOGITS], abs=1e-4
    )


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"presence_penalty": 1.5}, [1.5, 2.5, 4.0]),
        ({"frequency_penalty": 0.5}, [2.0, 3.5, 4.0]),
        ({"repeat_penalty": 2.0}, [1.5, 2.0, 4.0]),
        ({"frequency_penalty": 0.5, "repeat_last_n": 1}, [3.0, 3.5, 4.0]),
        ({"frequency_penalty": 0.5, "repeat_last_n": -1}, [2.0, 3.5, 4.0]),
        ({"frequency_penalty": 0.5, "repeat_last_n": 0}, [3.0, 4.0, 4.0]),
    ],
)
def test_the_prompt_counts_for_the_penalties(changes: dict[str, Any], expected: list[float]) -> None:
    found = _apply(_replaced(**changes), [3.0, 4.0, 4.0], prompt=(0, 0, 1))
    assert [found[id] for id in range(3)] == pytest.approx(expected)


def test_biases_come_before_all_else() -> None:
    assert sorted(_apply(_replaced(logit_bias={7: 100.0, 0: -100.0}, top_k=1), LOGITS)) == [7]


def _logits(seed: int) -> npt.NDArray[np.float32]:
    return np.random.default_rng(seed).normal(0, 3, LARGE).astype(np.float32)


@pytest.mark.parametrize(
    ("changes", "count"),
    [
        ({}, 40),
        ({"top_k": 3}, 3),
        ({"temperature": 0}, 1),
        ({"temperature": 0, "top_k": 0}, 1),
        ({"top_k": 0}, 0),
        ({"top_k": LARGE}, 0),
        ({"repeat_penalty": 1.1}, 0),
        ({"repeat_penalty": 1.1, "repeat_last_n": 0}, 40),
        ({"presence_penalty": -1.0, "temperature": 0}, 0),
        ({"logit_bias": {7: 5.0}}, 0),
    ],
)
def test_how_many_of_the_likeliest_tokens_decide(changes: dict[str, Any], count: int) -> None:
    options = SamplingOptions(**changes)
    assert num_candidates(options, n_vocab=LARGE, num_ctx=64) == count
    assert num_candidates(options, n_vocab=LARGE - 1, num_ctx=64) == 0


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"temperature": 0},
        {"top_k": 5, "min_p": 0.2},
        {"top_p": 0.5, "typical_p": 0.8, "temperature": 2.0},
        {"top_k": 500, "top_p": 1.0, "temperature": 1.5},
    ],
)
def test_from_the_likeliest_the_same_is_drawn_as_from_all(changes: dict[str, Any]) -> None:
    options = SamplingOptions(seed=7, **changes)
    count = num_candidates(options, n_vocab=LARGE, num_ctx=64)
    whole, part = (build_chain(options, n_vocab=LARGE, num_ctx=64, prompt=()) for _ in range(2))
    memory = np.zeros(LARGE, np.dtype([("id", "<i4"), ("logit", "<f4"), ("p", "<f4")]))
    every = ctypes.cast(memory.ctypes.data, ctypes.POINTER(llama_cpp.llama_token_data))
    candidates, drawn = Candidates(count), list[int]()
    for seed in range(30):
        logits = _logits(seed)
        memory["id"], memory["logit"] = np.arange(LARGE), logits
        given = llama_cpp.llama_token_data_array(data=every, size=LARGE, selected=-1, sorted=False)
        llama_cpp.llama_sampler_apply(whole, ctypes.byref(given))
        drawn.append(int(memory["id"][given.selected]))
        llama_cpp.llama_sampler_accept(whole, drawn[-1])
        assert candidates.draw(part, logits) == drawn[-1]
    assert len(set(drawn)) > 20
    for chain in (whole, part):
        llama_cpp.llama_sampler_free(chain)


def test_what_a_mask_forbids_is_not_drawn() -> None:
    options = SamplingOptions(seed=7)
    chain = build_chain(options, n_vocab=LARGE, num_ctx=64, prompt=())
    logits = np.full(LARGE, -np.inf, np.float32)
    logits[[5, 70_000]] = 1.0
    candidates = Candidates(40)
    found = {candidates.draw(chain, logits) for _ in range(40)}
    llama_cpp.llama_sampler_free(chain)
    assert found == {5, 70_000}


def test_a_floor_that_is_known_needs_no_search(monkeypatch: pytest.MonkeyPatch) -> None:
    searches: list[int] = []

    def counting(logits: Logits, count: int) -> Tokens:
        searches.append(count)
        return likeliest(logits, count)

    monkeypatch.setattr(sampler, "likeliest", counting)
    chain = build_chain(SamplingOptions(seed=7), n_vocab=LARGE, num_ctx=64, prompt=())
    candidates = Candidates(40)
    drawn = {candidates.draw(chain, _logits(seed)) for seed in range(30)}
    llama_cpp.llama_sampler_free(chain)
    assert searches == [40] and len(drawn) > 20


def test_the_floor_follows_the_logits() -> None:
    """Wherever it was before, what is drawn is what would be without it. No two logits are equal here."""
    options = SamplingOptions(seed=7, temperature=5.0, top_p=1.0)
    chains = [build_chain(options, n_vocab=LARGE, num_ctx=64, prompt=()) for _ in range(2)]
    candidates = Candidates(40)
    random = np.random.default_rng(3)
    for number in range(60):
        # Nearly the same; higher or lower by much; all alike; and few that are not forbidden.
        logits = _logits(number) + random.choice([0, 0, 0, 2, -2, 40, -40]).astype(np.float32)
        if number % 20 == 18:
            logits[:] = 3.0
            assert 0 <= candidates.draw(chains[0], logits) < LARGE
            Candidates(40).draw(chains[1], logits)
            continue
        if number % 20 == 19:
            logits[:-39] = -np.inf
        assert candidates.draw(chains[0], logits) == Candidates(40).draw(chains[1], logits)
    for chain in chains:
        llama_cpp.llama_sampler_free(chain)


def test_the_seed_is_the_chains() -> None:
    chain = _chain(SamplingOptions(seed=77))
    assert llama_cpp.llama_sampler_get_seed(chain) == 77
    llama_cpp.llama_sampler_free(chain)


def test_without_a_seed_each_chain_has_its_own() -> None:
    found = set()
    for _ in range(4):
        chain = _chain(SamplingOptions())
        found.add(llama_cpp.llama_sampler_get_seed(chain))
        llama_cpp.llama_sampler_free(chain)
    assert len(found) > 1


def test_seeds(engine: LlamaEngine) -> None:
    prompt = engine.tokenizer.encode(STORY)
    first, again, other = (
        tokens_of(draw(engine, prompt, 16, SamplingOptions(temperature=1, seed=seed))) for seed in (7, 7, 8)
    )
    assert first == again
    assert first != other


def test_the_likeliest_of_one_is_greedy(engine: LlamaEngine) -> None:
    prompt = engine.tokenizer.encode(STORY)
    greedy = tokens_of(draw(engine, prompt, 12))
    assert tokens_of(draw(engine, prompt, 12, SamplingOptions(temperature=1, top_k=1, seed=3))) == greedy


def test_a_repetition_penalty_changes_the_text(engine: LlamaEngine) -> None:
    prompt = engine.tokenizer.encode("one two one two one two one two one two one")
    plain = tokens_of(draw(engine, prompt, 10))
    penalised = tokens_of(draw(engine, prompt, 10, SamplingOptions(temperature=0, repeat_penalty=1.8)))
    assert len(set(plain)) <= 3
    assert len(set(penalised)) > 3


@pytest.mark.parametrize(
    "options",
    [
        PLAIN,
        _replaced(top_k=3),
        _replaced(top_p=0.7),
        _replaced(min_p=0.2),
        _replaced(typical_p=0.5),
        _replaced(temperature=0.3, top_k=5, top_p=0.9),
        _replaced(top_k=6, typical_p=0.8, top_p=0.9, min_p=0.05, temperature=2.0),
        _replaced(repeat_penalty=1.7, frequency_penalty=0.4, presence_penalty=0.3, top_p=0.8),
        _replaced(repeat_penalty=1.7, repeat_last_n=2, min_p=0.1),
        _replaced(logit_bias={0: 3.5, 7: -4.0}, frequency_penalty=0.4, top_p=0.8),
    ],
)
def test_the_sampler_for_other_engines_leaves_the_same(options: SamplingOptions) -> None:
    random = np.random.default_rng(5)
    for _ in range(50):
        logits = random.normal(0, 2, VOCABULARY).astype(np.float32)
        prompt = tuple(random.integers(0, VOCABULARY, 5).tolist())
        expected = _apply(options, logits.tolist(), prompt)
        norm = sum(math.exp(value) for value in expected.values())
        tokens, chances = Sampler(options, num_ctx=64, prompt=prompt).distribution(logits)
        assert dict(zip(tokens.tolist(), chances.tolist(), strict=True)) == pytest.approx(
            {token: math.exp(value) / norm for token, value in expected.items()}, rel=1e-3
        )
