"""Runtime options: who wins, what is refused."""

from __future__ import annotations

import logging
import math
import re
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from corectl.errors import BadRequest
from corectl.messages import LoadOptions, SamplingOptions
from corectl.model.options import IGNORED, INT32, INT64, MAX_STOP_LENGTH, MAX_STOPS, RANGES, read_options

INTEGERS = [
    *("num_ctx", "num_batch", "num_gpu", "main_gpu", "num_thread"),
    *("seed", "num_predict", "num_keep", "top_k", "repeat_last_n"),
]
FLOATS = [
    *("temperature", "top_p", "min_p", "typical_p"),
    *("repeat_penalty", "presence_penalty", "frequency_penalty"),
]


def read(**requested: Any) -> tuple[LoadOptions, SamplingOptions]:
    return read_options({}, requested)


def value_of(name: str, value: Any) -> Any:
    load, sampling = read(**{name: value})
    return getattr(load if name in LoadOptions.__struct_fields__ else sampling, name)


def test_no_options_are_the_defaults() -> None:
    assert read() == (LoadOptions(), SamplingOptions())


def test_every_option_is_covered_here() -> None:
    fields = {*LoadOptions.__struct_fields__, *SamplingOptions.__struct_fields__}
    assert fields == {*INTEGERS, *FLOATS, "use_mmap", "stop", "backend", "logit_bias"}


def test_the_request_wins_over_the_model_key_by_key() -> None:
    model = {"temperature": 0.1, "num_ctx": 100, "stop": ["a", "b"], "top_k": 1}
    load, sampling = read_options(model, {"temperature": 0.9, "stop": ["c"], "top_k": None})
    assert load.num_ctx == 100
    assert (sampling.temperature, sampling.stop, sampling.top_k) == (0.9, ("c",), 1)


def test_biases_are_numbers_by_numbers_of_tokens() -> None:
    assert value_of("logit_bias", {"5": 1, "07": -2.5}) == {5: 1.0, 7: -2.5}
    many = {str(token): 1 for token in range(1025)}
    wrong: list[Any] = [[], {"a": 1}, {"-1": 1}, {"5": "1"}, {"5": True}, {"5": 101}, {"5": math.nan}, many]
    for value in wrong:
        with pytest.raises(BadRequest, match="logit_bias"):
            read(logit_bias=value)


def test_a_backend_is_a_name() -> None:
    assert value_of("backend", "mlx") == "mlx"
    assert value_of("backend", "") is None
    for value in (5, ["mlx"], True, "x" * 65):
        with pytest.raises(BadRequest, match="backend"):
            read(backend=value)


@pytest.mark.parametrize("name", INTEGERS)
def test_whole_numbers(name: str) -> None:
    assert value_of(name, 7) == value_of(name, 7.0) == value_of(name, 7.9) == 7
    assert value_of(name, INT32) == INT32
    assert isinstance(value_of(name, 7.9), int)


@pytest.mark.parametrize("name", INTEGERS)
@pytest.mark.parametrize("value", ["7", True, [7], {}])
def test_other_types_than_whole_numbers(name: str, value: Any) -> None:
    with pytest.raises(BadRequest) as found:
        read(**{name: value})
    assert found.value.message == f'option "{name}" must be of type integer'


@pytest.mark.parametrize("name", INTEGERS)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 2**64, -(2**64), 10**400])
def test_numbers_out_of_range_are_named(name: str, value: float) -> None:
    with pytest.raises(BadRequest, match=f'option "{name}"'):
        read(**{name: value})


def test_a_seed_may_have_64_bits_the_others_32() -> None:
    assert value_of("seed", 2**32 - 1) == 2**32 - 1
    assert value_of("seed", INT64) == INT64
    with pytest.raises(BadRequest, match="top_k"):
        read(top_k=2**31)


