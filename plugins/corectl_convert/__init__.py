"""The converter from Safetensors to GGUF: language models and embedding models, and LoRA adapters for them."""

from __future__ import annotations

from corectl import hookimpl
from corectl.model.conversion import Converter
from corectl_convert.converter import SafetensorsToGguf

corectl_api = 1


@hookimpl
def corectl_converters() -> list[Converter]:
    return [SafetensorsToGguf()]
