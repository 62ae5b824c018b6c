"""The JSON that is read in a repository, and the manifest and config that are made of it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any

import msgspec

from corectl.errors import BadModelFile
from corectl.model.details import human_number
from corectl.model.hf import whole_number
from corectl.model.manifest import CONFIG_TYPE, Layer, Manifest, ModelConfig

MAX_INDEX = 32 << 20
"""Bytes of any JSON document. An index names every tensor."""

MAX_MODULES = 32

_TYPES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}


def json_object(data: bytes, name: str) -> dict[str, Any]:
    """Raises `BadModelFile` for what is no JSON object."""
    found: dict[str, Any] = _decoded(data, name, dict[str, Any])
    return found


def shards_of(index: bytes) -> set[str]:
    """The files that hold the tensors. Raises `BadModelFile`."""
    files = _decoded(index, "the index of the weights", dict[str, Any]).get("weight_map")
    if not isinstance(files, dict) or not files or not all(isinstance(name, str) for name in files.values()):
        raise BadModelFile("the index of the weights is damaged: it has no weight_map")
    return set(files.values())


def modules_of(modules: bytes) -> tuple[str, ...]:
    """The folders of a model's further layers, as sentence-transformers lists them. Raises `BadModelFile`."""
    found = _decoded(modules, "modules.json", list[dict[str, Any]])
    if len(found) > MAX_MODULES:
        raise BadModelFile(f"modules.json names more than {MAX_MODULES} modules")
    return tuple(path for module in found if isinstance(path := module.get("path"), str) and path)


def encoded(config: ModelConfig, layers: Sequence[Layer]) -> tuple[bytes, Layer, bytes]:
    """The manifest, the layer of the config, and the config itself."""
    data = msgspec.json.encode(config)
    bound = Layer(media_type=CONFIG_TYPE, digest=sha256(data), size=len(data))
    return msgspec.json.encode(Manifest(config=bound, layers=tuple(layers))), bound, data


def sha256(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def gguf_config(
    architecture: object, parameters: object, quant: str, *, context_length: object = 0
) -> ModelConfig:
    """What is known of a GGUF model; whatever is missing or strange is left out."""
    known = isinstance(architecture, str) and 0 < len(architecture) <= 64 and architecture.isprintable()
    family = str(architecture) if known else ""
    return ModelConfig(
        model_format="gguf",
        model_family=family,
        model_families=(family,) if family else None,
        model_type=_size(parameters),
        file_type=quant,
        context_length=whole_number(context_length),
    )


def folder_config(config: dict[str, Any], parameters: object = 0) -> ModelConfig:
    """What config.json says; the format's plugin says the rest when the model is used."""
    family = config.get("model_type")
    quantization = config.get("quantization")
    bits = whole_number(quantization.get("bits")) if isinstance(quantization, dict) else 0
    kind = config.get("torch_dtype") or config.get("dtype")
    return ModelConfig(
        model_format="safetensors",
        model_family=family if isinstance(family, str) else "",
        model_families=(family,) if isinstance(family, str) else None,
        model_type=_size(parameters),
        file_type=f"int{bits}" if bits else _TYPES.get(str(kind), ""),
        context_length=whole_number(config.get("max_position_embeddings")),
        embedding_length=whole_number(config.get("hidden_size")),
    )


def _size(parameters: object) -> str:
    return human_number(count) if (count := whole_number(parameters)) else ""


def _decoded(data: bytes, name: str, kind: type[Any]) -> Any:
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise BadModelFile(f"{PurePosixPath(name).name} is damaged: {exc}") from exc
