"""The safetensors model format: a folder with config.json, a tokenizer, and weights in safetensors files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from corectl import hookimpl
from corectl.errors import BadModelFile
from corectl.model.files import ModelFiles
from corectl.model.formats import ModelDescription, ModelDetails, ModelFormat, TensorSummary
from corectl.model.hf import chat_template_of, config_of, whole_number
from corectl_safetensors.header import Tensor, read_headers

corectl_api = 1

SUFFIX = ".safetensors"

_NUMBERS = {
    "num_hidden_layers": "block_count",
    "max_position_embeddings": "context_length",
    "hidden_size": "embedding_length",
    "intermediate_size": "feed_forward_length",
    "num_attention_heads": "attention.head_count",
    "num_key_value_heads": "attention.head_count_kv",
    "num_local_experts": "expert_count",
    "num_experts_per_tok": "expert_used_count",
    "vocab_size": "vocab_size",
}
"""What config.json calls the sizes of a model, and what GGUF calls them."""


class Safetensors:
    """Weights as the libraries transformers and MLX write them, quantised by MLX or not."""

    name = "safetensors"

    def claims(self, files: ModelFiles) -> bool:
        return "config.json" in files.named and any(name.endswith(SUFFIX) for name in files.named)

    def describe(self, files: ModelFiles) -> ModelDescription:
        config, tensors = config_of(files), _tensors(files)
        architecture, sizes = _architecture(config), _sizes(config)
        bits = _bits(config)
        return ModelDescription(
            architecture=architecture,
            parameter_count=_parameters(tensors, bits),
            quantization=f"int{bits}" if bits else _most_common_type(tensors),
            context_length=whole_number(sizes.get("max_position_embeddings")),
            embedding_length=whole_number(sizes.get("hidden_size")),
            capabilities=("completion",),
            chat_template=chat_template_of(files),
        )

    def details(self, files: ModelFiles) -> ModelDetails:
        config, tensors = config_of(files), _tensors(files)
        architecture, sizes = _architecture(config), _sizes(config)
        numbers = {key: whole_number(sizes.get(name)) for name, key in _NUMBERS.items()}
        return ModelDetails(
            metadata={
                "general.architecture": architecture,
                "general.parameter_count": _parameters(tensors, _bits(config)),
                **{f"{architecture}.{key}": value for key, value in numbers.items() if value},
            },
            tensors=tuple(TensorSummary(tensor.name, tensor.type, tensor.shape) for tensor in tensors),
        )


def _tensors(files: ModelFiles) -> list[Tensor]:
    found = read_headers(path for name, path in sorted(files.named.items()) if name.endswith(SUFFIX))
    if not found:
        raise BadModelFile("the safetensors files hold no tensors")
    return found


def _architecture(config: dict[str, Any]) -> str:
    found = config.get("model_type")
    if not isinstance(found, str) or not found:
        raise BadModelFile("config.json does not say which model it is: model_type is missing")
    return found


def _sizes(config: dict[str, Any]) -> dict[str, Any]:
    """What is said of the model that reads and writes text; the others lie beside it."""
    text = config.get("text_config")
    return {**config, **(text if isinstance(text, dict) else {})}


def _bits(config: dict[str, Any]) -> int:
    """Bits of a weight as MLX has quantised it; 0 if it has not."""
    found = config.get("quantization")
    return whole_number(found.get("bits")) if isinstance(found, dict) else 0


def _parameters(tensors: Iterable[Tensor], bits: int) -> int:
    """Quantised weights are packed in words of 32 bits; their scales and biases are no parameters."""
    count = 0
    for tensor in tensors:
        if not bits or tensor.type not in ("U32", "I32"):
            count += 0 if bits and tensor.name.endswith((".scales", ".biases")) else tensor.count
        else:
            count += tensor.count * 32 // bits
    return count


def _most_common_type(tensors: Iterable[Tensor]) -> str:
    values: Counter[str] = Counter()
    for tensor in tensors:
        values[tensor.type] += tensor.count
    return max(values, key=values.__getitem__)


@hookimpl
def corectl_model_formats() -> list[ModelFormat]:
    return [Safetensors()]
