"""Drawing tokens from logits: cuts, penalties, seeds. That it does what llama.cpp does is tested beside its sampler."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from corectl.messages import SamplingOptions
from corectl.runner.sampling import Logits, Sampler, probabilities

LOGITS = [math.log(p) for p in (0.4, 0.25, 0.15, 0.1, 0.05, 0.03, 0.015, 0.005)]


def options(**changes: Any) -> SamplingOptions:
    values: dict[str, Any] = {"temperature": 1.0, "top_k": 0, "top_p": 1.0}
    return SamplingOptions(**{**values, **changes})


def sampler(prompt: tuple[int, ...] = (), **changes: Any) -> Sampler:
    return Sampler(options(**changes), num_ctx=64, prompt=prompt)


def logits(values: Any = LOGITS) -> Logits:
    return np.asarray(values, np.float32)


def draws(count: int, **changes: Any) -> list[int]:
    drawing = sampler(**changes)
    return [drawing.draw(logits()) for _ in range(count)]


def test_without_temperature_the_likeliest_token_comes() -> None:
    assert set(draws(5, temperature=0)) == set(draws(5, temperature=-1)) == {0}


def test_biases_are_added_to_logits() -> None:
    assert set(draws(5, temperature=0, logit_bias={5: 100.0})) == {5}
    assert 0 not in draws(200, seed=1, logit_bias={0: -100.0})


def test_draws_are_as_likely_as_they_should_be() -> None:
    found = np.bincount(draws(4000, seed=1), minlength=8) / 4000
    assert found == pytest.approx(np.exp(LOGITS), abs=0.03)


def test_a_seed_repeats_and_none_does_not() -> None:
    assert draws(50, seed=7) == draws(50, seed=7) != draws(50, seed=8)
    assert draws(50) != draws(50)
    assert draws(3, seed=2**63 - 1) == draws(3, seed=2**63 - 1)


def test_what_was_drawn_counts_for_the_penalties() -> None:
    drawing = sampler(temperature=0, presence_penalty=100.0, repeat_last_n=3)
    assert [drawing.draw(logits()) for _ in range(6)] == [0, 1, 2, 3, 0, 1]


def test_a_window_of_none_has_no_penalties() -> None:
    drawing = sampler((0, 0), temperature=0, presence_penalty=100.0, repeat_last_n=0)
    assert [drawing.draw(logits()) for _ in range(3)] == [0, 0, 0]


@pytest.mark.parametrize("changes", [{"top_k": 1}, {"top_p": 0.0}, {"min_p": 1.0}, {"typical_p": 0.0}])
def test_at_least_one_token_is_left(changes: dict[str, Any]) -> None:
    tokens, chances = sampler(**changes).distribution(logits())
    assert len(tokens) == 1 and chances.tolist() == [1.0]


def test_a_temperature_next_to_nothing_is_none() -> None:
    for changes in (
        {"temperature": 1e-40},
        {"temperature": 1e-300, "top_k": 3},
        {"temperature": 1e-40, "top_p": 0.9},
    ):
        assert set(draws(20, **changes)) == {0}


def test_masked_tokens_never_come() -> None:
    masked = logits([-math.inf] * 7 + [0.0])
    cases: list[dict[str, Any]] = [
        {},
        {"top_k": 4},
        {"top_p": 0.9},
        {"typical_p": 0.9},
        {"temperature": 100.0},
    ]
    for changes in cases:
        drawing = sampler(**changes)
        assert {drawing.draw(masked.copy()) for _ in range(20)} == {7}


def test_a_vocabulary_of_a_quarter_million_in_one_go() -> None:
    values = np.random.default_rng(1).normal(0, 3, 262_144).astype(np.float32)
    for changes in ({}, {"top_k": 40}, {"top_p": 0.9}, {"min_p": 0.1}, {"typical_p": 0.9}):
        token = sampler(seed=3, **changes).draw(values.copy())
        assert 0 <= token < len(values)


def test_probabilities_of_known_logits() -> None:
    logits = np.asarray([0.0, 2.0, 1.0, -1e9, 2.0], np.float32)
    norm = math.log(1 + 2 * math.exp(2) + math.exp(1))
    chosen, top = probabilities(logits, 2, 3)
    assert chosen.token == 2 and chosen.logprob == pytest.approx(1 - norm, abs=1e-6)
    assert sorted(item.token for item in top[:2]) == [1, 4]
    assert [item.logprob for item in top] == pytest.approx([2 - norm, 2 - norm, 1 - norm], abs=1e-6)
    assert probabilities(logits, 1, 0)[1] == ()


def test_a_certain_token_has_a_probability_of_one_and_never_more() -> None:
    chosen, top = probabilities(np.asarray([-1e4, 3e4, -1e4], np.float32), 1, 3)
    assert chosen.logprob == 0.0 and not np.isnan([item.logprob for item in top]).any()
