"""Qwen2, with biases in its attention, and Qwen3, with norms there."""

from __future__ import annotations

from corectl_convert.families.llama import (
    IGNORED,
    PREFIXES,
    Sizes,
    attention_weights,
    check_activation,
    decoder_metadata,
    gated_weights,
    norms,
    outer_weights,
    sizes,
    within_window,
)
from corectl_convert.fields import Fields
from corectl_convert.recipe import Recipe, Weight, in_layers
from corectl_convert.rope import rope


def _qwen(config: Fields, architecture: str, size: Sizes, extra: dict[str, Weight]) -> Recipe:
    check_activation(config, "silu", "swish")
    if config.flag("use_sliding_window", False):
        size = within_window(config, size)
    turned = rope(config, size.head)
    layer = norms(size, "input_layernorm", "post_attention_layernorm")
    layer |= attention_weights(size) | gated_weights(size) | extra
    return Recipe(
        architecture=architecture,
        metadata=decoder_metadata(config, size) | turned.metadata,
        vocabulary=size.vocabulary,
        weights=outer_weights(config, size, tied=False) | in_layers(size.layers, layer),
        prefixes=PREFIXES,
        ignored=IGNORED,
        factors=turned.factors,
    )


def qwen2(config: Fields) -> Recipe:
    return _qwen(config, "qwen2", sizes(config), {})


def qwen3(config: Fields) -> Recipe:
    size = sizes(config, head=128)
    return _qwen(
        config,
        "qwen3",
        size,
        {f"self_attn.{name}.weight": Weight((size.head,)) for name in ("q_norm", "k_norm")},
    )
