"""Loads a GGUF model into a context. In the runner process."""

from __future__ import annotations

import ctypes
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

# Without it a failed assert attaches a debugger and prints its trace before the process ends.
os.environ.setdefault("GGML_NO_BACKTRACE", "1")

import llama_cpp
import msgspec

from corectl.errors import BadModelFile, DevicesMissing, LoadFailed, NotSupported
from corectl.hardware.processor import processor
from corectl.messages import Notice
from corectl.model.gguf import Header, header_of
from corectl.model.split import joined, parts_of
from corectl.runner.engine import EngineInfo, ModelSpec, Placement
from corectl.scheduler.fit import HOST
from corectl_llamacpp import adapters, extensions, ggml, logs, numa
from corectl_llamacpp.build import Build
from corectl_llamacpp.devices import GgmlDevice, chosen, measured
from corectl_llamacpp.engine import LlamaEngine
from corectl_llamacpp.layers import layers_of
from corectl_llamacpp.memory import SPLIT_SEQUENCES, idle_cells, idle_sequences
from corectl_llamacpp.params import context_params, model_params, shape_of
from corectl_llamacpp.pooling import pooling_of
from corectl_llamacpp.ranker import LlamaRanker

if TYPE_CHECKING:
    from corectl_llamacpp.vision import LlamaVision

log = logging.getLogger(__name__)

WORTH_SAVING, NEVER = 32, 2**31
"""See `EngineInfo.worth_saving`.

From an accelerator each layer's part of a sequence is copied by itself, and what was generated beside others lies cell
by cell: to copy such a token takes as long as to compute thirty (measured, as docs/performance.md says).
"""

Devices = Mapping[str, GgmlDevice]
"""The accelerators that the model lies on, in their order, by the ids that the placement has for them."""


def load_engine(
    model: ModelSpec, placement: Placement, progress: Callable[[float], None], build: Build
) -> LlamaEngine:
    """Raises `LoadFailed` with llama.cpp's last error lines, and `OutOfMemory` if they speak of that.

    `DevicesMissing` is for accelerators of the placement that llama.cpp does not see.
    """
    logs.install()
    ggml.start(build.folders)
    devices = _find_devices(placement, build.variant)
    paths = parts_of(model)
    header = joined([_checked_header(path) for path in paths])
    placement = _with_cache(header, placement)
    # The head comes last: where it is on an accelerator, everything is.
    whole = sum(placement.layers) > len(layers_of(header))
    if placement.numa and not whole:
        _spread_over_nodes()
    idle = idle_sequences(header, shape_of(placement), embedding=model.embedding)
    if any(placement.layers) and not whole:
        idle = min(idle, max(0, SPLIT_SEQUENCES - placement.max_sequences))
    pooling = pooling_of(header) if model.embedding else ""
    with ExitStack() as undo:
        native = _load_model(paths, placement, devices, progress)
        undo.callback(llama_cpp.llama_model_free, native)
        vision = _load_vision(model, native, placement, devices)
        if vision is not None:
            undo.callback(vision.close)
        # Before the context, which makes room for their part of the computation.
        partial, changes = _load_adapters(model, native, header)
        at_once = vision.at_once if vision is not None else 0
        params = context_params(placement, idle=idle, at_once=at_once, embedding=model.embedding)
        context = llama_cpp.llama_init_from_model(native, params)
        if not context:
            raise logs.failure("the context could not be made")
        undo.pop_all()
    adapters.apply_adapters(context, changes)
    slow = () if whole else extensions.notices_of(processor(), ggml.features(), build)
    info = msgspec.structs.replace(
        _info(model, placement, devices, native, context, whole=whole),
        idle_sequences=idle,
        idle_cells=_idle_cells(header, placement),
        pooling=pooling,
        notices=(*_notices(), *partial, *slow),
    )
    if pooling == "rank":
        return LlamaRanker(native, context, info, header, model.weights)
    return LlamaEngine(native, context, info, vision)


