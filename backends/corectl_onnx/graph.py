"""What an ONNX file says about its weights: their types and sizes, where they lie, and which operators use them.

Files are hostile: everything is checked before ONNX Runtime sees the file. It checks paths as well; this says so early,
and of more than it looks at.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Iterator
from pathlib import Path

import msgspec

from corectl.errors import BadModelFile
from corectl_onnx.wire import Message

MAX_DEPTH = 16
"""Graphs within graphs."""

FLOAT, UINT8, INT8, FLOAT16, BFLOAT16, UINT4, INT4 = 1, 2, 3, 10, 16, 21, 22
_WIDTHS = {
    FLOAT: 32,
    UINT8: 8,
    INT8: 8,
    4: 16,
    5: 16,
    6: 32,
    7: 64,
    9: 8,
    FLOAT16: 16,
    11: 64,
    12: 32,
    13: 64,
    14: 64,
    15: 128,
    BFLOAT16: 16,
    17: 8,
    18: 8,
    19: 8,
    20: 8,
    UINT4: 4,
    INT4: 4,
    23: 4,
    24: 8,
    25: 2,
    26: 2,
}
"""Bits of a value, by the number of its type. Texts (8) have no width."""

_INLINE = (4, 5, 6, 7, 9, 10, 11)
"""Fields of a tensor that may hold its values."""


class Tensor(msgspec.Struct, frozen=True, kw_only=True):
    """Weights, or a constant: how many values of which type, and their bytes.

    `location` is the file that has them, relative to the one that names it; empty where they are in that one.
    """

    name: str
    type: int
    count: int
    size: int
    location: str = ""
    offset: int = 0


class Node(msgspec.Struct, frozen=True, kw_only=True):
    """An operator: the names of its inputs, and those attributes that are whole numbers."""

    operator: str
    inputs: tuple[str, ...]
    numbers: dict[str, int]


class Input(msgspec.Struct, frozen=True):
    """What the graph is given: the type of its values, and its shape, with 0 for what is not fixed."""

    type: int
    shape: tuple[int, ...]


class Graph(msgspec.Struct, frozen=True):
    """A file's graph, with those within it: `weights` by name, all tensors, and all operators."""

    weights: dict[str, Tensor]
    tensors: tuple[Tensor, ...]
    nodes: tuple[Node, ...]
    inputs: dict[str, Input]


def width_of(type: int) -> int:
    """Bits of a value. Raises `BadModelFile` for a type that is not known."""
    if type not in _WIDTHS:
        raise BadModelFile(f"a tensor has the type {type}, which is not known")
    return _WIDTHS[type]


def read_graph(path: Path) -> Graph:
    """The graph of a file. Raises `BadModelFile`, and `OSError`."""
    with path.open("rb") as file:
        if not path.stat().st_size:
            raise BadModelFile("it is empty")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _Reader().read(Message.whole(data))


