"""ONNX Runtime GenAI: model folders that its model builder has made, on the CPU or its execution providers."""

from __future__ import annotations

from corectl import hookimpl
from corectl.model.formats import ModelFormat
from corectl.runner.engine import Backend
from corectl_onnx.backend import OnnxBackend
from corectl_onnx.format import OnnxGenai

corectl_api = 1


@hookimpl
def corectl_model_formats() -> list[ModelFormat]:
    return [OnnxGenai()]


@hookimpl
def corectl_backends() -> list[Backend]:
    return [OnnxBackend()]
