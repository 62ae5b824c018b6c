"""BERT and its kin: encoders that give a vector for a text."""

from __future__ import annotations

from corectl.errors import NotSupported
from corectl_convert.families.llama import LAYERS, check_activation
from corectl_convert.fields import Fields
from corectl_convert.recipe import Recipe, Value, Weight, in_layers

HEADS = (r"^pooler\.", r"^cls\.", r"^lm_head\.", r"position_ids$")
"""What was for the training of a model, or for something else than vectors."""

NOMIC_TRAINED = 2048
"""Tokens. Beyond them the authors scale the positions while the model runs, which llama.cpp does not do."""


def bert(config: Fields, *, skip: int = 0, tokenizers: tuple[str, ...] = ("bert", "t5")) -> Recipe:
    """Positions are learned; the first `skip` of them are of no token."""
    check_activation(config, "gelu")
    if config.text("position_embedding_type", "absolute") != "absolute":
        raise NotSupported("config.json: position_embedding_type other than absolute is not supported")
    if config.flag("is_decoder", False):
        raise NotSupported("config.json: a BERT model that is_decoder is not supported")
    width, inner = config.whole("hidden_size"), config.whole("intermediate_size")
    positions = config.whole("max_position_embeddings", least=skip + 1)
    types, vocabulary = config.whole("type_vocab_size", 2, most=1 << 10), config.whole("vocab_size")
    layers = config.whole("num_hidden_layers", most=LAYERS)
    outer = {
        "embeddings.word_embeddings.weight": Weight((vocabulary, width)),
        "embeddings.position_embeddings.weight": Weight((positions, width), skip=skip),
        "embeddings.token_type_embeddings.weight": Weight((types, width)),
        **_norm("embeddings.LayerNorm", width),
    }
    layer = {
        **_linear("attention.self.query", width, width),
        **_linear("attention.self.key", width, width),
        **_linear("attention.self.value", width, width),
        **_linear("attention.output.dense", width, width),
        **_norm("attention.output.LayerNorm", width),
        **_linear("intermediate.dense", inner, width),
        **_linear("output.dense", width, inner),
        **_norm("output.LayerNorm", width),
    }
    metadata = _metadata(
        context=positions - skip,
        width=width,
        inner=inner,
        layers=layers,
        heads=config.whole("num_attention_heads", most=1 << 16),
        epsilon=config.real("layer_norm_eps", 1e-12, most=1.0),
    )
    return Recipe(
        architecture="bert",
        metadata=metadata | {"tokenizer.ggml.token_type_count": types},
        vocabulary=vocabulary,
        weights=outer | in_layers(layers, layer, "encoder.layer.{}."),
        prefixes=("bert.", "roberta."),
        root="",
        ignored=HEADS,
        pooled=True,
        tokenizers=tokenizers,
    )


def roberta(config: Fields) -> Recipe:
    """Also XLM-RoBERTa. Positions are counted from the one after that of the padding token."""
    padding = config.whole("pad_token_id", 1, least=0, most=1 << 10)
    return bert(config, skip=padding + 1, tokenizers=("gpt2", "t5"))


def nomic_bert(config: Fields) -> Recipe:
    """Positions are rotary, the feed-forward network has a gate, and there are no biases.

    A configuration has the names of the authors' own code, or those of transformers.
    """
    if config.has("n_embd"):
        return _nomic(_renamed(config))
    if config.has("hidden_size"):
        return _nomic(config)
    raise config.bad("n_embd", "is missing")