class _Reader:
    """Collects what a file has. Numbers of fields are those of the format's definition, `onnx.proto`."""

    def __init__(self) -> None:
        self._weights: dict[str, Tensor] = {}
        self._tensors: list[Tensor] = []
        self._nodes: list[Node] = []
        self._inputs: dict[str, Input] = {}

    def read(self, model: Message) -> Graph:
        found = False
        for number, value in model.fields():
            match number, value:
                case 7, Message() as graph:
                    found = True
                    self._graph(graph, 0)
                case 25, Message() as function:
                    self._graph(function, 0, nodes=7)
        if not found:
            raise BadModelFile("it is no ONNX file: it has no graph")
        return Graph(self._weights, tuple(self._tensors), tuple(self._nodes), self._inputs)

    def _graph(self, graph: Message, depth: int, *, nodes: int = 1) -> None:
        """A graph, or a function, whose operators are in another field and which has nothing else of interest."""
        if depth > MAX_DEPTH:
            raise BadModelFile(f"it has more than {MAX_DEPTH} graphs within one another")
        for number, value in graph.fields():
            if not isinstance(value, Message):
                continue
            if number == nodes:
                self._node(value, depth)
            elif nodes == 1:
                match number:
                    case 5:
                        tensor = self._tensor(value)
                        if not depth:
                            self._weights[tensor.name] = tensor
                    case 11 if not depth:
                        self._input(value)
                    case 15:
                        self._sparse(value)

    def _node(self, node: Message, depth: int) -> None:
        operator, inputs = "", []
        numbers: dict[str, int] = {}
        for number, value in node.fields():
            match number, value:
                case 1, Message():
                    inputs.append(value.text())
                case 4, Message():
                    operator = value.text()
                case 5, Message():
                    self._attribute(value, depth, numbers)
        self._nodes.append(Node(operator=operator, inputs=tuple(inputs), numbers=numbers))

    def _attribute(self, attribute: Message, depth: int, numbers: dict[str, int]) -> None:
        name, whole = "", None
        for number, value in attribute.fields():
            match number, value:
                case 1, Message():
                    name = value.text()
                case 3, int():
                    whole = value
                case ((5 | 10), Message()):
                    self._tensor(value)
                case ((6 | 11), Message()):
                    self._graph(value, depth + 1)
                case ((22 | 23), Message()):
                    self._sparse(value)
        if whole is not None:
            numbers[name] = whole

    def _sparse(self, sparse: Message) -> None:
        for number, value in sparse.fields():
            if number in (1, 2) and isinstance(value, Message):
                self._tensor(value)

    def _tensor(self, tensor: Message) -> Tensor:
        name, kind, inline = "", 0, 0
        dimensions: list[int] = []
        external: dict[str, str] = {}
        for number, value in tensor.fields():
            match number, value:
                case 1, int():
                    dimensions.append(value)
                case 1, Message():
                    dimensions += value.numbers()
                case 2, int():
                    kind = value
                case 8, Message():
                    name = value.text()
                case 13, Message():
                    external |= _pair(value)
                case _, Message() if number in _INLINE:
                    inline += value.size
        found = self._checked(name, kind, dimensions, external, inline)
        self._tensors.append(found)
        return found

    def _checked(
        self, name: str, kind: int, dimensions: list[int], external: dict[str, str], inline: int
    ) -> Tensor:
        if len(dimensions) > 16 or not all(0 <= length < 2**40 for length in dimensions):
            raise BadModelFile(f"tensor {name[:200]!r} has a shape that cannot be")
        count = math.prod(dimensions)
        if not external:
            return Tensor(name=name, type=kind, count=count, size=inline)
        least = -(-count * width_of(kind) // 8)
        offset, size = _whole(external.get("offset", "0")), _whole(external.get("length", str(least)))
        if offset < 0 or size < least or not external.get("location"):
            raise BadModelFile(f"tensor {name[:200]!r} does not say where its data lies")
        return Tensor(
            name=name, type=kind, count=count, size=size, location=external["location"], offset=offset
        )

    def _input(self, entry: Message) -> None:
        """A named type, which is that of a tensor."""
        name, found = "", Input(0, ())
        for number, value in entry.fields():
            match number, value:
                case 1, Message():
                    name = value.text()
                case 2, Message():
                    found = next((_tensor_type(part) for part in _within(value, 1)), found)
        self._inputs[name] = found


def _tensor_type(part: Message) -> Input:
    kind, shape = 0, []
    for number, value in part.fields():
        match number, value:
            case 1, int():
                kind = value
            case 2, Message():
                shape = [_length(dimension) for dimension in _within(value, 1)]
    return Input(kind, tuple(shape))


def _within(message: Message, number: int) -> Iterator[Message]:
    """The messages in one of the fields."""
    for found, value in message.fields():
        if found == number and isinstance(value, Message):
            yield value


def _length(dimension: Message) -> int:
    return next((value for number, value in dimension.fields() if number == 1 and isinstance(value, int)), 0)


def _pair(entry: Message) -> dict[str, str]:
    parts = {number: value.text() for number, value in entry.fields() if isinstance(value, Message)}
    return {parts.get(1, ""): parts.get(2, "")}


def _whole(text: str) -> int:
    """A number that was written as text, or -1."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else -1
