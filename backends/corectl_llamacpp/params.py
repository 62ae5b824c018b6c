"""A placement as the parameters that llama.cpp takes. In the runner process."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import llama_cpp

from corectl.hardware.processor import processor
from corectl.model.ggml import TENSOR_TYPES
from corectl.runner.engine import CacheShape, Placement
from corectl_llamacpp import ggml
from corectl_llamacpp.devices import GgmlDevice
from corectl_llamacpp.extensions import computes_with_amx
from corectl_llamacpp.memory import batch_tokens, step_tokens

_CACHE_TYPES = {name.lower(): number for number, (name, _, _) in TENSOR_TYPES.items()}
_FLASH_ATTENTION = {
    None: llama_cpp.LLAMA_FLASH_ATTN_TYPE_AUTO,
    True: llama_cpp.LLAMA_FLASH_ATTN_TYPE_ENABLED,
    False: llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED,
}


def shape_of(placement: Placement) -> CacheShape:
    return CacheShape(
        num_batch=placement.num_batch,
        max_sequences=placement.max_sequences,
        cache_type=placement.cache_type,
        flash_attention=placement.flash_attention,
    )


def weight_params() -> Any:
    """How weights are loaded by default. Where ggml would compute with AMX, they keep the layout that they have."""
    params = llama_cpp.llama_model_default_params()
    if computes_with_amx(processor(), ggml.features()):
        # AMX has a layout of its own, and there is no switch for it alone.
        params.use_extra_bufts = False
    return params


def model_params(placement: Placement, devices: Sequence[GgmlDevice]) -> Any:
    """How the weights are loaded: the last layers on `devices`, each with as many as the placement says.

    The result holds on to what llama.cpp only gets pointers to.
    """
    params = weight_params()
    params.n_gpu_layers = sum(placement.layers)
    split = (ctypes.c_float * llama_cpp.llama_max_devices())(*placement.layers)
    # Named, because by itself llama.cpp takes all that it sees; the list ends with a null.
    tokens = (ctypes.c_void_p * (len(devices) + 1))(*(device.token for device in devices), None)
    params.tensor_split = split
    params.devices = ctypes.cast(tokens, ctypes.c_void_p)
    params.load_mode = (
        llama_cpp.LLAMA_LOAD_MODE_MMAP if placement.use_mmap else llama_cpp.LLAMA_LOAD_MODE_NONE
    )
    params.held = (split, tokens)
    return params


def context_params(placement: Placement, *, idle: int, at_once: int, embedding: bool) -> Any:
    """How the context is made, with room for `idle` sequences besides those that run.

    `at_once` cells of an image are looked at together, so they must be computed together, as an encoder's input.
    """
    params = llama_cpp.llama_context_default_params()
    sequences = placement.max_sequences + idle
    batch = max(batch_tokens(shape_of(placement), sequences), at_once)
    params.n_ctx = max(placement.cells, batch)
    params.n_batch = batch
    params.n_ubatch = max(step_tokens(batch, embedding=embedding), at_once)
    params.n_seq_max = sequences
    if not embedding:
        # Room for the logits of one token of each sequence; by default llama.cpp takes it for each token of a batch.
        params.n_outputs_max = sequences
    params.type_k = params.type_v = _CACHE_TYPES[placement.cache_type]
    params.flash_attn_type = _FLASH_ATTENTION[placement.flash_attention]
    # Layers with a window have cells for the window only: with all cells it would save nothing.
    params.swa_full = False
    params.n_threads = params.n_threads_batch = placement.num_thread
    params.kv_unified = True
    params.embeddings = embedding
    params.no_perf = True
    return params
