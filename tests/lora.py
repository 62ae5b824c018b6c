"""Writes small LoRA adapters in GGUF, for any model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt

from corectl.model.gguf import read_header

QUERIES = ("attn_q.weight", "attn_v.weight")
EVERYTHING = (
    *QUERIES,
    "attn_k.weight",
    "output.weight",
    "ffn_gate.weight",
    "ffn_up.weight",
    "ffn_down.weight",
)
RANK = 4


def write_lora(
    path: Path,
    base: Path,
    *,
    targets: Sequence[str] = QUERIES,
    strength: float = 1.0,
    alpha: float = float(RANK),
    architecture: str = "",
    dtype: type[np.number[Any]] = np.float32,
    keys: dict[str, Any] | None = None,
    tensors: dict[str, npt.NDArray[Any]] | None = None,
) -> Path:
    """An adapter with random weights for all tensors of `base` whose names end with one of `targets`.

    `strength` is about how large the change is beside the weights; 0 changes nothing. `keys` and `tensors` are set
    besides, or instead.
    """
    header = read_header(base)
    writer = gguf.GGUFWriter(path, architecture or header.architecture)
    values: dict[str, Any] = {
        "general.type": "adapter",
        "adapter.type": "lora",
        "adapter.lora.alpha": alpha,
    } | (keys or {})
    for key, value in values.items():
        if isinstance(value, list):
            writer.add_array(key, value)
        elif isinstance(value, str):
            writer.add_string(key, value)
        elif isinstance(value, int):
            writer.add_uint32(key, value)
        else:
            writer.add_float32(key, value)
    random = np.random.default_rng(3)
    found: dict[str, npt.NDArray[Any]] = {}
    for tensor in header.tensors:
        if tensor.name.endswith(tuple(targets)) and targets:
            inputs, outputs = tensor.shape[:2]
            first = random.standard_normal((RANK, inputs)) / np.sqrt(inputs)
            second = strength * random.standard_normal((outputs, RANK)) / np.sqrt(RANK)
            found[f"{tensor.name}.lora_a"] = first.astype(dtype)
            found[f"{tensor.name}.lora_b"] = second.astype(dtype)
    for name, array in (found | (tensors or {})).items():
        writer.add_tensor(name, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
