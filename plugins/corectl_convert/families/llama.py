"""Llama, Mistral and Mixtral, and what all decoders of their kind have in common."""

from __future__ import annotations

import msgspec

from corectl.errors import NotSupported
from corectl_convert.fields import Fields
from corectl_convert.recipe import Recipe, Value, Weight, in_layers
from corectl_convert.rope import rope

LAYERS = 1024
"""Most layers."""

MISTRAL_WINDOW = 4096
"""What transformers has for a Mistral model that says nothing."""

PREFIXES = ("model.",)
IGNORED = (r"rotary_emb\.inv_freq$", r"\.attention\.(masked_)?bias$")


class Sizes(msgspec.Struct, frozen=True):
    """The sizes of a decoder, and how many there are of what."""

    width: int
    inner: int
    layers: int
    heads: int
    groups: int
    head: int
    vocabulary: int
    context: int

    def __post_init__(self) -> None:
        if self.heads % self.groups:
            raise NotSupported("config.json: num_attention_heads is not a multiple of num_key_value_heads")


def sizes(config: Fields, *, heads: int | None = None, groups: int = 0, head: int = 0) -> Sizes:
    """What config.json says; `heads`, `groups` and `head` are defaults of the architecture."""
    width = config.whole("hidden_size")
    count = config.whole("num_attention_heads", heads, most=1 << 16)
    if not config.has("head_dim") and not head and width % count:
        raise config.bad("num_attention_heads", f"is {count}, which does not divide hidden_size")
    return Sizes(
        width=width,
        inner=config.whole("intermediate_size"),
        layers=config.whole("num_hidden_layers", most=LAYERS),
        heads=count,
        groups=config.whole("num_key_value_heads", groups or count, most=1 << 16),
        head=config.whole("head_dim", head or width // count, least=2, most=1 << 16),
        vocabulary=config.whole("vocab_size"),
        context=config.whole("max_position_embeddings", most=(1 << 31) - 1),
    )


def decoder_metadata(config: Fields, size: Sizes) -> dict[str, Value]:
    """Keys that each decoder has."""
    return {
        "block_count": size.layers,
        "context_length": size.context,
        "embedding_length": size.width,
        "feed_forward_length": size.inner,
        "attention.head_count": size.heads,
        "attention.head_count_kv": size.groups,
        "attention.key_length": size.head,
        "attention.value_length": size.head,
        "attention.layer_norm_rms_epsilon": config.real("rms_norm_eps", 1e-6, most=1.0),
        "vocab_size": size.vocabulary,
    }


def outer_weights(config: Fields, size: Sizes, *, tied: bool) -> dict[str, Weight]:
    """Embeddings, the last norm, and the output layer, where it is one of its own."""
    shape = (size.vocabulary, size.width)
    found = {"embed_tokens.weight": Weight(shape), "norm.weight": Weight((size.width,))}
    if not config.flag("tie_word_embeddings", tied):
        found["lm_head.weight"] = Weight(shape, target="lm_head.weight")
    return found


def attention_weights(size: Sizes, *, interleaved: bool = False) -> dict[str, Weight]:
    """Queries, keys, values and output, with biases if the checkpoint has them."""
    queries, keys = size.heads * size.head, size.groups * size.head
    rows = {
        "q_proj": (queries, size.heads if interleaved else 0),
        "k_proj": (keys, size.groups if interleaved else 0),
        "v_proj": (keys, 0),
    }
    found = {
        f"self_attn.{name}.weight": Weight((count, size.width), heads=heads)
        for name, (count, heads) in rows.items()
    }
    found |= {
        f"self_attn.{name}.bias": Weight((count,), heads=heads, optional=True)
        for name, (count, heads) in rows.items()
    }
    return found | {
        "self_attn.o_proj.weight": Weight((size.width, queries)),
        "self_attn.o_proj.bias": Weight((size.width,), optional=True),
    }


def gated_weights(size: Sizes) -> dict[str, Weight]:
    """A feed-forward network with a gate."""
    shapes = {
        "gate_proj": (size.inner, size.width),
        "up_proj": (size.inner, size.width),
        "down_proj": (size.width, size.inner),
    }
    found = {f"mlp.{name}.weight": Weight(shape) for name, shape in shapes.items()}
    return found | {f"mlp.{name}.bias": Weight(shape[:1], optional=True) for name, shape in shapes.items()}


def norms(size: Sizes, *names: str, add: float = 0.0) -> dict[str, Weight]:
    return {f"{name}.weight": Weight((size.width,), add=add) for name in names}


def check_activation(config: Fields, *allowed: str, key: str = "hidden_act") -> None:
    """The first of those that are `allowed` is the default."""
    found = config.text(key, allowed[0])
    if found not in allowed:
        raise NotSupported(f"config.json: {key} {found!r:.40} is not supported for this architecture")


def within_window(config: Fields, size: Sizes) -> Sizes:
    """With a context no longer than the window of attention, where llama.cpp has none for the architecture.

    Up to there the window changes nothing; beyond it the model would see what it was not made to see.
    """
    if not config.has("sliding_window"):
        return size
    return msgspec.structs.replace(
        size, context=min(size.context, config.whole("sliding_window", most=1 << 31))
    )


def _common(config: Fields, feed_forward: dict[str, Weight], size: Sizes, extra: dict[str, Value]) -> Recipe:
    check_activation(config, "silu", "swish")
    turned = rope(config, size.head)
    layer = norms(size, "input_layernorm", "post_attention_layernorm")
    layer |= attention_weights(size, interleaved=True) | feed_forward
    return Recipe(
        architecture="llama",
        metadata=decoder_metadata(config, size) | turned.metadata | extra,
        vocabulary=size.vocabulary,
        weights=outer_weights(config, size, tied=False) | in_layers(size.layers, layer),
        prefixes=PREFIXES,
        ignored=IGNORED,
        factors=turned.factors,
    )


def llama(config: Fields) -> Recipe:
    size = within_window(config, sizes(config))
    return _common(config, gated_weights(size), size, {})


def mistral(config: Fields) -> Recipe:
    """Llama with a window, also where the configuration leaves it out; null says that there is none."""
    if not config.says_null("sliding_window"):
        config = config.over(Fields(config.file, {"sliding_window": MISTRAL_WINDOW}))
    return llama(config)


def mixtral(config: Fields) -> Recipe:
    """Mistral with experts, each of which has its own tensors in a checkpoint."""
    size = within_window(config, sizes(config, groups=8))
    experts = config.whole("num_local_experts", 8, most=1 << 10)
    shapes = {"w1": (size.inner, size.width), "w2": (size.width, size.inner), "w3": (size.inner, size.width)}
    feed_forward = {
        f"block_sparse_moe.experts.{{expert}}.{name}.weight": Weight(
            shape, experts=experts, target=f"feed_forward.experts.{name}.weight"
        )
        for name, shape in shapes.items()
    }
    feed_forward["block_sparse_moe.gate.weight"] = Weight((experts, size.width))
    used = config.whole("num_experts_per_tok", 2, most=experts)
    return _common(config, feed_forward, size, {"expert_count": experts, "expert_used_count": used})
