"""How much memory llama.cpp will take for a model, from the header of its file alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from corectl.errors import BadModelFile
from corectl.model.ggml import TENSOR_TYPES
from corectl.model.gguf import Header, TensorInfo
from corectl.runner.engine import CacheShape, LayerMemory, MemoryEstimate
from corectl_llamacpp.compute import compute_of
from corectl_llamacpp.layers import Layer, layers_of
from corectl_llamacpp.projector import projector_compute

CELL_STEP = 256
"""llama.cpp rounds cells up to a multiple of this."""

MIN_BATCH = 32
STEP_TOKENS = 512
"""The most tokens of a generating model that are computed together; a longer batch is cut."""

MOST_SEQUENCES = 256
IDLE_SEQUENCES = 48
IDLE_BYTES = 64 << 20
"""Sequences that only keep their tokens cost memory too: there are as many as fit into this."""

SPLIT_SEQUENCES = 31
"""The most sequences of a model of which only some layers are on an accelerator, as far as they are only kept.

llama.cpp tries flash attention out on a token of each. From 32 tokens on the accelerator takes work from the other
layers as well; the trial takes that for a fault and turns flash attention off, which costs memory and time.
"""

IDLE_PART = 0.0005
"""How much slower a step may become for the sake of sequences that are only kept. Saving them costs little."""
HEAD_BYTES = 12
"""Of weights: a head asks the mask about one cell in the time in which so many are computed with."""

_MOST_A_CELL = 1 << 24
_MOST = 1 << 44

_BLOCKS = {name.lower(): (elements, size) for name, elements, size in TENSOR_TYPES.values()}


def value_bytes(cache_type: str) -> float:
    """Bytes of one value in the key-value memory."""
    elements, size = _BLOCKS[cache_type]
    return size / elements


def idle_sequences(header: Header, shape: CacheShape, *, embedding: bool) -> int:
    """How many sequences a context has room for besides those that run; see `EngineInfo.idle_sequences`.

    None in a model that gives vectors, or whose memory is a state of fixed size: there each costs as much as a running
    one, and a saved state does as well.
    """
    layers = layers_of(header)
    if embedding or any(layer.state for layer in layers):
        return 0
    # A row of logits where they are computed and one where they are read; and the window of the layers that have one.
    cost = 8 * vocabulary(header) + sum(
        layer.window * layer.values * value_bytes(shape.cache_type) for layer in layers
    )
    room = MOST_SEQUENCES - shape.max_sequences
    return max(0, min(IDLE_SEQUENCES, room, int(IDLE_BYTES / cost) if cost else 0))


def idle_cells(header: Header, cache_type: str, *, flash_attention: bool) -> int:
    """How many cells kept sequences may hold on the CPU; see `EngineInfo.idle_cells`.

    For each token every head asks the mask about every cell, and skips those of others. That takes as long as reading
    a few bytes of weights does (measured, as docs/performance.md says). Without flash attention it computes with them.
    """
    layers = layers_of(header)
    if flash_attention:
        cost = HEAD_BYTES * sum(layer.heads for layer in layers if layer.values)
    else:
        cost = int(sum(layer.values for layer in layers) * value_bytes(cache_type))
    weights = sum(tensor.size_bytes for tensor in header.tensors)
    return max(1, int(IDLE_PART * weights / cost)) if cost else 0


def batch_tokens(shape: CacheShape, sequences: int) -> int:
    """The size of a batch in tokens. With less room than for a token of each sequence llama.cpp ends the process."""
    return max(shape.num_batch, sequences, MIN_BATCH)


def step_tokens(batch: int, *, embedding: bool) -> int:
    """Tokens that are computed together. An encoder looks at all of its input at once, which is why that must fit."""
    return batch if embedding else min(batch, STEP_TOKENS)


def vocabulary(header: Header) -> int:
    """Tokens that the model knows."""
    listed = header.array_lengths.get("tokenizer.ggml.tokens", 0)
    return listed or header.number("vocab_size")


def estimate(
    header: Header,
    shape: CacheShape,
    *,
    embedding: bool,
    projectors: Sequence[Header] = (),
    adapters: Sequence[Header] = (),
) -> MemoryEstimate:
    """Bytes by layer. The others are the headers of files that let the model see, and of LoRA adapters.

    Raises `BadModelFile`.
    """
    idle = idle_sequences(header, shape, embedding=embedding)
    sequences = shape.max_sequences + idle
    tokens = step_tokens(batch_tokens(shape, sequences), embedding=embedding)
    layers = layers_of(header)
    weights = _Weights(
        [*header.tensors, *(tensor for file in adapters for tensor in file.tensors)], len(layers)
    )
    most = max((layer.window for layer in layers), default=0) * sequences + tokens
    compute = compute_of(
        header,
        layers,
        tokens=tokens,
        sequences=sequences,
        outputs=tokens if embedding else sequences,
        vocabulary=vocabulary(header),
        flash_attention=shape.flash_attention is not False,
        embedding=embedding,
    )
    found = MemoryEstimate(
        layers=tuple(
            _layer_memory(layer, size, shape, sequences, tokens)
            for layer, size in zip(layers, weights.layers, strict=True)
        ),
        head=weights.head,
        host=weights.host,
        tied=weights.tied,
        cell_step=CELL_STEP,
        compute=compute.tokens,
        compute_cell=compute.cell,
        window_cell=compute.window_cell,
        window_cells=_rounded(most),
        least_compute=compute.least,
        host_compute=compute.host,
        vision=sum(file.file_size for file in projectors),
        vision_compute=sum(map(projector_compute, projectors)),
    )
    _check(found)
    return found


def _layer_memory(layer: Layer, weights: int, shape: CacheShape, sequences: int, tokens: int) -> LayerMemory:
    return LayerMemory(
        weights=weights,
        cell=layer.values * value_bytes(shape.cache_type),
        # In a model that has states there are no idle sequences.
        sequence=layer.state * 4,
        most_cells=_rounded(layer.window * sequences + tokens) if layer.window else 0,
    )


def _check(found: MemoryEstimate) -> None:
    """Raises `BadModelFile` for sizes that no model has: a header's numbers may be anything."""
    small = [layer.cell for layer in found.layers]
    large = [size for layer in found.layers for size in (layer.sequence, layer.most_cells)]
    large += [found.compute, found.least_compute, found.host_compute, found.vision_compute]
    large += [int(found.compute_cell), int(found.window_cell)]
    if not all(0 <= size <= _MOST_A_CELL for size in small) or not all(0 <= size <= _MOST for size in large):
        raise BadModelFile("the numbers in the header describe a model that cannot be")


def _rounded(cells: int) -> int:
    return -(-cells // CELL_STEP) * CELL_STEP


class _Weights:
    """Bytes of tensors by where they belong. A tied output is the token embedding, read where the head is.

    What an adapter adds to a tensor has that one's name with something behind it, and lies in the same place.
    """

    def __init__(self, tensors: Iterable[TensorInfo], count: int) -> None:
        self.layers = [0] * count
        self.head = self.host = embedding = 0
        output = False
        for tensor in tensors:
            block = tensor.name.split(".")[1] if tensor.name.startswith("blk.") else ""
            if block.isdigit() and int(block) < count:
                self.layers[int(block)] += tensor.size_bytes
            elif tensor.name.startswith(("output", "cls")):
                self.head += tensor.size_bytes
                output |= tensor.name == "output.weight"
            else:
                self.host += tensor.size_bytes
                embedding += tensor.size_bytes * (tensor.name == "token_embd.weight")
        self.tied = 0 if output else embedding
        self.head += self.tied
