"""The model format `ggml`: one file from before GGUF, alone or in a folder with a config.json."""

from __future__ import annotations

import math

from corectl.errors import BadModelFile
from corectl.model.files import ModelFiles
from corectl.model.formats import ModelDescription
from corectl.model.hf import chat_template_of, config_of, whole_number
from corectl_ctransformers.header import legacy_files, read_header
from corectl_ctransformers.memory import TRAINED

FORMAT = "ggml"


class Ggml:
    """GPT-2, GPT-J, GPT-NeoX, Dolly, StarCoder, MPT, Replit, Llama and Falcon, as they were written until 2023.

    The file itself shows which of them it is. Where it does not say for what context it was trained, a `config.json`
    beside it does, or else it is that of the family's first models.
    """

    name = FORMAT

    def claims(self, files: ModelFiles) -> bool:
        return bool(legacy_files(files.weights, files.named))

    def describe(self, files: ModelFiles) -> ModelDescription:
        found = legacy_files(files.weights, files.named)
        if len(found) > 1:
            raise BadModelFile(f"the files hold {len(found)} models; name one of them")
        header = read_header(found[0] if found else files.weights)
        context = header.sizes.context
        if not context and "config.json" in files.named:
            context = whole_number(config_of(files).get("max_position_embeddings"))
        return ModelDescription(
            architecture=header.family,
            parameter_count=sum(math.prod(tensor.shape) for tensor in header.tensors),
            quantization=header.quantization,
            context_length=context or TRAINED,
            embedding_length=header.sizes.width,
            capabilities=("completion",),
            chat_template=chat_template_of(files),
        )
