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
import msgspec

from corectl.errors import BadModelFile, LoadFailed, NotSupported
from corectl.messages import Notice
from corectl.model.ggml import TENSOR_TYPES
from corectl.model.gguf import Header, header_of
from corectl.runner.engine import CacheShape, EngineInfo, ModelSpec, Placement
from corectl.scheduler.fit import HOST
from corectl_llamacpp import logs
from corectl_llamacpp.devices import measured
from corectl_llamacpp.engine import LlamaEngine
from corectl_llamacpp.layers import layers_of
from corectl_llamacpp.memory import SPLIT_SEQUENCES, batch_tokens, idle_cells, idle_sequences, step_tokens
from corectl_llamacpp.pooling import pooling_of
from corectl_llamacpp.ranker import LlamaRanker

if TYPE_CHECKING:
    from corectl_llamacpp.vision import LlamaVision

_CACHE_TYPES = {name.lower(): number for number, (name, _, _) in TENSOR_TYPES.items()}
_FLASH_ATTENTION = {
    None: llama_cpp.LLAMA_FLASH_ATTN_TYPE_AUTO,
    True: llama_cpp.LLAMA_FLASH_ATTN_TYPE_ENABLED,
    False: llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED,
}


WORTH_SAVING, WORTH_SAVING_GPU = 32, 512
"""See `EngineInfo.worth_saving`. Each layer's part is copied by itself, which takes accelerators milliseconds."""


def load_engine(model: ModelSpec, placement: Placement, progress: Callable[[float], None]) -> LlamaEngine:
    """Raises `LoadFailed` with llama.cpp's last error lines, and `OutOfMemory` if they speak of that."""
    logs.install()
    llama_cpp.llama_backend_init()
    header = _checked_header(model.weights)
    placement = _with_cache(header, placement)
    idle = idle_sequences(header, _shape(placement), embedding=model.embedding)
    if 0 < sum(placement.layers) <= len(layers_of(header)):
        idle = min(idle, max(0, SPLIT_SEQUENCES - placement.max_sequences))
    pooling = pooling_of(header) if model.embedding else ""
    with ExitStack() as undo:
        native = _load_model(model, placement, progress)
        undo.callback(llama_cpp.llama_model_free, native)
        vision = _load_vision(model, native, placement)
        if vision is not None:
            undo.callback(vision.close)
        at_once = vision.at_once if vision is not None else 0
        context = llama_cpp.llama_init_from_model(native, _context_params(model, placement, idle, at_once))
        if not context:
            raise logs.failure("the context could not be made")
        undo.pop_all()
    projectors = sum(path.stat().st_size for path in model.projectors)
    taken = measured(
        logs.buffers, placement, weights=llama_cpp.llama_model_size(native), projectors=projectors
    )
    memory = llama_cpp.llama_get_memory(context)
    info = EngineInfo(
        num_ctx=placement.num_ctx,
        cells=placement.cells,
        num_batch=placement.num_batch,
        max_sequences=placement.max_sequences,
        num_thread=placement.num_thread,
        memory=sum(use.total for use in taken),
        gpu_memory=sum(use.total for use in taken if use.device != HOST),
        measured=taken,
        idle_sequences=idle,
        idle_cells=_idle_cells(header, placement),
        worth_saving=WORTH_SAVING_GPU if any(placement.layers) else WORTH_SAVING,
        can_shift=bool(memory) and bool(llama_cpp.llama_memory_can_shift(memory)),
        pooling=pooling,
        description=_description(native),
        notices=_notices(),
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
    except BadModelFile as exc:
        raise BadModelFile(f"{path.name}: {exc.message}") from exc


def _with_cache(header: Header, placement: Placement) -> Placement:
    """The placement, with a type that the model's cache can have. Raises `NotSupported`."""
    if placement.cache_type == "f16":
        return placement
    if not any(layer.values for layer in layers_of(header)):
        # Without keys and values the type says nothing, but llama.cpp checks it all the same.
        return msgspec.structs.replace(placement, cache_type="f16")
    if placement.flash_attention is False:
        raise NotSupported(
            f"a key-value cache of the type {placement.cache_type} needs flash attention, which is off"
        )
    return placement


def _load_model(model: ModelSpec, placement: Placement, progress: Callable[[float], None]) -> Any:
    params = llama_cpp.llama_model_default_params()
    params.n_gpu_layers = sum(placement.layers)
    split = (ctypes.c_float * llama_cpp.llama_max_devices())(*placement.layers)
    params.tensor_split = split
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
        raise logs.failure("failed to load model")
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


def _shape(placement: Placement) -> CacheShape:
    return CacheShape(
        num_batch=placement.num_batch,
        max_sequences=placement.max_sequences,
        cache_type=placement.cache_type,
        flash_attention=placement.flash_attention,
    )


def _notices() -> tuple[Notice, ...]:
    """What the library has decided by itself."""
    if not logs.said(logs.NO_FLASH_ATTENTION):
        return ()
    message = "flash attention is off, because this model cannot have it where it lies; it takes more memory"
    return (Notice(code="flash_attention_off", message=message),)


def _idle_cells(header: Header, placement: Placement) -> int:
    """What the cells of kept sequences cost on accelerators is little enough to leave them where they are."""
    if any(placement.layers):
        return 0
    flash_attention = placement.flash_attention is not False
    return idle_cells(header, placement.cache_type, flash_attention=flash_attention)


def _context_params(model: ModelSpec, placement: Placement, idle: int, at_once: int) -> Any:
    """`at_once` cells of an image are looked at together, so they must be computed together, as an encoder's input."""
    params = llama_cpp.llama_context_default_params()
    sequences = placement.max_sequences + idle
    batch = max(batch_tokens(_shape(placement), sequences), at_once)
    params.n_ctx = max(placement.cells, batch)
    params.n_batch = batch
    params.n_ubatch = max(step_tokens(batch, embedding=model.embedding), at_once)
    params.n_seq_max = sequences
    if not model.embedding:
        # Room for the logits of one token of each sequence; by default llama.cpp takes it for each token of a batch.
        params.n_outputs_max = sequences
    params.type_k = params.type_v = _CACHE_TYPES[placement.cache_type]
    params.flash_attn_type = _FLASH_ATTENTION[placement.flash_attention]
    # Layers with a window have cells for the window only: with all cells it would save nothing.
    params.swa_full = False
    params.n_threads = params.n_threads_batch = placement.num_thread
    params.kv_unified = True
    params.embeddings = model.embedding
    params.no_perf = True
    return params


def _description(native: Any) -> str:
    buffer = ctypes.create_string_buffer(128)
    llama_cpp.llama_model_desc(native, buffer, len(buffer))
    return buffer.value.decode("utf-8", "replace")
