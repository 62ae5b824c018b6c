"""What /api/show and /api/tags say about a model: its details, its metadata and its tensors."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

from corectl.model.formats import TensorSummary
from corectl.model.ggml import file_type_name
from corectl.model.gguf import Header, TensorInfo, header_of, read_header
from corectl.model.manifest import MediaType, ModelConfig
from corectl.model.record import ModelRecord
from corectl.model.split import joined, parts_of

_HIDDEN_KEYS = frozenset({"general.name", "tokenizer.chat_template"})


class Details(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The `details` object of a reply. `context_length` is in tokens; lengths of 0 are left out."""

    parent_model: str
    format: str
    family: str
    families: tuple[str, ...] | None
    parameter_size: str
    quantization_level: str
    context_length: int = 0
    embedding_length: int = 0


def details_of(record: ModelRecord, *, lengths: bool = False) -> Details:
    """The details of a model; with `lengths` the two lengths too (as /api/tags has them).

    Only `lengths` reads the weights: it raises what `header_of` raises.
    """
    config = record.config
    context, embedding = config.context_length, config.embedding_length
    if lengths and (path := gguf_of(record)) is not None:
        header = header_of(path)
        context = header.number("context_length") or context
        embedding = header.number("embedding_length") or embedding
    return Details(
        parent_model=parent_model(record),
        format=config.model_format,
        family=config.model_family,
        families=config.model_families,
        parameter_size=config.model_type,
        quantization_level=config.file_type,
        context_length=context if lengths else 0,
        embedding_length=embedding if lengths else 0,
    )


def gguf_of(record: ModelRecord) -> Path | None:
    """Where the weights lie if they are a GGUF file, else None."""
    return record.weights if record.config.model_format in ("", "gguf") else None


def gguf_parts(record: ModelRecord) -> tuple[Path, ...]:
    """All files of the weights in their order if they are GGUF, else none."""
    files = record.files
    return parts_of(files) if files is not None and gguf_of(record) is not None else ()


def parent_model(record: ModelRecord) -> str:
    """The short name of the model that this one was created from, or an empty text."""
    for layer in record.layers:
        if layer.media_type == MediaType.MODEL and layer.from_:
            return layer.from_
    return ""


def model_info(source: ModelRecord | Path, *, verbose: bool = False) -> dict[str, Any]:
    """The metadata of the weights by sorted key, safe to encode as JSON; arrays are None unless `verbose`.

    A remote stub, and a model in another format than GGUF, has what its config tells. Raises `BadModelFile` and
    `OSError`.
    """
    parts = gguf_parts(source) if isinstance(source, ModelRecord) else (source,)
    if not parts:
        return _info_of_config(source.config) if isinstance(source, ModelRecord) else {}
    # Arrays are in the first part alone.
    first = read_header(parts[0], arrays=True) if verbose else header_of(parts[0])
    header = joined([first, *map(header_of, parts[1:])])
    info = {key: _json_safe(value) for key, value in header.metadata.items() if key not in _HIDDEN_KEYS}
    info["general.parameter_count"] = header.parameter_count
    # Files from before there was a second version do not say.
    info.setdefault("general.quantization_version", 2)
    return dict(sorted(info.items()))


def _info_of_config(config: ModelConfig) -> dict[str, Any]:
    family = config.model_family
    info = {
        "general.architecture": family,
        "general.basename": config.base_name,
        f"{family}.context_length": config.context_length if family else 0,
        f"{family}.embedding_length": config.embedding_length if family else 0,
    }
    return dict(sorted((key, value) for key, value in info.items() if value))


def _json_safe(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, list):
        return [_json_safe(item) for item in value]
    return value


def tensor_list(paths: Iterable[Path]) -> list[TensorSummary]:
    """All tensors of GGUF files: those outside blocks, then block by block, each by name. Raises as `model_info`."""
    tensors = sorted((tensor for path in paths for tensor in header_of(path).tensors), key=_tensor_order)
    return [TensorSummary(tensor.name, tensor.type_name, tensor.shape) for tensor in tensors]


def _tensor_order(tensor: TensorInfo) -> tuple[int, str]:
    parts = tensor.name.split(".")
    in_block = len(parts) > 2 and parts[0] == "blk" and parts[1].isascii() and parts[1].isdigit()
    return (int(parts[1]) if in_block else -1, tensor.name)


def quantization_level(header: Header) -> str:
    """The name of `general.file_type`: `Q4_K_M`, or `unknown`."""
    return file_type_name(header.metadata.get("general.file_type"))


def human_number(count: int) -> str:
    """A number of parameters as people write it: 134.52M, 8.0B, 77K."""
    if count >= 1_000_000_000:
        return _scaled(count, 1_000_000_000, 1) + "B"
    if count >= 1_000_000:
        return _scaled(count, 1_000_000, 2) + "M"
    if count >= 1_000:
        return f"{count / 1_000:.0f}K"
    return str(count)


def _scaled(count: int, unit: int, digits: int) -> str:
    return str(count // unit) if count % unit == 0 else f"{count / unit:.{digits}f}"
