"""Phi-3 and Phi-4: queries, keys and values in one tensor, gate and input in another, two lists of rotary factors."""

from __future__ import annotations

import math

from corectl.errors import NotSupported
from corectl_convert.families.llama import (
    IGNORED,
    PREFIXES,
    Sizes,
    check_activation,
    decoder_metadata,
    norms,
    outer_weights,
    sizes,
)
from corectl_convert.fields import Fields
from corectl_convert.recipe import Recipe, Value, Weight, in_layers
from corectl_convert.rope import Rope, parameters, scaling


def phi3(config: Fields) -> Recipe:
    check_activation(config, "silu", "swish")
    size = sizes(config)
    if size.heads * size.head != size.width:
        raise config.bad("head_dim", "times num_attention_heads is not hidden_size")
    turned = _turned(config, size)
    layer = norms(size, "input_layernorm", "post_attention_layernorm") | {
        "self_attn.qkv_proj.weight": Weight(((size.heads + 2 * size.groups) * size.head, size.width)),
        "self_attn.o_proj.weight": Weight((size.width, size.width)),
        "mlp.gate_up_proj.weight": Weight((2 * size.inner, size.width)),
        "mlp.down_proj.weight": Weight((size.width, size.inner)),
    }
    window = config.whole("sliding_window", most=1 << 31) if config.has("sliding_window") else 0
    return Recipe(
        architecture="phi3",
        metadata=decoder_metadata(config, size) | turned.metadata | {"attention.sliding_window": window},
        vocabulary=size.vocabulary,
        weights=outer_weights(config, size, tied=False) | in_layers(size.layers, layer),
        prefixes=PREFIXES,
        ignored=IGNORED,
        factors=turned.factors,
    )


def _turned(config: Fields, size: Sizes) -> Rope:
    """There are two lists of factors, one for contexts that the model was first made for, one for longer ones."""
    found = parameters(config)
    part = found.real(
        "partial_rotary_factor", config.real("partial_rotary_factor", 1.0), least=0.01, most=1.0
    )
    turned = int(size.head * part)
    trained = found.whole(
        "original_max_position_embeddings",
        config.whole("original_max_position_embeddings", size.context, most=1 << 31),
        most=1 << 31,
    )
    metadata: dict[str, Value] = {
        "rope.dimension_count": turned,
        "rope.freq_base": found.real("rope_theta", config.real("rope_theta", 10_000.0), least=1.0),
        "rope.scaling.original_context_length": trained,
    }
    kind = scaling(found)
    if kind == "default":
        return Rope(metadata)
    if kind not in ("longrope", "su"):
        raise NotSupported(
            f"config.json: rotary positions that are scaled as {kind!r:.40} are not supported for Phi-3"
        )
    stretch = size.context / trained
    factor = math.sqrt(1 + math.log(stretch) / math.log(trained)) if stretch > 1 and trained > 1 else 1.0
    metadata["rope.scaling.attn_factor"] = found.real("attention_factor", factor, least=1e-3, most=1e3)
    factors = {
        f"rope_factors_{name}.weight": found.reals(f"{name}_factor", turned // 2)
        for name in ("long", "short")
    }
    return Rope(metadata, factors)