def _find_devices(placement: Placement, variant: str) -> Devices:
    """The placement's accelerators. What ggml has found is logged in any case."""
    found = ggml.devices()
    for device in found:
        log.info(
            "ggml: %s (%s): %.1f of %.1f GiB free",
            *(device.name, device.description, device.memory_free / 2**30, device.memory_total / 2**30),
        )
    log.info("ggml: built to use %s", ", ".join(sorted(ggml.features())))
    try:
        return chosen(found, placement, variant)
    except DevicesMissing as exc:
        raise DevicesMissing(logs.explained(exc.message)) from None


def _spread_over_nodes() -> None:
    """What llama.cpp is told of NUMA holds for the process, and for files that it maps from then on."""
    nodes = numa.nodes()
    if len(nodes) > 1:
        found = numa.strategy(nodes, os.sched_getaffinity(0))
        log.info("%d NUMA nodes: strategy %d", len(nodes), found)
        llama_cpp.llama_numa_init(found)


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


def _load_model(
    paths: Sequence[Path], placement: Placement, devices: Devices, progress: Callable[[float], None]
) -> Any:
    """The weights, of one file or of all parts in their order."""
    params = model_params(placement, list(devices.values()))
    if not params.use_extra_bufts:
        log.info("AMX is left alone: as this library uses it, it would end the process")

    def report(fraction: float, data: Any) -> bool:
        progress(fraction)
        return True

    # llama.cpp keeps the pointer until the model is loaded, so the object must live as long.
    callback = llama_cpp.llama_progress_callback(report)
    params.progress_callback = callback
    names = [os.fsencode(path) for path in paths]
    if len(names) == 1:
        native = llama_cpp.llama_model_load_from_file(names[0], params)
    else:
        native = llama_cpp.llama_model_load_from_splits(
            (ctypes.c_char_p * len(names))(*names), len(names), params
        )
    if not native:
        raise logs.failure("failed to load model")
    return native


def _load_vision(model: ModelSpec, native: Any, placement: Placement, devices: Devices) -> LlamaVision | None:
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
    first = next(iter(devices.values()), None)
    return load_vision(path, header, native, placement, first.token if first is not None else None)


def _load_adapters(model: ModelSpec, native: Any, header: Header) -> tuple[tuple[Notice, ...], list[Any]]:
    """The model's adapters, and what of them has no effect."""
    headers = {path: _checked_header(path) for path in model.adapters}
    notices = [notice for path, own in headers.items() for notice in adapters.left_out(path, own)]
    return tuple(notices), [adapters.load_adapter(native, header, path, own) for path, own in headers.items()]


def _info(
    model: ModelSpec, placement: Placement, devices: Devices, native: Any, context: Any, *, whole: bool
) -> EngineInfo:
    """What was loaded, as far as it can be seen. `whole`: on accelerators."""
    changes = sum(path.stat().st_size for path in model.adapters)
    taken = measured(
        logs.buffers,
        devices,
        weights=llama_cpp.llama_model_size(native) + changes,
        projectors=sum(path.stat().st_size for path in model.projectors),
    )
    memory = llama_cpp.llama_get_memory(context)
    # What is recurrent has one cell for all tokens.
    scattered = any(placement.layers) and not llama_cpp.llama_model_is_recurrent(native)
    return EngineInfo(
        num_ctx=placement.num_ctx,
        cells=placement.cells,
        num_batch=placement.num_batch,
        max_sequences=placement.max_sequences,
        num_thread=placement.num_thread,
        memory=sum(use.total for use in taken),
        gpu_memory=sum(use.total for use in taken if whole or use.device != HOST),
        measured=taken,
        worth_saving=NEVER if scattered else WORTH_SAVING,
        can_shift=bool(memory) and bool(llama_cpp.llama_memory_can_shift(memory)),
        description=_description(native),
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


def _description(native: Any) -> str:
    buffer = ctypes.create_string_buffer(128)
    llama_cpp.llama_model_desc(native, buffer, len(buffer))
    return buffer.value.decode("utf-8", "replace")
