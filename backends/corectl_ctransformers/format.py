"""The model format `ggml`: one file from before GGUF, alone or in a folder with a config.json."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

from corectl.errors import BadModelFile
from corectl.model.files import ModelFiles
from corectl.model.formats import ModelDescription
from corectl.model.hf import chat_template_of, config_of, whole_number
from corectl_ctransformers.header import magic_of, read_header
from corectl_ctransformers.memory import TRAINED

FORMAT = "ggml"


class Ggml:
    """GPT-2, GPT-J, GPT-NeoX, Dolly, StarCoder, MPT, Replit, Llama and Falcon, as they were written until 2023.

    The file itself shows which of them it is. Where it does not say for what context it was trained, a `config.json`
    beside it does, or else it is that of the family's first models.
    """

    name = FORMAT

    def claims(self, files: ModelFiles) -> bool:
        return next(_legacy(files), None) is not None

    def describe(self, files: ModelFiles) -> ModelDescription:
        found = list(_legacy(files))
        if len(found) > 1:
            raise BadModelFile(f"the files hold {len(found)} models; name one of them")
        header = read_header(files.weights)
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


def _legacy(files: ModelFiles) -> Iterator[Path]:
    """Those of the files that begin like one from before GGUF."""
    for path in {files.weights, *files.named.values()}:
        try:
            # Reading from anything but a file, such as a pipe, might never end.
            if path.is_file() and magic_of(path):
                yield path
        except OSError:
            continue
