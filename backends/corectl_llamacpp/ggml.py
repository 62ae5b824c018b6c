"""What ggml, the library below llama.cpp, says of itself: its devices, and what it was compiled for. In the runner."""

from __future__ import annotations

import ctypes
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import llama_cpp

from corectl_llamacpp.devices import GgmlDevice

_lib = llama_cpp.llama_cpp._lib
"""libllama. Names that it does not have are looked for in the libraries that it needs, ggml's."""

_KINDS = ("cpu", "gpu", "igpu", "accel")
_TOKEN = ctypes.c_void_p
_ROOM = 64
"""Bytes by which ggml's description of a device may grow."""


class _Properties(ctypes.Structure):
    """The beginning of ggml's `ggml_backend_dev_props`."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("description", ctypes.c_char_p),
        ("memory_free", ctypes.c_size_t),
        ("memory_total", ctypes.c_size_t),
        ("type", ctypes.c_int),
        ("device_id", ctypes.c_char_p),
        ("rest", ctypes.c_char * _ROOM),
    )


def _function(name: str, result: Any, *arguments: Any) -> Any:
    function = getattr(_lib, name)
    function.restype, function.argtypes = result, arguments
    return function


_libraries = _function("ggml_backend_reg_count", ctypes.c_size_t)
_load_from = _function("ggml_backend_load_all_from_path", None, ctypes.c_char_p)
_count = _function("ggml_backend_dev_count", ctypes.c_size_t)
_device = _function("ggml_backend_dev_get", _TOKEN, ctypes.c_size_t)
_name = _function("ggml_backend_dev_name", ctypes.c_char_p, _TOKEN)
_description = _function("ggml_backend_dev_description", ctypes.c_char_p, _TOKEN)
_type = _function("ggml_backend_dev_type", ctypes.c_int, _TOKEN)
_memory = _function(
    "ggml_backend_dev_memory",
    None,
    _TOKEN,
    ctypes.POINTER(ctypes.c_size_t),
    ctypes.POINTER(ctypes.c_size_t),
)
_library_of = _function("ggml_backend_dev_backend_reg", _TOKEN, _TOKEN)
_library_name = _function("ggml_backend_reg_name", ctypes.c_char_p, _TOKEN)
_properties = _function("ggml_backend_dev_get_props", None, _TOKEN, ctypes.POINTER(_Properties))


def start(folders: Iterable[Path]) -> None:
    """Makes ggml ready. A build whose parts are loaded one by one finds them in these folders.

    By itself it would look beside the interpreter, and in the current folder. Of several libraries for the processor it
    takes the best.
    """
    for folder in folders:
        if not _libraries():
            _load_from(os.fsencode(folder))
    llama_cpp.llama_backend_init()


def devices() -> list[GgmlDevice]:
    """All that ggml can compute on, in its order. To ask an accelerator for its memory takes some of it."""
    return [_read(_device(index)) for index in range(_count())]


def features() -> frozenset[str]:
    """What the part for the processor was compiled to use, under ggml's names, such as `AVX2`."""
    text: str = llama_cpp.llama_print_system_info().decode("utf-8", "replace")
    found = re.search(r"\bCPU : (.*?)(?=\w+ : |$)", text, re.DOTALL)
    return frozenset(re.findall(r"(\w+) = 1\b", found[1] if found else ""))


def _read(token: int) -> GgmlDevice:
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    _memory(token, ctypes.byref(free), ctypes.byref(total))
    kind = _type(token)
    return GgmlDevice(
        name=_text(_name(token)),
        description=_text(_description(token)),
        library=_text(_library_name(_library_of(token))),
        kind=_KINDS[kind] if 0 <= kind < len(_KINDS) else "other",
        memory_free=free.value,
        memory_total=total.value,
        address=_address(token, kind),
        token=token,
    )


def _address(token: int, kind: int) -> str:
    found = _Properties()
    _properties(token, ctypes.byref(found))
    # Should a later library lay it out otherwise, what it says cannot be read.
    readable = found.type == kind and found.name == _name(token)
    return _text(found.device_id) if readable else ""


def _text(value: bytes | None) -> str:
    return (value or b"").decode("utf-8", "replace").strip()
