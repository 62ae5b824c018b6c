"""What published configurations become, and those that llama.cpp would compute otherwise than transformers."""

from __future__ import annotations

from typing import Any

import pytest

from corectl.errors import BadModelFile, NotSupported
from corectl_convert.families import recipe_of
from corectl_convert.fields import Fields
from corectl_convert.recipe import Recipe

MISTRAL = {
    "architectures": ["MistralForCausalLM"],
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "max_position_embeddings": 32768,
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 8,
    "rms_norm_eps": 1e-05,
    "rope_theta": 10000.0,
    "sliding_window": 4096,
    "tie_word_embeddings": False,
    "vocab_size": 32000,
}
QWEN = {
    **MISTRAL,
    "architectures": ["Qwen2ForCausalLM"],
    "use_sliding_window": False,
    "max_window_layers": 28,
}
GEMMA2 = {
    "architectures": ["Gemma2ForCausalLM"],
    "attn_logit_softcapping": 50.0,
    "final_logit_softcapping": 30.0,
    "head_dim": 128,
    "hidden_activation": "gelu_pytorch_tanh",
    "hidden_size": 4608,
    "intermediate_size": 36864,
    "max_position_embeddings": 8192,
    "num_attention_heads": 32,
    "num_hidden_layers": 46,
    "num_key_value_heads": 16,
    "query_pre_attn_scalar": 144,
    "rms_norm_eps": 1e-06,
    "rope_theta": 10000.0,
    "sliding_window": 4096,
    "vocab_size": 256000,
}
GEMMA3: dict[str, Any] = {
    "architectures": ["Gemma3ForConditionalGeneration"],
    "eos_token_id": [1, 106],
    "mm_tokens_per_image": 256,
    "text_config": {
        "hidden_size": 2560,
        "intermediate_size": 10240,
        "model_type": "gemma3_text",
        "num_hidden_layers": 34,
        "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
        "sliding_window": 1024,
    },
    "vision_config": {"hidden_size": 1152},
}
PHI3: dict[str, Any] = {
    "architectures": ["Phi3ForCausalLM"],
    "hidden_act": "silu",
    "hidden_size": 3072,
    "intermediate_size": 8192,
    "max_position_embeddings": 131072,
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 32,
    "original_max_position_embeddings": 4096,
    "rms_norm_eps": 1e-05,
    "rope_scaling": {"long_factor": [1.5] * 48, "short_factor": [1.1] * 48, "type": "su"},
    "rope_theta": 10000.0,
    "sliding_window": 262144,
    "vocab_size": 32064,
}


def recipe(config: dict[str, Any], **changes: Any) -> Recipe:
    return recipe_of(Fields("config.json", config | changes))


def test_a_context_ends_with_the_window_that_llama_cpp_does_not_have() -> None:
    assert recipe(MISTRAL).metadata["context_length"] == 4096
    assert recipe(MISTRAL, sliding_window=None).metadata["context_length"] == 32768
    assert recipe(MISTRAL, max_position_embeddings=2048).metadata["context_length"] == 2048
    assert recipe(QWEN).metadata["context_length"] == 32768
    assert recipe(QWEN, use_sliding_window=True).metadata["context_length"] == 4096


@pytest.mark.parametrize(
    ("name", "length"),
    [("MistralForCausalLM", 4096), ("MistralModel", 4096), ("MixtralForCausalLM", 32768)],
)
def test_a_window_that_is_left_out_is_that_of_transformers(name: str, length: int) -> None:
    """Mistral has one then, Mixtral none."""
    without = {key: value for key, value in MISTRAL.items() if key != "sliding_window"}
    assert recipe(without, architectures=[name]).metadata["context_length"] == length


def test_what_gemma2_says_is_in_its_keys() -> None:
    metadata = recipe(GEMMA2).metadata
    assert metadata["attn_logit_softcapping"] == 50.0
    assert metadata["final_logit_softcapping"] == 30.0
    assert metadata["attention.sliding_window"] == 4096
    assert metadata["attention.key_length"] == 128


