"""Writes small folders of ONNX Runtime GenAI, honest and hostile ones, without any library. They cannot be computed."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from corectl.model.files import ModelFiles

FLOAT, UINT8, FLOAT16 = 1, 2, 10

Value = int | str | bytes


def varint(number: int) -> bytes:
    number &= (1 << 64) - 1
    found = bytearray()
    while number > 0x7F:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*found, number])


def message(*fields: tuple[int, Value]) -> bytes:
    """The protobuf message with these fields, by their numbers."""
    found = bytearray()
    for number, value in fields:
        if isinstance(value, int):
            found += varint(number << 3) + varint(value)
        else:
            data = value.encode() if isinstance(value, str) else value
            found += varint(number << 3 | 2) + varint(len(data)) + data
    return bytes(found)


def tensor(
    name: str, dims: Iterable[int], type: int = FLOAT, *, raw: bytes = b"", **external: int | str
) -> bytes:
    """Weights: as they are, or in another file (`location`, `offset`, `length`)."""
    pairs = [(13, message((1, key), (2, str(value)))) for key, value in external.items()]
    where: list[tuple[int, Value]] = [*pairs, (14, 1)] if external else [(9, raw)]
    return message(*((1, length) for length in dims), (2, type), (8, name), *where)


def node(operator: str, *inputs: str, parts: Iterable[tuple[int, bytes]] = (), **numbers: int) -> bytes:
    """An operator. `parts` are attributes that are tensors (5) or graphs (6)."""
    attributes = [message((1, name), (3, number), (20, 2)) for name, number in numbers.items()]
    attributes += [message((1, "part"), part) for part in parts]
    return message(*((1, name) for name in inputs), (4, operator), *((5, item) for item in attributes))


def entry(name: str, shape: Iterable[int], type: int = FLOAT) -> bytes:
    """An input of the graph; a length of 0 is one that is not fixed."""
    dims = b"".join(message((1, message((1, length)) if length else message((2, "n")))) for length in shape)
    return message((1, name), (2, message((1, message((1, type), (2, dims))))))


def graph(
    *, weights: Iterable[bytes] = (), nodes: Iterable[bytes] = (), inputs: Iterable[bytes] = ()
) -> bytes:
    return message(
        *((1, item) for item in nodes), *((5, item) for item in weights), *((11, item) for item in inputs)
    )


CACHE = tuple(entry(f"past_key_values.0.{kind}", (0, 2, 0, 8)) for kind in ("key", "value"))
"""The inputs of a model with one layer: two heads of eight numbers."""


def onnx(*weights: bytes, nodes: Iterable[bytes] = (), inputs: Iterable[bytes] = CACHE) -> bytes:
    """A whole file."""
    return message((1, 10), (2, "test"), (7, graph(weights=weights, nodes=nodes, inputs=inputs)))


DECODER: Mapping[str, Any] = {
    "filename": "model.onnx",
    "head_size": 8,
    "hidden_size": 16,
    "num_attention_heads": 2,
    "num_hidden_layers": 1,
    "num_key_value_heads": 2,
    "inputs": {"past_key_names": "past_key_values.%d.key", "past_value_names": "past_key_values.%d.value"},
    "outputs": {"logits": "logits"},
    "session_options": {"log_id": "onnxruntime-genai", "provider_options": []},
}


def genai_config(*, decoder: Mapping[str, Any] | None = None, **model: Any) -> dict[str, Any]:
    """A configuration, changed in some places."""
    whole = {
        "type": "llama",
        "vocab_size": 32,
        "context_length": 128,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 2,
        "decoder": {**DECODER, **(decoder or {})},
        **model,
    }
    return {"model": whole, "search": {"past_present_share_buffer": True, "max_length": 128}}


def write(
    folder: Path, file: bytes, config: Any = None, others: Mapping[str, bytes] | None = None
) -> ModelFiles:
    """A model's folder; `others` are files by their names."""
    text = json.dumps(genai_config() if config is None else config)
    contents = {"model.onnx": file, "genai_config.json": text.encode(), **(others or {})}
    for name, data in contents.items():
        (folder / name).write_bytes(data)
    return files_of(folder)


def files_of(folder: Path) -> ModelFiles:
    named = {path.name: path for path in sorted(folder.iterdir())}
    return ModelFiles(weights=named["model.onnx"], named=named)
