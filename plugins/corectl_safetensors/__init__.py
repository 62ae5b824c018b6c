"""The safetensors model format: a folder with config.json, a tokenizer, and weights in safetensors files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from corectl import hookimpl
from corectl.errors import BadModelFile
from corectl.model.files import ModelFiles
from corectl.model.formats import ModelDescription, ModelFormat
from corectl.model.hf import chat_template_of, config_of, whole_number
from corectl_safetensors.header import Tensor, read_header

corectl_api = 1

SUFFIX = ".safetensors"


class Safetensors:
    """Weights as the libraries transformers and MLX write them, quantised by MLX or not."""

    name = "safetensors"

    def claims(self, files: ModelFiles) -> bool:
        return "config.json" in files.named and any(name.endswith(SUFFIX) for name in files.named)

    def describe(self, files: ModelFiles) -> ModelDescription:
        config = config_of(files)
        tensors = [
            tensor
            for name, path in sorted(files.named.items())
            if name.endswith(SUFFIX)
            for tensor in read_header(path)
        ]
        if not tensors:
            raise BadModelFile("the safetensors files hold no tensors")
        architecture = config.get("model_type")
        if not isinstance(architecture, str) or not architecture:
            raise BadModelFile("config.json does not say which model it is: model_type is missing")
        text = config.get("text_config")
        sizes = {**config, **(text if isinstance(text, dict) else {})}
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