def _renamed(config: Fields) -> Fields:
    known = {
        "prenorm": False,
        "qkv_proj_bias": False,
        "mlp_fc1_bias": False,
        "mlp_fc2_bias": False,
        "rotary_emb_fraction": 1.0,
        "rotary_emb_interleaved": False,
        "activation_function": "swiglu",
        "causal": False,
        "use_rms_norm": False,
        "parallel_block": False,
    }
    for key, value in known.items():
        if config.has(key) and config.get(key) != value:
            raise NotSupported(f"config.json: {key} {config.get(key)!r:.40} is not supported")
    if config.has("moe_every_n_layers") and config.get("moe_every_n_layers"):
        raise NotSupported(
            "config.json: a NomicBERT model with experts (moe_every_n_layers) is not supported"
        )
    if config.has("rotary_emb_scale_base"):
        raise NotSupported("config.json: rotary_emb_scale_base is not supported")
    return Fields(
        config.file,
        {
            "hidden_size": config.whole("n_embd"),
            "intermediate_size": config.whole("n_inner", 4 * config.whole("n_embd")),
            "num_hidden_layers": config.whole("n_layer", most=LAYERS),
            "num_attention_heads": config.whole("n_head", most=1 << 16),
            "max_position_embeddings": config.whole("n_positions"),
            "layer_norm_eps": config.real("layer_norm_epsilon", 1e-12, most=1.0),
            "type_vocab_size": config.whole("type_vocab_size", 2, most=1 << 10),
            "vocab_size": config.whole("vocab_size"),
            "rope_theta": config.real("rotary_emb_base", 10_000.0, least=1.0),
        },
    )


def _nomic(config: Fields) -> Recipe:
    check_activation(config, "silu", "swish")
    width, inner = config.whole("hidden_size"), config.whole("intermediate_size")
    types, vocabulary = config.whole("type_vocab_size", 2, most=1 << 10), config.whole("vocab_size")
    layers = config.whole("num_hidden_layers", most=LAYERS)
    layer = {
        "attn.Wqkv.weight": Weight((3 * width, width)),
        "attn.out_proj.weight": Weight((width, width)),
        "mlp.fc11.weight": Weight((inner, width)),
        "mlp.fc12.weight": Weight((inner, width)),
        "mlp.fc2.weight": Weight((width, inner)),
        **_norm("norm1", width),
        **_norm("norm2", width),
    }
    metadata = _metadata(
        context=min(config.whole("max_position_embeddings"), NOMIC_TRAINED),
        width=width,
        inner=inner,
        layers=layers,
        heads=config.whole("num_attention_heads", most=1 << 16),
        epsilon=config.real("layer_norm_eps", 1e-12, most=1.0),
    )
    parameters = config.section("rope_parameters")
    base = parameters.real("rope_theta", config.real("rope_theta", 1_000.0, least=1.0), least=1.0)
    return Recipe(
        architecture="nomic-bert",
        metadata=metadata | {"rope.freq_base": base, "tokenizer.ggml.token_type_count": types},
        vocabulary=vocabulary,
        weights={
            "embeddings.word_embeddings.weight": Weight((vocabulary, width)),
            "embeddings.token_type_embeddings.weight": Weight((types, width)),
            **_norm("emb_ln", width),
            **in_layers(layers, layer, "encoder.layers.{}."),
        },
        prefixes=("bert.",),
        root="",
        ignored=HEADS,
        pooled=True,
        tokenizers=("bert",),
    )


def _metadata(
    *, context: int, width: int, inner: int, layers: int, heads: int, epsilon: float
) -> dict[str, Value]:
    return {
        "block_count": layers,
        "context_length": context,
        "embedding_length": width,
        "feed_forward_length": inner,
        "attention.head_count": heads,
        "attention.layer_norm_epsilon": epsilon,
        "attention.causal": False,
    }


def _linear(name: str, rows: int, columns: int) -> dict[str, Weight]:
    return {f"{name}.weight": Weight((rows, columns)), f"{name}.bias": Weight((rows,))}


def _norm(name: str, width: int) -> dict[str, Weight]:
    """Early checkpoints call weight and bias of a norm `gamma` and `beta`; see `Checkpoint`."""
    return {f"{name}.weight": Weight((width,)), f"{name}.bias": Weight((width,))}
