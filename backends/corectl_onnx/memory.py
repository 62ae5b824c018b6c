"""What a model takes in ONNX Runtime, from its configuration and its graph."""

from __future__ import annotations

from corectl.model.files import ModelFiles
from corectl.runner.engine import CacheShape, LayerMemory, MemoryEstimate
from corectl_onnx.config import read_config
from corectl_onnx.weights import weights_of

MOST_PIECE = 64
"""Tokens that are computed together at most, on the CPU: more are no faster, and the logits of each take memory."""

STEP = 128
"""Tokens of one step at most, on the CPU. Nobody is heard in the middle of a step, and longer ones are no faster."""

RUNTIME = 24 << 20
"""Bytes of the library itself, and of what it keeps for each model."""


def estimate(files: ModelFiles, shape: CacheShape) -> MemoryEstimate:
    """One layer that holds all: ONNX Runtime does not divide a model between devices. Raises `BadModelFile`."""
    config = read_config(files)
    weights = weights_of(files, config)
    tokens = shape.num_batch if config.providers else min(shape.num_batch, MOST_PIECE)
    # The logits of all tokens of a piece, and what they are computed from.
    logits = 2 * 4 * tokens * config.model.vocab_size
    hidden = 4 * tokens * config.model.decoder.hidden_size
    return MemoryEstimate(
        layers=(LayerMemory(weights=weights.size + weights.copied, cell=weights.cell),),
        compute=logits + 16 * hidden,
        host_compute=RUNTIME,
    )
