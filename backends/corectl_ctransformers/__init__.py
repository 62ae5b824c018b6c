"""Models in the formats from before GGUF, through the library ctransformers."""

from __future__ import annotations

from corectl import hookimpl
from corectl.model.formats import ModelFormat
from corectl.runner.engine import Backend
from corectl_ctransformers.backend import CTransformersBackend
from corectl_ctransformers.format import Ggml

corectl_api = 1


@hookimpl
def corectl_model_formats() -> list[ModelFormat]:
    return [Ggml()]


@hookimpl
def corectl_backends() -> list[Backend]:
    return [CTransformersBackend()]
