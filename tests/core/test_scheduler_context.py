"""How long a context is, and the shape of its memory: tables."""

from __future__ import annotations

import pytest

from corectl.config import Settings
from corectl.errors import BadRequest
from corectl.scheduler.context import GIB, Context, cache_shape, settle_context, tier


def settle(
    requested: int | None = None,
    *,
    configured: int = 0,
    memory: int = 0,
    trained: int = 0,
    ceiling: int = 0,
    vision: bool = False,
) -> Context:
    return settle_context(
        requested,
        configured=configured,
        memory=memory,
        trained=trained,
        ceiling=ceiling,
        vision=vision,
    )


@pytest.mark.parametrize(
    ("memory", "length"),
    [(0, 4096), (23 * GIB - 1, 4096), (23 * GIB, 32768), (47 * GIB - 1, 32768), (47 * GIB, 262144)],
)
def test_the_tier_is_by_the_memory_of_all_accelerators(memory: int, length: int) -> None:
    assert tier(memory) == length
    assert settle(memory=memory) == Context(length, automatic=True)


@pytest.mark.parametrize(
    ("configured", "memory", "requested", "expected"),
    [
        (0, 24 * GIB, None, 32768),
        (8192, 24 * GIB, None, 8192),
        (8192, 24 * GIB, 16384, 16384),
        (8192, 24 * GIB, 4096, 4096),
        (0, 0, 8192, 8192),
    ],
)
def test_request_then_setting_then_tier(
    configured: int, memory: int, requested: int | None, expected: int
) -> None:
    found = settle(requested, configured=configured, memory=memory)
    assert found == Context(expected, automatic=not configured and requested is None)


@pytest.mark.parametrize(
    ("requested", "configured", "trained", "expected"),
    [
        *((None, 0, 2048, 2048), (None, 512, 2048, 512), (8192, 512, 0, 8192), (8192, 0, 2048, 2048)),
        *((1, 0, 2048, 4), (None, 0, 2, 4), (100, 512, 2048, 100), (2**31 - 1, 0, 8192, 8192)),
    ],
)
def test_no_more_than_it_was_trained_for_and_no_less_than_four(
    requested: int | None, configured: int, trained: int, expected: int
) -> None:
    assert settle(requested, configured=configured, trained=trained).num_ctx == expected


@pytest.mark.parametrize(
    ("requested", "trained", "ceiling", "expected"),
    [(128, 0, 0, 2048), (128, 1024, 0, 1024), (128, 0, 512, 512), (3000, 0, 0, 3000)],
)
def test_a_model_that_sees_has_room_for_an_image(
    requested: int, trained: int, ceiling: int, expected: int
) -> None:
    assert settle(requested, trained=trained, ceiling=ceiling, vision=True).num_ctx == expected


def test_the_ceiling_limits_what_is_chosen_and_refuses_what_is_asked_for() -> None:
    assert settle(memory=48 * GIB, ceiling=10_000) == Context(10_000, automatic=True)
    assert settle(configured=20_000, ceiling=10_000).num_ctx == 10_000
    assert settle(10_000, ceiling=10_000).num_ctx == 10_000
    with pytest.raises(BadRequest, match=r'option "num_ctx" is 10001, but this server allows 10000 at most'):
        settle(10_001, ceiling=10_000)


def test_only_a_context_that_nobody_has_set_may_be_lowered() -> None:
    assert Context(262_144, automatic=True).choices() == (262_144, 32_768, 4096)
    assert Context(8192, automatic=True).choices() == (8192, 4096)
    assert Context(2048, automatic=True).choices() == (2048,)
    assert Context(262_144, automatic=False).choices() == (262_144,)


@pytest.mark.parametrize(
    ("num_ctx", "asked", "flash", "batch"),
    [
        *((4096, None, None, 512), (4097, None, None, 1024), (32768, None, None, 1024)),
        *((32769, None, True, 2048), (32769, None, False, 512), (64, None, None, 64)),
        *((4096, 100, None, 100), (64, 100, None, 64), (32769, 4000, False, 4000)),
        # One for each of 16 sequences, and one of a prompt.
        (4096, 4, None, 17),
    ],
)
def test_the_batch_grows_with_the_context(
    num_ctx: int, asked: int | None, flash: bool | None, batch: int
) -> None:
    shape = cache_shape(num_ctx, asked, Settings(flash_attention=flash), embedding=False)
    assert (shape.num_batch, shape.max_sequences, shape.flash_attention) == (batch, 16, flash)


def test_the_shape_of_an_encoder_and_of_what_the_operator_sets() -> None:
    encoder = cache_shape(8192, 100, Settings(), embedding=True)
    assert (encoder.num_batch, encoder.max_sequences) == (8192, 64)
    shape = cache_shape(4096, None, Settings(num_parallel=3, kv_cache_type="q8_0"), embedding=False)
    assert (shape.max_sequences, shape.cache_type) == (3, "q8_0")