@pytest.mark.parametrize("name", FLOATS)
def test_fractions(name: str) -> None:
    assert value_of(name, 1) == 1.0 and isinstance(value_of(name, 1), float)
    assert value_of(name, 0.25) == 0.25
    wrong: list[Any] = ["1", True, [1.0]]
    for value in wrong:
        with pytest.raises(BadRequest, match=f'option "{name}" must be of type float32'):
            read(**{name: value})
    for value in (math.nan, math.inf, 1e39, -1e39, 10**400):
        with pytest.raises(BadRequest, match=f'option "{name}" must be between'):
            read(**{name: value})


@pytest.mark.parametrize("name", RANGES)
def test_ranges_include_their_ends(name: str) -> None:
    least, most = RANGES[name]
    read(**{name: least})
    read(**{name: most})
    for value in (least - 1, most * 2 + 1):
        with pytest.raises(BadRequest, match=f'option "{name}" must be between {re.escape(str(least))} and'):
            read(**{name: value})


@pytest.mark.parametrize("name", ["num_predict", "top_k"])
def test_limits_that_are_off_below_zero(name: str) -> None:
    assert value_of(name, -(2**31) + 1) == -(2**31) + 1


@pytest.mark.parametrize("name", ["presence_penalty", "frequency_penalty"])
def test_penalties_may_reward(name: str) -> None:
    assert value_of(name, -1.5) == -1.5


def test_use_mmap() -> None:
    assert value_of("use_mmap", False) is False and value_of("use_mmap", None) is None
    for value in (0, 1, "true"):
        with pytest.raises(BadRequest, match='option "use_mmap" must be of type boolean'):
            read(use_mmap=value)


def test_stop() -> None:
    assert value_of("stop", []) == () and value_of("stop", ["a", ""]) == ("a", "")
    for value, message in (
        ("a", 'option "stop" must be of type array'),
        ({"a": 1}, 'option "stop" must be of type array'),
        (["a", 1], 'option "stop" must be of an array of strings'),
        (["a"] * (MAX_STOPS + 1), "may have 256 entries of 4096 characters"),
        (["a" * (MAX_STOP_LENGTH + 1)], "may have 256 entries of 4096 characters"),
    ):
        with pytest.raises(BadRequest) as found:
            read(stop=value)
        assert message in found.value.message
    assert len(value_of("stop", ["a" * MAX_STOP_LENGTH] * MAX_STOPS)) == MAX_STOPS


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        *(("num_ctx", 0, None), ("num_ctx", 1, 1)),
        *(("num_batch", 0, None), ("num_thread", 0, None), ("num_thread", 2, 2)),
        *(("num_gpu", -1, None), ("num_gpu", 0, 0), ("num_gpu", 999, 999), ("main_gpu", 0, 0)),
    ],
)
def test_values_that_mean_choose_for_me_count_as_not_given(
    name: str, value: int, expected: int | None
) -> None:
    assert value_of(name, value) == expected


def test_old_options_are_ignored_whatever_their_value(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert read(**{name: object() for name in IGNORED}) == (LoadOptions(), SamplingOptions())
    assert not caplog.records


def test_unknown_options_are_left_out_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert read(temprature=1, **{"x" * 500: 2}) == (LoadOptions(), SamplingOptions())
    text = " ".join(record.getMessage() for record in caplog.records)
    assert "invalid option provided" in text and "temprature" in text
    assert "x" * 64 in text and "x" * 65 not in text


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)


@given(
    st.dictionaries(st.sampled_from([*INTEGERS, *FLOATS, "use_mmap", "stop"]) | st.text(), JSON, max_size=6)
)
def test_whatever_is_asked_for_is_within_bounds_or_named(options: dict[str, Any]) -> None:
    try:
        load, sampling = read_options({}, options)
    except BadRequest as error:
        assert any(f'"{name}"' in error.message for name in options)
    else:
        values = msgspec.structs.asdict(load) | msgspec.structs.asdict(sampling)
        for name, (least, most) in RANGES.items():
            assert values[name] is None or least <= values[name] <= most
