"""LoRA adapters: files that change a model's weights by a little. In the runner process."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import llama_cpp

from corectl.errors import LoadFailed
from corectl.messages import Notice
from corectl.model.gguf import Header, TensorInfo
from corectl_llamacpp import logs

_TYPES = ("F32", "F16", "BF16", "Q8_0")
"""What the converters write; with others llama.cpp may end the process when it computes."""
_A, _B = ".lora_a", ".lora_b"
_UNUSED = "_norm.weight"
_EMBEDDING = "token_embd.weight"
_ACTIVATED = "adapter.alora.invocation_tokens"


def load_adapter(native: Any, base: Header, path: Path, header: Header) -> Any:
    """An adapter for a loaded model, which frees it with itself. Raises `LoadFailed` that names the file.

    It must be loaded before a context is made: that is where room is made for its part of the computation.
    """
    if problem := _problem(base, header):
        raise LoadFailed(f"the adapter {path.name} cannot be used: {problem}")
    adapter = llama_cpp.llama_adapter_lora_init(native, os.fsencode(path))
    # A null pointer is an object all the same.
    if not adapter:
        raise logs.failure(f"the adapter {path.name} cannot be used")
    return adapter


def apply_adapters(context: Any, adapters: Sequence[Any], scale: float = 1.0) -> None:
    """Applies these, and no others, to everything that the context computes from now on."""
    count = len(adapters)
    natives = (llama_cpp.llama_adapter_lora_p_ctypes * count)(*adapters)
    llama_cpp.llama_set_adapters_lora(context, natives, count, (ctypes.c_float * count)(*[scale] * count))


def left_out(path: Path, header: Header) -> tuple[Notice, ...]:
    """What llama.cpp does not apply of an adapter, without a word."""
    count = sum(tensor.name.endswith(_UNUSED) for tensor in header.tensors)
    if not count:
        return ()
    message = f"{count} of the tensors in the adapter {path.name} have no effect: they are for norms"
    return (Notice(code="adapter_partial", message=message),)


def _problem(base: Header, header: Header) -> str:
    """Why an adapter is none for this model; empty where llama.cpp may see it.

    It checks names and the first two dimensions by itself. What is here would end the process, or be applied wrongly.
    """
    metadata = header.metadata
    if metadata.get("general.type") != "adapter" or metadata.get("adapter.type") != "lora":
        return "it is no LoRA adapter"
    if header.architecture != base.architecture:
        return (
            f"it is for models of the architecture {header.architecture}, and this one is {base.architecture}"
        )
    if _ACTIVATED in header.array_lengths:
        return "it is to be applied to parts of a prompt only (aLoRA)"
    if type(metadata.get("adapter.lora.alpha", 0.0)) is not float:
        return "its alpha is no floating-point number"
    shapes = {tensor.name: _dimensions(tensor) for tensor in base.tensors}
    parts = {tensor.name: tensor for tensor in header.tensors}
    for name, tensor in parts.items():
        if tensor.type_name not in _TYPES and not name.endswith(_UNUSED):
            return f"its tensor {name} has the type {tensor.type_name}; known are {', '.join(_TYPES)}"
        if name.endswith(_A) and (second := parts.get(name.removesuffix(_A) + _B)):
            target = name.removesuffix(_A)
            if problem := _misfit(target, shapes, _dimensions(tensor), _dimensions(second)):
                return problem
    return ""


def _misfit(
    target: str, shapes: dict[str, tuple[int, ...]], first: tuple[int, ...], second: tuple[int, ...]
) -> str:
    """Why a pair of tensors cannot be added to the one with the name `target`."""
    if target == _EMBEDDING:
        if "output.weight" not in shapes:
            return "it changes the token embeddings, which this model reads as its output as well"
        fits = first[0] == second[0]
    else:
        fits = target not in shapes or first[2:] == shapes[target][2:] == second[2:]
    return "" if fits else f"its tensors for {target} have other shapes than this model's"


def _dimensions(tensor: TensorInfo) -> tuple[int, ...]:
    return (*tensor.shape, 1, 1, 1, 1)[:4]
