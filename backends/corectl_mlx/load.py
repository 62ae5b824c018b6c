"""Loads a model in MLX. In the runner process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx.utils import tree_flatten
from mlx_lm.models.cache import make_prompt_cache
from mlx_lm.utils import load_model

from corectl.errors import BadModelFile, LoadFailed
from corectl.messages import Notice
from corectl.model.files import ModelFiles, folder_of
from corectl.model.hf import config_of
from corectl.runner.engine import EngineInfo, MemoryUse, ModelSpec, Placement
from corectl.runner.hf_tokenizer import HfTokenizer
from corectl.scheduler.fit import HOST
from corectl_mlx.adapters import apply
from corectl_mlx.engine import MlxEngine
from corectl_mlx.memory import WEIGHTS, sizes_of

WHOLE = 2
"""Layers of a placement on the GPU: one that stands for all, and the head. MLX does not divide a model."""

ONE_AT_A_TIME = Notice(
    code="one_at_a_time",
    message="the caches of this model cannot be joined in MLX, so that requests are computed one after another",
)


def load_engine(model: ModelSpec, placement: Placement, progress: Callable[[float], None]) -> MlxEngine:
    """Raises `LoadFailed` with what MLX says, and `BadModelFile`."""
    whole = sum(placement.layers) >= WHOLE
    if not whole and mx.metal.is_available():
        mx.set_default_device(mx.Device(mx.cpu))
    sizes = sizes_of(config_of(model))
    with folder_of(model) as folder:
        native = _load_model(folder)
        if model.adapters:
            _apply_adapter(native, model)
        progress(0.9)
        # Configurations may leave it out. Only the shape is looked at, so nothing is computed.
        vocabulary = native(mx.array([[0]])).shape[-1]
        tokenizer = HfTokenizer(folder, vocabulary=vocabulary)
    weights = sum(array.nbytes for _, array in tree_flatten(native.parameters()))
    device = next((id for id in placement.devices if id != HOST), HOST) if whole else HOST
    compute = sum(use.compute for use in placement.estimated if use.device == device)
    # Caches grow as they are needed, up to what the pool has.
    use = MemoryUse(device=device, weights=weights, cache=sizes.cell * placement.cells, compute=compute)
    progress(1.0)
    together = all(hasattr(cache, "merge") for cache in make_prompt_cache(native))
    info = EngineInfo(
        num_ctx=placement.num_ctx,
        cells=placement.cells,
        num_batch=placement.num_batch,
        max_sequences=placement.max_sequences if together else 1,
        num_thread=placement.num_thread,
        memory=use.total,
        gpu_memory=0 if device == HOST else use.total,
        measured=(use,),
        idle_sequences=placement.max_sequences if together else 0,
        description=f"{type(native).__module__.rpartition('.')[2]} in MLX",
        notices=() if together or placement.max_sequences == 1 else (ONE_AT_A_TIME,),
    )
    return MlxEngine(native, tokenizer, info)


def _load_model(folder: Path) -> Any:
    """The model with its weights in memory. Code that comes with a model is never run: mlx-lm refuses it."""
    names = sorted(path.name for path in folder.glob(WEIGHTS))
    if not names:
        raise BadModelFile(f"the model has no files called {WEIGHTS}")
    try:
        native, _ = load_model(folder, lazy=False, trust_remote_code=False)
    except Exception as exc:
        reason = f"{type(exc).__name__}: {str(exc)[:300]}"
        raise LoadFailed(f"MLX cannot load {', '.join(names)[:200]}: {reason}") from exc
    native.eval()
    return native


def _apply_adapter(native: Any, model: ModelSpec) -> None:
    if not model.adapter_named:
        raise LoadFailed(f"the adapter {model.adapters[0].name} is no folder of safetensors, which MLX needs")
    apply(native, ModelFiles(weights=model.adapters[0], named=model.adapter_named))
