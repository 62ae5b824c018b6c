"""Loads a GGUF model into a context. In the runner process."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

# Without it a failed assert attaches a debugger and prints its trace before the process ends.
os.environ.setdefault("GGML_NO_BACKTRACE", "1")

import llama_cpp

from corectl.errors import LoadFailed, NotSupported
from corectl.model.gguf import Header, header_of
from corectl.runner.engine import EngineInfo, ModelSpec, Placement
from corectl_llamacpp import logs
from corectl_llamacpp.backend import cache_bytes_per_token, projector_bytes
from corectl_llamacpp.engine import LlamaEngine
from corectl_llamacpp.pooling import pooling_of
from corectl_llamacpp.ranker import LlamaRanker

if TYPE_CHECKING:
    from corectl_llamacpp.vision import LlamaVision

MIN_BATCH = 32


def load_engine(model: ModelSpec, placement: Placement, progress: Callable[[float], None]) -> LlamaEngine:
    """Raises `LoadFailed` with llama.cpp's last error lines."""
    logs.install()
    llama_cpp.llama_backend_init()
    header = _checked_header(model.weights)
    pooling = pooling_of(header) if model.embedding else ""
    with ExitStack() as undo:
        native = _load_model(model, placement, progress)
        undo.callback(llama_cpp.llama_model_free, native)
        vision = _load_vision(model, native, placement)
        if vision is not None:
            undo.callback(vision.close)
        at_once = vision.at_once if vision is not None else 0
        context = llama_cpp.llama_init_from_model(native, _context_params(model, placement, at_once))
        if not context:
            raise LoadFailed(logs.why("the context could not be made"))
        undo.pop_all()
    memory = llama_cpp.llama_get_memory(context)
    info = EngineInfo(
        num_ctx=placement.num_ctx,
        cells=placement.cells,
        num_batch=placement.num_batch,
        max_sequences=placement.max_sequences,
        num_thread=placement.num_thread,
        memory=llama_cpp.llama_model_size(native)
        + placement.cells * cache_bytes_per_token(header.metadata)
        + projector_bytes(model),
        can_shift=bool(memory) and bool(llama_cpp.llama_memory_can_shift(memory)),
        pooling=pooling,
        description=_description(native),
    )
    if pooling == "rank":
        return LlamaRanker(native, context, info, header, model.weights)
    return LlamaEngine(native, context, info, vision)


def _checked_header(path: Path) -> Header:
    """A file's header, checked again: the file may be another one than the server has seen."""
    try:
        return header_of(path)
    except OSError as exc:
        raise LoadFailed(f"{path.name} cannot be read: {exc.strerror}") from exc


def _load_model(model: ModelSpec, placement: Placement, progress: Callable[[float], None]) -> Any:
    params = llama_cpp.llama_model_default_params()
    params.n_gpu_layers = sum(placement.layers)
    params.load_mode = (
        llama_cpp.LLAMA_LOAD_MODE_MMAP if placement.use_mmap else llama_cpp.LLAMA_LOAD_MODE_NONE
    )

    def report(fraction: float, data: Any) -> bool:
        progress(fraction)
        return True

    # llama.cpp keeps the pointer until the model is loaded, so the object must live as long.
    callback = llama_cpp.llama_progress_callback(report)
    params.progress_callback = callback
    native = llama_cpp.llama_model_load_from_file(os.fsencode(model.weights), params)
    if not native:
        raise LoadFailed(logs.why("failed to load model"))
    return native


def _load_vision(model: ModelSpec, native: Any, placement: Placement) -> LlamaVision | None:
    """The model's projector, if it has one. Its library is not loaded for models that have none."""
    if not model.projectors:
        return None
    if len(model.projectors) > 1:
        raise NotSupported(
            f"the model has {len(model.projectors)} projectors; one is the most that can be used"
        )
    path = model.projectors[0]
    header = _checked_header(path)
    try:
        from corectl_llamacpp.vision import load_vision
    except Exception as exc:
        raise LoadFailed(f"this build of llama-cpp-python cannot read images: {exc}") from exc
    return load_vision(path, header, native, placement)


def _context_params(model: ModelSpec, placement: Placement, at_once: int) -> Any:
    params = llama_cpp.llama_context_default_params()
    # Below these llama.cpp ends the process: it wants room in a batch for one token of every sequence.
    batch = max(placement.num_batch, placement.max_sequences, MIN_BATCH, at_once)
    params.n_ctx = max(placement.cells, batch)
    params.n_batch = batch
    # An encoder looks at all tokens of an input at once, so an input must fit one physical batch; so must an image
    # that is looked at in this way.
    params.n_ubatch = batch if model.embedding else max(min(batch, 512), at_once)
    params.n_seq_max = placement.max_sequences
    params.n_threads = params.n_threads_batch = placement.num_thread
    params.kv_unified = True
    params.embeddings = model.embedding
    params.no_perf = True
    return params


def _description(native: Any) -> str:
    buffer = ctypes.create_string_buffer(128)
    llama_cpp.llama_model_desc(native, buffer, len(buffer))
    return buffer.value.decode("utf-8", "replace")
