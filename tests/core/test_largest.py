"""The largest logits are found among few, and are those that sorting all of them finds."""

from __future__ import annotations

import numpy as np
import pytest

from corectl.runner.sampling import Logits, largest, likeliest


def check(logits: Logits, count: int) -> None:
    found = largest(logits, count)
    assert len(found) == len(set(found.tolist())) == min(count, len(logits))
    assert sorted(logits[found].tolist()) == sorted(logits.tolist())[-len(found) :]
    more = likeliest(logits, count).tolist()
    assert more == sorted(set(more))
    assert set(found[logits[found] > -np.inf].tolist()) <= set(more)


@pytest.mark.parametrize("size", [1, 2, 63, 64, 65, 500, 5000, 49_152, 49_153])
@pytest.mark.parametrize("count", [1, 2, 40, 100, 5000])
def test_they_are_those_of_a_sorted_list(size: int, count: int) -> None:
    random = np.random.default_rng(size + count)
    check(random.normal(size=size).astype(np.float32), count)


@pytest.mark.parametrize("count", [1, 40, 300])
def test_equal_logits_do_no_harm(count: int) -> None:
    check(np.zeros(49_152, np.float32), count)
    check(np.repeat(np.arange(512, dtype=np.float32), 96), count)


@pytest.mark.parametrize("allowed", [1, 39, 40, 41, 5000])
def test_what_a_mask_forbids_is_not_among_them_while_there_is_anything_else(allowed: int) -> None:
    random = np.random.default_rng(allowed)
    logits = np.full(49_152, -np.inf, np.float32)
    places = random.choice(len(logits), allowed, replace=False)
    logits[places] = random.normal(size=allowed)
    check(logits, 40)


def test_the_largest_may_all_be_in_one_column_or_at_the_end() -> None:
    logits = np.zeros(49_160, np.float32)
    logits[7::1024] = 5
    check(logits, 40)
    logits[-8:] = 9
    check(logits, 8)


def test_the_likeliest_are_few() -> None:
    logits = np.random.default_rng(1).normal(size=262_144).astype(np.float32)
    assert 40 <= len(likeliest(logits, 40)) < 80


@pytest.mark.parametrize("allowed", [0, 1, 30])
def test_the_likeliest_are_not_forbidden_while_anything_is_not(allowed: int) -> None:
    logits = np.full(49_152, -np.inf, np.float32)
    logits[:allowed] = 1
    assert len(likeliest(logits, 40)) == (allowed or len(logits))
