"""Random checkpoints of each architecture: llama.cpp computes from their conversions what transformers computes."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.plugins.convert_kit import (
    VOCABULARY,
    Array,
    byte_level,
    change_json,
    converted,
    logits_of,
    sentencepiece,
)

torch = pytest.importorskip("torch", reason="transformers computes with torch")
transformers = pytest.importorskip("transformers")
pytest.importorskip("llama_cpp")

COMMON: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
    "tie_word_embeddings": False,
}
WIDE = {"head_dim": 32}
"""Heads that are wider together than the model."""

GEMMA = {"head_dim": 16, "tie_word_embeddings": True, "hidden_activation": "gelu_pytorch_tanh"}
WINDOW = {"sliding_window": 16, "query_pre_attn_scalar": 16}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10_000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
YARN = {
    "rope_type": "yarn",
    "rope_theta": 10_000.0,
    "factor": 4.0,
    "original_max_position_embeddings": 64,
}
LONG: dict[str, Any] = {
    "rope_type": "longrope",
    "rope_theta": 10_000.0,
    "short_factor": [1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 1.7],
    "long_factor": [1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 9.0],
}

CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", {}),
    "llama-tied-wide": ("Llama", {**WIDE, "tie_word_embeddings": True}),
    "llama-biases": ("Llama", {"attention_bias": True, "mlp_bias": True}),
    "llama3": ("Llama", {"rope_parameters": LLAMA3}),
    "llama-linear": (
        "Llama",
        {"rope_parameters": {"rope_type": "linear", "rope_theta": 10_000.0, "factor": 2.0}},
    ),
    "mistral": ("Mistral", {**WIDE, "sliding_window": None}),
    "mixtral": ("Mixtral", {"num_local_experts": 4, "num_experts_per_tok": 2}),
    "gemma": ("Gemma", {**GEMMA}),
    "gemma2": ("Gemma2", {**GEMMA, **WINDOW, "num_hidden_layers": 3}),
    "gemma3": ("Gemma3", {**GEMMA, **WINDOW, "num_hidden_layers": 7}),
    "phi3": ("Phi3", {}),
    "qwen2": ("Qwen2", {}),
    "qwen2-yarn": ("Qwen2", {"rope_parameters": YARN}),
    "qwen3": ("Qwen3", {**WIDE}),
}


def written(folder: Path, name: str, **changes: Any) -> Any:
    """A random model, saved as transformers saves it, with a tokenizer beside it."""
    kind, values = name, {**COMMON, **changes}
    config_name = f"{kind}TextConfig" if kind == "Gemma3" else f"{kind}Config"
    config = getattr(transformers, config_name)(**values)
    model = randomized(getattr(transformers, f"{kind}ForCausalLM")(config))
    save(model, folder, sentencepiece() if kind not in ("Qwen2", "Qwen3") else byte_level())
    return model


def randomized(model: Any) -> Any:
    """Norms and biases too, which begin as ones and zeros: what is done to them has to show."""
    torch.manual_seed(7)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(torch.randn_like(parameter) * 0.2)
            else:
                parameter.copy_(torch.randn_like(parameter) * 0.15)
    return model.eval().float()


def save(model: Any, folder: Path, tokenizer: Any) -> None:
    model.save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))


def reference(model: Any, tokens: list[int]) -> Array:
    with torch.no_grad():
        return np.asarray(model(torch.tensor([tokens])).logits[0].numpy(), np.float32)


def some_tokens(count: int = 40) -> list[int]:
    return [int(token) for token in np.random.default_rng(3).integers(5, 300, count)]


def assert_same(found: Array, expected: Array) -> None:
    """The same but for rounding, and with it the same greedy tokens where there is no tie."""
    assert np.std(expected) > 0.1
    np.testing.assert_allclose(found[:, : expected.shape[1]], expected, atol=2e-3 * np.abs(expected).max())
    best = np.sort(expected, axis=1)
    clear = best[:, -1] - best[:, -2] > 1e-2 * np.abs(expected).max()
    assert clear.any()
    np.testing.assert_array_equal(found.argmax(1)[clear], expected.argmax(1)[clear])


@pytest.mark.parametrize("name", CASES)
def test_logits_are_those_of_transformers(tmp_path: Path, name: str) -> None:
    kind, changes = CASES[name]
    model = written(tmp_path / "m", kind, **changes)
    tokens = some_tokens()
    assert_same(logits_of(converted(tmp_path / "m"), tokens), reference(model, tokens))


@pytest.mark.parametrize(("count", "context"), [(20, 256), (300, 512)])
def test_rotary_factors_of_phi3_are_those_for_the_context(tmp_path: Path, count: int, context: int) -> None:
    model = written(
        tmp_path / "m",
        "Phi3",
        rope_parameters=LONG,
        original_max_position_embeddings=256,
        max_position_embeddings=1024,
    )
    tokens = some_tokens(count)
    found = logits_of(converted(tmp_path / "m"), tokens, context=context)
    assert_same(found, reference(model, tokens))


def test_configurations_of_earlier_versions_mean_the_same(tmp_path: Path) -> None:
    """The base and the scaling of rotary positions had fields of their own."""
    model = written(tmp_path / "m", "Llama", rope_parameters=LLAMA3)
    scaling = {key: value for key, value in LLAMA3.items() if key != "rope_theta"}
    change_json(tmp_path / "m/config.json", rope_parameters=None, rope_theta=10_000.0, rope_scaling=scaling)
    tokens = some_tokens()
    assert_same(logits_of(converted(tmp_path / "m"), tokens), reference(model, tokens))


def test_the_language_part_of_gemma3_is_converted(tmp_path: Path) -> None:
    text = {**COMMON, **GEMMA, **WINDOW, "num_hidden_layers": 7}
    vision = {
        "hidden_size": 32,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "image_size": 28,
        "patch_size": 14,
    }
    config = transformers.Gemma3Config(
        text_config=text, vision_config=vision, mm_tokens_per_image=4, image_token_index=VOCABULARY - 1
    )
    model = randomized(transformers.Gemma3ForConditionalGeneration(config))
    save(model, tmp_path / "m", sentencepiece(prefix=False))
    tokens = some_tokens()
    assert_same(logits_of(converted(tmp_path / "m"), tokens), reference(model, tokens))


def test_weights_in_several_files_are_one_model(tmp_path: Path) -> None:
    model = written(tmp_path / "m", "Llama")
    (tmp_path / "m/model.safetensors").unlink()
    model.save_pretrained(tmp_path / "m", max_shard_size="40KB")
    assert len(list((tmp_path / "m").glob("*.safetensors"))) > 2
    tokens = some_tokens()
    assert_same(logits_of(converted(tmp_path / "m"), tokens), reference(model, tokens))


def test_half_precision_is_as_exact_as_that(tmp_path: Path) -> None:
    """BF16 is what most checkpoints hold."""
    model = written(tmp_path / "m", "Llama")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter.bfloat16())
    copy.deepcopy(model).bfloat16().save_pretrained(tmp_path / "m")
    tokens = some_tokens()
    assert_same(logits_of(converted(tmp_path / "m"), tokens), reference(model, tokens))
