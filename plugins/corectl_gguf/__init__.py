"""The GGUF model format."""

from __future__ import annotations

from corectl import hookimpl
from corectl.model.details import quantization_level
from corectl.model.files import ModelFiles
from corectl.model.formats import ModelDescription, ModelFormat
from corectl.model.split import whole_header

corectl_api = 1


class Gguf:
    """GGUF: one file with metadata, tokenizer and tensors."""

    name = "gguf"

    def claims(self, files: ModelFiles) -> bool:
        try:
            # Reading from anything but a file, such as a pipe, might never end.
            if not files.weights.is_file():
                return False
            with files.weights.open("rb") as file:
                return file.read(4) == b"GGUF"
        except OSError:
            return False

    def describe(self, files: ModelFiles) -> ModelDescription:
        header = whole_header(files)
        chat_template = header.metadata.get("tokenizer.chat_template")
        return ModelDescription(
            architecture=str(header.metadata.get("general.architecture", "")),
            parameter_count=header.parameter_count,
            quantization=quantization_level(header),
            context_length=_count(header.of_architecture("context_length")),
            embedding_length=_count(header.of_architecture("embedding_length")),
            capabilities=(header.pooled or "completion",),
            chat_template=chat_template if isinstance(chat_template, str) else "",
        )


def _count(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else 0


@hookimpl
def corectl_model_formats() -> list[ModelFormat]:
    return [Gguf()]
