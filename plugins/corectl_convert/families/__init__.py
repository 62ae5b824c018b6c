"""The families of architectures, by the names that transformers has for them."""

from __future__ import annotations

import msgspec

from corectl.errors import BadModelFile, NotSupported
from corectl_convert.families.bert import bert, nomic_bert, roberta
from corectl_convert.families.gemma import gemma, gemma2, gemma3
from corectl_convert.families.llama import llama, mistral, mixtral
from corectl_convert.families.phi import phi3
from corectl_convert.families.qwen import qwen2, qwen3
from corectl_convert.fields import Fields
from corectl_convert.recipe import Describe, Recipe

FAMILIES: dict[str, Describe] = {
    "LlamaForCausalLM": llama,
    "LlamaModel": llama,
    "MistralForCausalLM": mistral,
    "MistralModel": mistral,
    "MixtralForCausalLM": mixtral,
    "GemmaForCausalLM": gemma,
    "Gemma2ForCausalLM": gemma2,
    "Gemma3ForCausalLM": gemma3,
    "Gemma3ForConditionalGeneration": gemma3,
    "Phi3ForCausalLM": phi3,
    "Qwen2ForCausalLM": qwen2,
    "Qwen2Model": qwen2,
    "Qwen3ForCausalLM": qwen3,
    "Qwen3Model": qwen3,
    "BertModel": bert,
    "BertForMaskedLM": bert,
    "RobertaModel": roberta,
    "RobertaForMaskedLM": roberta,
    "XLMRobertaModel": roberta,
    "XLMRobertaForMaskedLM": roberta,
    "NomicBertModel": nomic_bert,
}
"""By what `architectures` in config.json says."""

QUANTIZED = ("quantization_config", "quantization")
"""Fields of config.json that say that weights are quantised: by transformers and its friends, and by MLX."""


def recipe_of(config: Fields) -> Recipe:
    """How a checkpoint is converted. Raises `BadModelFile` and `NotSupported`."""
    names = config.texts("architectures")
    if not names:
        raise BadModelFile("config.json: architectures is missing")
    describe = FAMILIES.get(names[0])
    if describe is None:
        raise NotSupported(f'unsupported architecture "{names[0][:80]}"')
    for key in QUANTIZED:
        if config.has(key):
            raise NotSupported(f"config.json: {key}: the weights are quantised, and cannot be converted")
    recipe = describe(config)
    if names[0].endswith("Model") and not recipe.pooled:
        return _without_output(recipe)
    return recipe


def _without_output(recipe: Recipe) -> Recipe:
    """A decoder whose last states are wanted, and no tokens."""
    weights = {name: weight for name, weight in recipe.weights.items() if name != "lm_head.weight"}
    return msgspec.structs.replace(recipe, weights=weights, pooled=True)
