"""The descriptor: what can be said about ONNX Runtime GenAI, and about a model's files, without loading either."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable

from corectl.runner.engine import (
    Availability,
    CacheShape,
    Engine,
    MemoryEstimate,
    ModelSpec,
    Placement,
)
from corectl.runner.logits import LogitsEngine
from corectl.scheduler.fit import HOST
from corectl_onnx.format import FORMAT
from corectl_onnx.memory import estimate
from corectl_onnx.providers import PROBED, installed

IGNORED = ("use_mmap", "flash_attention", "kv_cache_type", "numa")
"""ONNX Runtime decides how it reads weights and where its threads run, the model how it attends and what it keeps."""

ON_CPU = ("num_gpu", "main_gpu")


class OnnxBackend:
    """ONNX Runtime GenAI: models that its model builder has made, one `Generator` for each sequence."""

    name = "onnx"
    formats = (FORMAT,)

    def availability(self) -> Availability:
        build = installed()
        missing = [name for name in ("onnxruntime", "tokenizers") if importlib.util.find_spec(name) is None]
        if build is None or missing:
            name = "onnxruntime-genai" if build is None else missing[0]
            return Availability(reason=f"{name} is not installed; type: pip install 'corectl[onnx]'")
        ignores = IGNORED if build.variant in PROBED else (*IGNORED, *ON_CPU)
        return Availability(variant=build.variant, version=build.version, ignores=ignores)

    def estimate(self, model: ModelSpec, shape: CacheShape) -> MemoryEstimate:
        return estimate(model, shape)

    def load(self, model: ModelSpec, placement: Placement, progress: Callable[[float], None]) -> Engine:
        variant = self.availability().variant
        if variant == "cuda":
            # The library computes on the first device that it sees.
            os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(id for id in placement.devices if id != HOST)
        from corectl_onnx.load import load_model

        return LogitsEngine(load_model(model, placement, progress, variant=variant))
