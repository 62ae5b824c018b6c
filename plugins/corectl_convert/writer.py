"""Writes a GGUF file tensor by tensor: no more than a few megabytes of one are in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import gguf
import numpy as np

from corectl.errors import BadModelFile
from corectl.model.conversion import Done
from corectl_convert.recipe import Value
from corectl_convert.tensors import Tensor, with_type


def write(
    path: Path, architecture: str, metadata: Mapping[str, Value], tensors: Sequence[Tensor], done: Done
) -> None:
    """The keys of `metadata` are whole ones. Raises `BadModelFile`, `OSError`, and `OverflowError` as `with_type`."""
    writer = gguf.GGUFWriter(path, architecture)
    for key, value in metadata.items():
        _add(writer, key, value)
    for tensor in tensors:
        kind = gguf.GGMLQuantizationType[tensor.kind]
        try:
            writer.add_tensor_info(
                tensor.name, tensor.shape, np.dtype(np.float32), tensor.size, raw_dtype=kind
            )
        except ValueError as exc:
            raise BadModelFile(f"two tensors of the safetensors files are both {tensor.name}") from exc
    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        assert writer.fout is not None
        _write_tensors(writer.fout[0], tensors, done, writer.data_alignment)
    finally:
        writer.close()


def _write_tensors(file: Any, tensors: Sequence[Tensor], done: Done, alignment: int) -> None:
    written, total = 0, sum(tensor.size for tensor in tensors)
    file.write(bytes(-file.tell() % alignment))
    for tensor in tensors:
        start = written
        for values in tensor.chunks():
            data = np.ascontiguousarray(with_type(values, tensor.kind))
            file.write(data.data)
            written += data.nbytes
            done(written, total)
        if written - start != tensor.size:
            raise BadModelFile(f"the tensor for {tensor.name} has changed while it was read")
        file.write(bytes(-file.tell() % alignment))


def _add(writer: gguf.GGUFWriter, key: str, value: Value) -> None:
    kinds = gguf.GGUFValueType
    items = {bool: kinds.BOOL, int: kinds.INT32, float: kinds.FLOAT32, str: kinds.STRING}
    if isinstance(value, bytes):
        writer.add_key_value(key, value, kinds.ARRAY, kinds.UINT8)
    elif isinstance(value, list):
        writer.add_key_value(key, value, kinds.ARRAY, items[type(value[0])])
    elif isinstance(value, int) and not isinstance(value, bool):
        writer.add_key_value(key, value, kinds.UINT32)
    else:
        writer.add_key_value(key, value, items[type(value)])
