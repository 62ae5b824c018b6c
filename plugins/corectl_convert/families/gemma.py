"""Gemma 1, 2 and 3. Their norms multiply by one more than what a checkpoint has."""

from __future__ import annotations

import math

from corectl.errors import NotSupported
from corectl_convert.families.llama import (
    IGNORED,
    Sizes,
    attention_weights,
    check_activation,
    decoder_metadata,
    gated_weights,
    norms,
    sizes,
)
from corectl_convert.fields import Fields
from corectl_convert.recipe import Recipe, Value, Weight, in_layers
from corectl_convert.rope import parameters, rope, scaling

PREFIXES = ("model.language_model.", "language_model.model.", "language_model.", "model.")
VISION = (r"^vision_tower\.", r"^multi_modal_projector\.")
OUTPUT = (r"^lm_head\.weight$",)
"""The output layer is the embedding; some checkpoints hold it twice."""

SOFT = ("pre_feedforward_layernorm", "post_feedforward_layernorm")
LARGE_LAYERS = {"gemma2": 46, "gemma3": 62}
"""With so many layers llama.cpp scales queries as the largest model of the family does."""


def _gemma(
    config: Fields, architecture: str, size: Sizes, layer: dict[str, Weight], metadata: dict[str, Value]
) -> Recipe:
    if not config.flag("tie_word_embeddings", True):
        raise NotSupported("config.json: a Gemma model whose tie_word_embeddings is false is not supported")
    layer |= attention_weights(size) | gated_weights(size)
    layer |= norms(size, "input_layernorm", "post_attention_layernorm", add=1.0)
    return Recipe(
        architecture=architecture,
        metadata=decoder_metadata(config, size) | metadata,
        vocabulary=size.vocabulary,
        weights={
            "embed_tokens.weight": Weight((size.vocabulary, size.width)),
            "norm.weight": Weight((size.width,), add=1.0),
            **in_layers(size.layers, layer),
        },
        prefixes=PREFIXES,
        ignored=(*IGNORED, *VISION, *OUTPUT),
    )


def gemma(config: Fields) -> Recipe:
    """Early configurations name an activation that no model was trained with; theirs is the approximate one too."""
    key = "hidden_activation" if config.has("hidden_activation") else "hidden_act"
    check_activation(config, "gelu_pytorch_tanh", "gelu", "gelu_new", key=key)
    size = sizes(config, head=256)
    return _gemma(config, "gemma", size, {}, rope(config, size.head).metadata)


def gemma2(config: Fields) -> Recipe:
    check_activation(config, "gelu_pytorch_tanh", key="hidden_activation")
    size = sizes(config, heads=8, groups=4, head=256)
    _check_scale(config, "gemma2", size)
    _check_windows(config, size, 2)
    for key in ("attn_logit_softcapping", "final_logit_softcapping"):
        if config.says_null(key):
            raise NotSupported(f"config.json: {key} is null, and llama.cpp has no Gemma 2 without it")
    metadata: dict[str, Value] = {
        "attn_logit_softcapping": config.real("attn_logit_softcapping", 50.0, least=1e-3),
        "final_logit_softcapping": config.real("final_logit_softcapping", 30.0, least=1e-3),
        "attention.sliding_window": config.whole("sliding_window", 4096, most=1 << 31),
    }
    turned = rope(config, size.head).metadata
    return _gemma(config, "gemma2", size, norms(size, *SOFT, add=1.0), turned | metadata)


def gemma3(config: Fields) -> Recipe:
    """The language part; what a checkpoint has for images is left out."""
    if config.has("text_config"):
        config = config.section("text_config").over(Fields(config.file, _DEFAULTS))
    check_activation(config, "gelu_pytorch_tanh", key="hidden_activation")
    if config.has("attn_logit_softcapping"):
        raise NotSupported("config.json: attn_logit_softcapping is not supported for Gemma 3")
    size = sizes(config, heads=8, groups=4, head=256)
    _check_scale(config, "gemma3", size)
    _check_windows(config, size, 6)
    metadata = _turned(config, size) | {
        "attention.sliding_window": config.whole("sliding_window", 4096, most=1 << 31)
    }
    if config.has("final_logit_softcapping"):
        metadata["final_logit_softcapping"] = config.real("final_logit_softcapping", least=1e-3)
    layer = norms(size, *SOFT, add=1.0)
    layer |= {f"self_attn.{name}.weight": Weight((size.head,), add=1.0) for name in ("q_norm", "k_norm")}
    return _gemma(config, "gemma3", size, layer, metadata)


_DEFAULTS = {
    "vocab_size": 262_208,
    "max_position_embeddings": 131_072,
}
"""What published configurations leave to the library that they were made for."""


def _turned(config: Fields, size: Sizes) -> dict[str, Value]:
    """Layers with a window have a base of their own, and are not scaled."""
    turned = rope(config, size.head, base=1_000_000.0)
    if turned.factors:
        raise NotSupported("config.json: rotary positions of Gemma 3 that are scaled by their frequency")
    local = parameters(config, "sliding_attention")
    if config.has("rope_parameters") and scaling(local) != "default":
        raise NotSupported("config.json: scaled rotary positions in layers with a window are not supported")
    base = local.real("rope_theta", 10_000.0) if config.has("rope_parameters") else 10_000.0
    return turned.metadata | {"rope.freq_base_swa": config.real("rope_local_base_freq", base, least=1.0)}


def _check_scale(config: Fields, architecture: str, size: Sizes) -> None:
    """llama.cpp knows how queries are scaled; a configuration may say otherwise."""
    large = size.layers == LARGE_LAYERS[architecture]
    known = size.width // size.heads if large else size.head
    if not math.isclose(config.real("query_pre_attn_scalar", 256.0), known):
        raise NotSupported(
            f"config.json: query_pre_attn_scalar is not {known}, as llama.cpp has it for this model"
        )


def _check_windows(config: Fields, size: Sizes, every: int) -> None:
    """llama.cpp has full attention in each second or sixth layer, and windows in the others."""
    kinds = config.texts("layer_types")
    known = ["sliding_attention" if (index + 1) % every else "full_attention" for index in range(size.layers)]
    if kinds and kinds != known:
        raise NotSupported(
            f"config.json: layer_types other than full attention in each layer {every} are not supported"
        )
    for key in ("sliding_window_pattern", "_sliding_window_pattern"):
        if config.has(key) and config.get(key) != every:
            raise NotSupported(f"config.json: {key} other than {every} is not supported")