def test_caps_that_gemma2_leaves_out_are_known() -> None:
    caps = ("attn_logit_softcapping", "final_logit_softcapping")
    metadata = recipe({key: value for key, value in GEMMA2.items() if key not in caps}).metadata
    assert [metadata[key] for key in caps] == [50.0, 30.0]


def test_what_gemma3_leaves_out_is_known() -> None:
    made = recipe(GEMMA3)
    assert made.vocabulary == 262_208
    assert made.metadata["context_length"] == 131_072
    assert made.metadata["attention.head_count"] == 8
    assert made.metadata["attention.head_count_kv"] == 4
    assert made.metadata["rope.freq_base"] == 1e6
    assert made.metadata["rope.freq_base_swa"] == 1e4
    assert made.metadata["rope.scaling.factor"] == 8.0


def test_phi3_has_two_lists_of_factors() -> None:
    made = recipe(PHI3)
    assert made.factors == {
        "rope_factors_long.weight": [1.5] * 48,
        "rope_factors_short.weight": [1.1] * 48,
    }
    assert made.metadata["rope.scaling.original_context_length"] == 4096
    assert made.metadata["rope.scaling.attn_factor"] == pytest.approx(1.1902380714)
    assert made.metadata["attention.sliding_window"] == 262144


def test_phi4_mini_turns_a_part_of_each_head() -> None:
    scaling = {"long_factor": [1.5] * 36, "short_factor": [1.1] * 36, "type": "longrope"}
    made = recipe(PHI3, partial_rotary_factor=0.75, rope_scaling=scaling, tie_word_embeddings=True)
    assert made.metadata["rope.dimension_count"] == 72
    assert "lm_head.weight" not in made.weights


@pytest.mark.parametrize(
    ("config", "changes", "said"),
    [
        (GEMMA2, {"query_pre_attn_scalar": 128}, "query_pre_attn_scalar"),
        (GEMMA2, {"layer_types": ["full_attention"] * 46}, "layer_types"),
        (GEMMA2, {"hidden_activation": "silu"}, "hidden_activation"),
        (GEMMA2, {"tie_word_embeddings": False}, "tie_word_embeddings"),
        (GEMMA2, {"attn_logit_softcapping": None}, "attn_logit_softcapping"),
        (GEMMA2, {"final_logit_softcapping": None}, "final_logit_softcapping"),
        (
            GEMMA3,
            {"text_config": {**GEMMA3["text_config"], "sliding_window_pattern": 3}},
            "sliding_window_pattern",
        ),
        (GEMMA3, {"text_config": {**GEMMA3["text_config"], "attn_logit_softcapping": 50.0}}, "softcapping"),
        (PHI3, {"rope_scaling": {"type": "yarn", "factor": 2.0}}, "yarn"),
        (QWEN, {"rope_scaling": {"type": "longrope"}}, "longrope"),
        (QWEN, {"rope_scaling": {"type": "yarn", "factor": 4.0, "mscale": 1.0}}, "mscale"),
        (MISTRAL, {"num_key_value_heads": 5}, "num_key_value_heads"),
    ],
)
def test_what_llama_cpp_computes_otherwise_is_refused(
    config: dict[str, Any], changes: dict[str, Any], said: str
) -> None:
    recipe(config)
    with pytest.raises(NotSupported, match=said):
        recipe(config, **changes)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"rope_scaling": {"type": "longrope", "long_factor": [1.0] * 47}}, "rope_scaling.long_factor"),
        ({"rope_scaling": {"type": "longrope", "long_factor": [0] * 48}}, r"rope_scaling.long_factor\.0"),
        ({"partial_rotary_factor": 7}, "partial_rotary_factor"),
        ({"head_dim": 64}, "head_dim"),
    ],
)
def test_factors_that_cannot_be_are_named(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(BadModelFile, match=said):
        recipe(PHI3, **changes)
