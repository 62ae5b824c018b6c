"""A model's weights and its key-value memory, as its graph tells: sizes, numbers of parameters, quantisation."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path, PurePosixPath

import msgspec

from corectl.errors import BadModelFile
from corectl.model.files import ModelFiles
from corectl_onnx.config import GenaiConfig
from corectl_onnx.graph import (
    BFLOAT16,
    FLOAT,
    FLOAT16,
    INT4,
    INT8,
    UINT4,
    UINT8,
    Graph,
    Node,
    read_graph,
    width_of,
)

_NAMES = {
    FLOAT: "F32",
    FLOAT16: "F16",
    BFLOAT16: "BF16",
    INT8: "int8",
    UINT8: "int8",
    INT4: "int4",
    UINT4: "int4",
}
_BITS = ("bits", "expert_weight_bits")
"""Attributes of operators whose weights are packed into bytes: bits of one of them."""

_ROTATIONS = {"GroupQueryAttention": (7, 8), "RotaryEmbedding": (2, 3)}
"""Inputs of operators that are tables of angles, which are no parameters."""

_STATES = {"past_key_names": "past_key_values.%d.key", "past_value_names": "past_key_values.%d.value"}
"""Inputs of the graph that are keys and values: how the configuration calls their names, and what those usually are."""

MOST_CELL = 1 << 24
"""Bytes. No model has more keys and values for one token."""


class Weights(msgspec.Struct, frozen=True, kw_only=True):
    """What a model's graph says. Sizes are in bytes.

    `size` is that of all tensors, `copied` of those that are computed with when the model is loaded, which leaves them
    in memory twice. `cell` is what one token takes in the key-value memory. `rewinds` says that this is all that the
    model remembers of a text, so that the end of it can be forgotten.
    """

    size: int
    copied: int
    parameters: int
    quantization: str
    cell: int
    rewinds: bool


def weights_of(files: ModelFiles, config: GenaiConfig) -> Weights:
    """Reads the model's ONNX file, and looks whether the files that it names are there. Raises `BadModelFile`."""
    name = config.model.decoder.filename
    try:
        graph = _graph(files.named[name])
        _check_files(graph, name, files)
    except BadModelFile as exc:
        raise BadModelFile(f"{name}: {exc.message}") from exc
    except OSError as exc:
        raise BadModelFile(f"{name} cannot be read: {exc.strerror}") from exc
    quantized = list(_quantized(graph))
    states, others = _states(graph, config)
    return Weights(
        size=sum(tensor.size for tensor in graph.tensors),
        copied=sum(
            graph.weights[node.inputs[0]].size
            for node in graph.nodes
            if node.operator in ("Transpose", "Reshape") and node.inputs and node.inputs[0] in graph.weights
        ),
        parameters=_parameters(graph, quantized),
        quantization=_quantization(graph, quantized),
        cell=states,
        rewinds=not others and config.model.decoder.sliding_window is None,
    )


def _graph(path: Path) -> Graph:
    status = path.stat()
    return _remembered(path, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=8)
def _remembered(path: Path, size: int, changed: int) -> Graph:
    return read_graph(path)


def _check_files(graph: Graph, name: str, files: ModelFiles) -> None:
    """Raises `BadModelFile` for a tensor whose data is not inside one of the model's files."""
    folder = PurePosixPath(name).parent
    sizes: dict[str, int] = {}
    for tensor in graph.tensors:
        if not tensor.location:
            continue
        if tensor.location not in sizes:
            path = files.named.get((folder / tensor.location).as_posix())
            if path is None:
                raise BadModelFile(
                    f"its weights are in {tensor.location[:200]!r}, which the model does not have"
                )
            sizes[tensor.location] = path.stat().st_size
        if tensor.offset + tensor.size > sizes[tensor.location]:
            raise BadModelFile(
                f"tensor {tensor.name[:200]!r} does not lie in {tensor.location[:200]!r}, which was cut off"
            )


def _quantized(graph: Graph) -> Iterator[tuple[Node, int]]:
    """Operators with packed weights, and bits of a weight."""
    for node in graph.nodes:
        bits = next((node.numbers[key] for key in _BITS if key in node.numbers), 0)
        if bits in (2, 4, 8):
            yield node, bits


def _parameters(graph: Graph, quantized: list[tuple[Node, int]]) -> int:
    """Values of all weights. Of those that are packed, tensors hold bytes, scales and zero points instead."""
    tables = {
        node.inputs[place]
        for node in graph.nodes
        for place in _ROTATIONS.get(node.operator, ())
        if place < len(node.inputs)
    }
    packed: dict[str, int] = {}
    beside = set()
    for node, bits in quantized:
        found = [name for name in node.inputs if name in graph.weights]
        bytes_, *rest = sorted(found, key=lambda name: -graph.weights[name].size) or [""]
        if bytes_ and graph.weights[bytes_].type in (UINT8, INT8):
            packed[bytes_] = graph.weights[bytes_].count * 8 // bits
            beside |= {name for name in rest if graph.weights[name].type in (UINT8, INT8)}
        beside |= {name for name in found if name.endswith(("scales", "zero_points", "_zp"))}
    return sum(
        packed.get(name, tensor.count)
        for name, tensor in graph.weights.items()
        if name not in tables and name not in beside - packed.keys()
    )


def _quantization(graph: Graph, quantized: list[tuple[Node, int]]) -> str:
    """The type of most weights, by what they take."""
    sizes: Counter[str] = Counter()
    bits = {name: bits for node, bits in quantized for name in node.inputs}
    for name, tensor in graph.weights.items():
        kind = _NAMES.get(tensor.type, "")
        if kind == "int8" and name in bits:
            kind = f"int{bits[name]}"
        sizes[kind] += tensor.size
    return max(sizes, key=sizes.__getitem__) if sizes else ""


def _states(graph: Graph, config: GenaiConfig) -> tuple[int, bool]:
    """Bytes of one token's keys and values, and whether the model has other memory besides."""
    decoder = config.model.decoder
    names = [decoder.inputs.get(key, default) for key, default in _STATES.items()]
    marks = [name.partition("%d") for name in names]
    bits, others = 0, False
    for name, entry in graph.inputs.items():
        if any(name.startswith(first) and name.endswith(last) for first, mark, last in marks if mark):
            heads, width = _shape(entry.shape, decoder.num_key_value_heads, decoder.head_size)
            bits += heads * width * width_of(entry.type)
        else:
            others |= name.startswith("past") and len(entry.shape) > 1
    if not 0 < bits <= 8 * MOST_CELL:
        raise BadModelFile(f"{decoder.filename}: its graph has no key-value memory that could be")
    return math.ceil(bits / 8), others


def _shape(shape: tuple[int, ...], heads: int, width: int) -> tuple[int, int]:
    """Heads and their size, as the graph has them, or else the configuration."""
    if len(shape) != 4:
        return heads, width
    return shape[1] if shape[1] > 0 else heads, shape[3] if shape[3] > 0 else width
