"""Loads a model in ONNX Runtime GenAI. In the runner process."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack

import msgspec
import numpy as np
import psutil

from corectl.errors import EngineError, LoadFailed, OutOfMemory
from corectl.messages import Notice
from corectl.model.files import folder_of
from corectl.runner.engine import EngineInfo, MemoryUse, ModelSpec, Placement
from corectl.runner.hf_tokenizer import HfTokenizer
from corectl.scheduler.fit import HOST
from corectl_onnx.config import NAME, GenaiConfig, read_config
from corectl_onnx.memory import MOST_PIECE, STEP
from corectl_onnx.model import OnnxModel
from corectl_onnx.native import Generator, NativeModel
from corectl_onnx.providers import Way, way_of
from corectl_onnx.weights import Weights, weights_of


def load_model(
    model: ModelSpec, placement: Placement, progress: Callable[[float], None], *, variant: str
) -> OnnxModel:
    """Raises `LoadFailed` with what the library says, `OutOfMemory` if it speaks of that, and `BadModelFile`."""
    progress(0.0)
    config = read_config(model)
    weights = weights_of(model, config)
    way = way_of(config.providers, variant, placement)
    settings = config.for_library(threads=placement.num_thread, accelerated=way.accelerated)
    vocabulary = config.model.vocab_size
    with ExitStack() as undo, folder_of(model, instead={NAME: msgspec.json.encode(settings)}) as folder:
        tokenizer = HfTokenizer(folder, vocabulary=vocabulary, ends=config.ends)
        progress(0.1)
        try:
            before = _resident()
            native = NativeModel(folder, vocabulary=vocabulary)
            undo.callback(native.close)
            info = _info(placement, config, weights, way, max(0, _resident() - before))
            progress(0.8)
            generators = _generators(native, info, undo, rewinds=weights.rewinds)
        except EngineError as exc:
            kind = OutOfMemory if isinstance(exc, OutOfMemory) else LoadFailed
            raise kind(f"{config.model.decoder.filename} cannot be loaded: {exc.message}") from exc
        undo.pop_all()
    progress(1.0)
    piece = placement.num_batch if way.accelerated else MOST_PIECE
    return OnnxModel(native, tokenizer, info, piece=piece, free=generators)


def _resident() -> int:
    """Bytes of this process that are in memory."""
    return int(psutil.Process().memory_info().rss)


def _generators(native: NativeModel, info: EngineInfo, undo: ExitStack, *, rewinds: bool) -> list[Generator]:
    """All that there will ever be, of which one was tried out; none where each is for one sequence only."""
    found: list[Generator] = []
    for _ in range(info.max_sequences + info.idle_sequences if rewinds else 1):
        generator = native.generator(info.num_ctx)
        undo.callback(generator.close)
        found.append(generator)
    first = found[0]
    first.append(np.zeros(1, np.int32))
    first.logits()
    if rewinds:
        first.rewind(0)
        return found
    first.close()
    return []


def _info(placement: Placement, config: GenaiConfig, weights: Weights, way: Way, taken: int) -> EngineInfo:
    """`taken` are the bytes of the weights, if they are in the machine's memory; a GPU does not say what they take."""
    num_ctx = min(placement.num_ctx, config.context_length)
    # Each sequence has room for a whole context, so there are as many as that leaves.
    generators = max(1, placement.cells // placement.num_ctx)
    sequences = min(generators, placement.max_sequences)
    guessed = next(
        (use for use in placement.estimated if use.device == way.device), MemoryUse(device=way.device)
    )
    use = MemoryUse(
        device=way.device,
        weights=taken if way.device == HOST else guessed.weights,
        cache=weights.cell * num_ctx * generators,
        compute=guessed.compute,
    )
    return EngineInfo(
        num_ctx=num_ctx,
        cells=num_ctx * generators,
        num_batch=placement.num_batch if way.accelerated else min(placement.num_batch, STEP),
        max_sequences=sequences,
        num_thread=placement.num_thread,
        memory=use.total,
        gpu_memory=0 if way.device == HOST else use.total,
        measured=(use,),
        idle_sequences=generators - sequences,
        description=f"{config.model.type} {weights.quantization}",
        notices=_notices(way),
    )


def _notices(way: Way) -> tuple[Notice, ...]:
    if not way.surprise:
        return ()
    return (Notice(code="cpu_fallback", message=f"the CPU computes everything: {way.surprise}"),)
