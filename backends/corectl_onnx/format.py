"""The model format of ONNX Runtime GenAI: a folder with genai_config.json, ONNX files, and a tokenizer."""

from __future__ import annotations

from corectl.model.files import ModelFiles
from corectl.model.formats import ModelDescription
from corectl.model.hf import chat_template_of
from corectl_onnx.config import NAME, read_config
from corectl_onnx.weights import weights_of

FORMAT = "onnx-genai"


class OnnxGenai:
    """Models that go on with a text, as the library's model builder writes them."""

    name = FORMAT

    def claims(self, files: ModelFiles) -> bool:
        return NAME in files.named and any(name.endswith(".onnx") for name in files.named)

    def describe(self, files: ModelFiles) -> ModelDescription:
        config = read_config(files)
        weights = weights_of(files, config)
        return ModelDescription(
            architecture=config.model.type,
            parameter_count=weights.parameters,
            quantization=weights.quantization,
            context_length=config.context_length,
            embedding_length=config.model.decoder.hidden_size,
            capabilities=("completion",),
            chat_template=chat_template_of(files),
        )
