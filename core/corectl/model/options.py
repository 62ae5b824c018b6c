"""Runtime options: their types, their limits, and which of request and model wins."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import msgspec

from corectl.errors import BadRequest
from corectl.messages import GivenOptions, LoadOptions, SamplingOptions

log = logging.getLogger(__name__)

_LOAD = {field.name: field for field in msgspec.structs.fields(LoadOptions)}
_SAMPLING = {field.name: field for field in msgspec.structs.fields(SamplingOptions)}
_INTEGERS = {"num_ctx", "num_batch", "num_gpu", "main_gpu", "num_thread"} | {
    name for name, field in _SAMPLING.items() if field.type is int
}
_FLOATS = {name for name, field in _SAMPLING.items() if field.type is float}

IGNORED = frozenset(
    (
        *(
            "numa",
            "low_vram",
            "f16_kv",
            "logits_all",
            "vocab_only",
            "use_mlock",
            "num_gqa",
            "tfs_z",
            "mirostat",
        ),
        *("mirostat_tau", "mirostat_eta", "penalize_newline", "embedding_only", "rope_frequency_base"),
        *("rope_frequency_scale", "draft_num_predict"),
    )
)
"""Options of older versions: accepted, without effect."""

INT32 = 2**31 - 1
INT64 = 2**63 - 1
FLOAT32 = 3.4e38
RANGES: dict[str, tuple[float, float]] = {
    "num_ctx": (0, INT32),
    "num_batch": (0, INT32),
    "num_gpu": (-1, INT32),
    "main_gpu": (0, INT32),
    "num_thread": (0, INT32),
    # Some clients draw their seeds from all numbers of 32 or 64 bits.
    "seed": (-INT64, INT64),
    "num_keep": (-1, INT32),
    "repeat_last_n": (-1, INT32),
    "temperature": (0.0, FLOAT32),
    "top_p": (0.0, 1.0),
    "min_p": (0.0, 1.0),
    "typical_p": (0.0, 1.0),
    # Logits are divided by it.
    "repeat_penalty": (0.01, FLOAT32),
}
"""The least and the largest value of an option; the others may have any of 32 bits."""
MAX_OPTIONS = 256
MAX_STOPS = 256
MAX_NAME = 64
MAX_STOP_LENGTH = 4096
MAX_BIASES = 1024
MAX_BIAS = 100.0


def read_options(
    parameters: Mapping[str, Any], requested: Mapping[str, Any]
) -> tuple[LoadOptions, SamplingOptions]:
    """The options in force: the request's, else the model's PARAMETERs, else the defaults.

    A key with a null value counts as not given; unknown keys are left out with a warning. Raises `BadRequest` that
    names the option for a value of the wrong type or out of range.
    """
    merged = _merged(parameters, requested)
    return _load_options(merged), SamplingOptions(**_sampling_values(merged))


def read_given_options(
    parameters: Mapping[str, Any], requested: Mapping[str, Any]
) -> tuple[LoadOptions, SamplingOptions]:
    """The same for a model on another server, whose own defaults hold for what was not given."""
    merged = _merged(parameters, requested)
    values = _sampling_values(merged)
    return _load_options(merged), GivenOptions(**values, given=tuple(values))


def _merged(parameters: Mapping[str, Any], requested: Mapping[str, Any]) -> dict[str, Any]:
    merged: dict[str, Any] = {}
    unknown: list[str] = []
    for source in (parameters, requested):
        if len(source) > MAX_OPTIONS:
            raise BadRequest(f"options: {len(source)} of them; at most {MAX_OPTIONS} are taken")
        for name, value in source.items():
            if value is None or name in IGNORED:
                continue
            if name in _LOAD or name in _SAMPLING:
                merged[name] = _value(name, value)
            else:
                unknown.append(name[:64])
    if unknown:
        log.warning("invalid option provided: %s", ", ".join(map(repr, unknown)))
    return merged


def _sampling_values(merged: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in merged.items() if name in _SAMPLING}


def _load_options(merged: Mapping[str, Any]) -> LoadOptions:
    """Values that mean "choose for me" count as not given."""
    load = LoadOptions(**{name: value for name, value in merged.items() if name in _LOAD})
    auto = {name: None for name in ("num_ctx", "num_batch", "num_thread") if not getattr(load, name)}
    if load.num_gpu == -1:
        auto["num_gpu"] = None
    return msgspec.structs.replace(load, **auto)


def _value(name: str, value: Any) -> Any:
    if name in _INTEGERS:
        return _integer(name, value)
    if name in _FLOATS:
        return _float(name, value)
    if name == "use_mmap":
        if not isinstance(value, bool):
            raise BadRequest(f'option "{name}" must be of type boolean')
        return value
    if name == "backend":
        return _backend(value)
    return _biases(value) if name == "logit_bias" else _stops(value)


def _integer(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise BadRequest(f'option "{name}" must be of type integer')
    # Some clients send every number as a float.
    return int(_within(*RANGES.get(name, (-INT32, INT32)), name, value))


def _float(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise BadRequest(f'option "{name}" must be of type float32')
    return float(_within(*RANGES.get(name, (-FLOAT32, FLOAT32)), name, value))


def _within(least: float, most: float, name: str, value: float) -> float:
    # NaN is neither above nor below anything.
    if not least <= value <= most:
        raise BadRequest(f'option "{name}" must be between {least} and {most}')
    return value


def _backend(value: Any) -> str | None:
    """The name of a backend; an empty one leaves the choice to us."""
    if not isinstance(value, str):
        raise BadRequest('option "backend" must be of type string')
    if len(value) > MAX_NAME:
        raise BadRequest(f'option "backend" may have {MAX_NAME} characters')
    return value or None


def _stops(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise BadRequest('option "stop" must be of type array')
    if not all(isinstance(item, str) for item in value):
        raise BadRequest('option "stop" must be of an array of strings')
    if len(value) > MAX_STOPS or any(len(item) > MAX_STOP_LENGTH for item in value):
        raise BadRequest(f'option "stop" may have {MAX_STOPS} entries of {MAX_STOP_LENGTH} characters')
    return tuple(value)


def _biases(value: Any) -> dict[int, float]:
    """Numbers of tokens, which JSON has as texts, and what is added to their logits."""
    if not isinstance(value, dict) or len(value) > MAX_BIASES:
        raise BadRequest(f'option "logit_bias" must be an object of at most {MAX_BIASES} tokens')
    read = {}
    for token, bias in value.items():
        if not (token.isascii() and token.isdigit() and len(token) < 10):
            raise BadRequest('option "logit_bias" must have numbers of tokens for keys')
        if isinstance(bias, bool) or not isinstance(bias, int | float):
            raise BadRequest('option "logit_bias" must have numbers for values')
        read[int(token)] = float(_within(-MAX_BIAS, MAX_BIAS, "logit_bias", bias))
    return read
