"""The converter itself. What needs numpy and gguf is imported where it is used: the server never does."""

from __future__ import annotations

from pathlib import Path

from corectl.errors import NotSupported
from corectl.model.conversion import Done
from corectl.model.files import ModelFiles
from corectl.model.hf import config_of
from corectl_convert.families import recipe_of
from corectl_convert.fields import Fields
from corectl_convert.pooling import pooling_of
from corectl_convert.tokenizers import why_not

RESULT = "model.gguf"


class SafetensorsToGguf:
    """See `corectl.model.conversion.Converter`. A result is the file `model.gguf` in the folder."""

    name = "safetensors-gguf"
    source = "safetensors"
    target = "gguf"

    def why_not(self, files: ModelFiles) -> str:
        """Reads config.json, and what is said of pooling."""
        try:
            recipe_of(Fields("config.json", config_of(files)))
            pooling_of(files)
        except NotSupported as exc:
            return exc.message
        return why_not(files)

    def convert(self, files: ModelFiles, folder: Path, done: Done) -> None:
        from corectl_convert.model import convert

        convert(files, folder / RESULT, done)

    def convert_adapter(self, adapter: ModelFiles, base: ModelFiles, folder: Path, done: Done) -> None:
        from corectl_convert.lora import convert_adapter

        convert_adapter(adapter, base, folder / RESULT, done)
