"""Rotary positions: the base, and how it is scaled for contexts that are longer than a model was first made for."""

from __future__ import annotations

import math

import msgspec

from corectl.errors import NotSupported
from corectl_convert.fields import Fields
from corectl_convert.recipe import Value


class Rope(msgspec.Struct, frozen=True):
    """Keys of a GGUF file, and factors for each frequency."""

    metadata: dict[str, Value]
    factors: dict[str, list[float]] = {}


def parameters(config: Fields, kind: str = "full_attention") -> Fields:
    """What a configuration says of rotary positions, in the present layout or in the older one.

    The older one has the base in `rope_theta`, and `rope_scaling` where it is scaled. The present one has it all in
    `rope_parameters`, some models for each kind of attention.
    """
    if config.has("rope_parameters"):
        found = config.section("rope_parameters")
        return found.section(kind) if found.has(kind) else found
    return config.section("rope_scaling")


def scaling(found: Fields) -> str:
    """The name of the scaling: `default` is none."""
    return found.text("rope_type", found.text("type", "default"))


def rope(config: Fields, size: int, *, base: float = 10_000.0) -> Rope:
    """For heads of a `size`. Raises `NotSupported` for a scaling that llama.cpp does not know."""
    found = parameters(config)
    theta = found.real("rope_theta", config.real("rope_theta", base), least=1.0)
    metadata: dict[str, Value] = {"rope.freq_base": theta, "rope.dimension_count": size}
    kind = scaling(found)
    if kind == "default":
        return Rope(metadata)
    if kind == "linear":
        return Rope(metadata | _scaled("linear", found))
    if kind == "yarn":
        return Rope(metadata | _scaled("yarn", found) | _yarn(config, found))
    if kind == "llama3":
        return Rope(metadata, {"rope_freqs.weight": _by_wave_length(found, theta, size)})
    raise NotSupported(f"config.json: rotary positions that are scaled as {kind!r:.40} are not supported")


def _scaled(kind: str, found: Fields) -> dict[str, Value]:
    return {"rope.scaling.type": kind, "rope.scaling.factor": found.real("factor", least=1.0, most=1e6)}


def _yarn(config: Fields, found: Fields) -> dict[str, Value]:
    for key in ("mscale", "mscale_all_dim", "attention_factor"):
        if found.has(key):
            raise NotSupported(
                f"config.json: scaling of rotary positions by yarn with {key} is not supported"
            )
    longest = config.whole("max_position_embeddings", most=1 << 31)
    return {
        "rope.scaling.original_context_length": found.whole(
            "original_max_position_embeddings", longest, most=1 << 31
        ),
        "rope.scaling.yarn_beta_fast": found.real("beta_fast", 32.0),
        "rope.scaling.yarn_beta_slow": found.real("beta_slow", 1.0),
    }


def _by_wave_length(found: Fields, theta: float, size: int) -> list[float]:
    """Llama 3.1: long waves are stretched, short ones are not, and those between are by how long they are."""
    factor = found.real("factor", least=1.0, most=1e6)
    low = found.real("low_freq_factor", least=1e-6)
    high = found.real("high_freq_factor", least=1e-6)
    trained = found.whole("original_max_position_embeddings", most=1 << 31)
    if high <= low:
        raise found.bad("high_freq_factor", f"is {high:g}, not above low_freq_factor")
    factors = []
    for index in range(0, size, 2):
        wave = 2 * math.pi * theta ** (index / size)
        if wave < trained / high:
            factors.append(1.0)
        elif wave > trained / low:
            factors.append(factor)
        else:
            smooth = (trained / wave - low) / (high - low)
            factors.append(1 / ((1 - smooth) / factor + smooth))
    return factors
