"""How much memory a model takes, and how many tokens fit through the library's buffers at once. Pure.

The library computes in buffers whose size does not depend on the model. It does not notice that one is full before it
has written past its end, so how many tokens are computed at once is decided here.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping

import msgspec

from corectl.runner.engine import LayerMemory, MemoryEstimate, MemoryUse
from corectl.scheduler.fit import HOST
from corectl_ctransformers.header import MAX_VALUES, Header

MIB = 1 << 20

BATCH = 64
"""Tokens that are computed at once at most: more are hardly faster, and nobody could cancel meanwhile."""

TRAINED = 2048
"""Tokens that the first Llamas and Falcons were trained for. Their files do not say."""

_LONGEST = 1 << 20
"""Tokens. No model of that time was trained for more."""

_BUFFER = 256 * MIB
"""Bytes of each of the library's buffers."""

_NODES = 32 << 10
"""Bytes that the nodes of a graph take for each layer."""


class _Shape(msgspec.Struct, frozen=True, kw_only=True):
    """What a family's graph holds at once: for each token `rows` values as wide as the model, and `tables` values for
    each head and each token up to it; for each token up to the last one `past` bytes for each value of the model's
    width; and `logits` values for each token of the vocabulary. All layers have that for themselves, unless `reuses`
    says that each takes the buffers of the one before.
    """

    rows: int
    tables: int = 1
    past: int = 0
    logits: int = 1
    reuses: bool = True


_SHAPES: Mapping[str, _Shape] = {
    "gpt2": _Shape(rows=28, past=4),
    "gptj": _Shape(rows=34, logits=3, reuses=False),
    "gptneox": _Shape(rows=28),
    "mpt": _Shape(rows=16, tables=4, past=2),
    "replit": _Shape(rows=26, tables=4, past=2, reuses=False),
    "llama": _Shape(rows=28),
    "falcon": _Shape(rows=18, past=16),
}
"""Counted in the library's code for each layout, and a row or two more."""

_CELL_BYTES: Mapping[str, int] = {"gpt2": 8, "falcon": 6}
"""Of keys and values, for each value of their width, where they are not two numbers of 16 bits."""

_SIZED = ("mpt", "llama", "falcon")
"""Layouts whose memory follows the context that is asked for. The others always have all of the file's."""


def weights(header: Header) -> int:
    """Bytes of all weights in memory."""
    sizes = {tensor.name: tensor.bytes for tensor in header.tensors}
    # Where the last matrix is the first one, the library has it twice.
    twice = sizes.get("model/wte", 0) if "model/lm_head" not in sizes else 0
    return sum(sizes.values()) + twice


def cell(header: Header) -> int:
    """Bytes of keys and values for one token in all layers."""
    sizes = header.sizes
    width = sizes.key_heads * sizes.head if sizes.key_heads else sizes.width // sizes.groups
    return sizes.layers * width * _CELL_BYTES.get(header.layout.family, 4)


def fixed_context(header: Header) -> int:
    """Tokens for which a load takes memory, whatever context is asked for; 0 if it follows that."""
    return 0 if header.layout.family in _SIZED else header.sizes.context


def native_context(header: Header, num_ctx: int) -> int:
    """The context to load with, for sequences of up to `num_ctx` tokens."""
    most = header.sizes.context or _LONGEST
    if header.layout.family == "falcon":
        most = min(most, (MAX_VALUES - 1) // (cell(header) // _CELL_BYTES["falcon"]))
    return fixed_context(header) or min(num_ctx, most)


class Graph:
    """What computing takes, for a model with a context of `num_ctx` tokens."""

    def __init__(self, header: Header, num_ctx: int) -> None:
        self._sizes, self._shape = header.sizes, _SHAPES[header.layout.family]
        self._room = _BUFFER
        if header.layout.family == "llama":
            # The library measures what this one needs, for more tokens at once than here.
            self._room = sys.maxsize
        elif header.layout.family == "falcon":
            self._room = (124 + int(0.15 * num_ctx)) * MIB

    def bytes(self, position: int, count: int) -> int:
        """At most so many for `count` tokens that follow `position` others."""
        sizes, shape, length = self._sizes, self._shape, position + count
        layer = 4 * (shape.rows * sizes.width + shape.tables * sizes.heads * length) * count
        layer += shape.past * sizes.width * length
        work = 4 * (4 * sizes.width + sizes.heads * length + shape.logits * sizes.vocabulary) * count
        return MIB + sizes.layers * _NODES + (1 if shape.reuses else sizes.layers + 1) * layer + work

    def batch(self, position: int) -> int:
        """How many tokens may follow `position` others at once: a power of two, or 0 if there is no room for one."""
        count = BATCH
        while count and self.bytes(position, count) > self._room:
            count //= 2
        return count

    def most(self, length: int) -> int:
        """The bytes of the largest batch while a sequence grows to `length` tokens, or as far as it can."""
        length = max(1, self.longest(length))
        places = (0, length // 2, length - 1)
        return max(self.bytes(place, max(1, self.batch(place))) for place in places)

    def longest(self, most: int) -> int:
        """How many tokens up to `most` a sequence may have, so that the last one can still be computed."""
        least = 0
        while least < most:
            middle = (least + most + 1) // 2
            if self.batch(middle - 1):
                least = middle
            else:
                most = middle - 1
        return least


def estimate(header: Header) -> MemoryEstimate:
    """What a load takes. Pools of several contexts are counted as such, although the library has one."""
    layers, fixed = header.sizes.layers, fixed_context(header)
    inner = sum(tensor.bytes for tensor in header.tensors if any(map(str.isdigit, tensor.name))) // layers
    layer = LayerMemory(weights=inner, cell=cell(header) / layers, most_cells=fixed)
    compute, each = _compute(header, fixed)
    return MemoryEstimate(
        layers=(layer,) * layers,
        host=weights(header) - layers * inner,
        cell_step=fixed or 1,
        compute=compute,
        compute_cell=each,
    )


def _compute(header: Header, fixed: int) -> tuple[int, float]:
    """What computing takes, and how much more for each token that the context is longer."""
    context = fixed or header.sizes.context or TRAINED
    graph = Graph(header, context)
    if fixed:
        return graph.most(fixed), 0.0
    count = max(1, graph.batch(context - 1))
    least, most = graph.bytes(0, count), graph.bytes(context, count)
    return least, (most - least) / context


def taken(header: Header, num_ctx: int) -> MemoryUse:
    """What a load has taken, for a context of `num_ctx` tokens."""
    return MemoryUse(
        device=HOST,
        weights=weights(header),
        cache=cell(header) * (fixed_context(header) or num_ctx),
        compute=Graph(header, num_ctx).most(num_ctx),
    )
