"""The library through its C interface. Imported in the runner process only.

Its Python interface keeps the interpreter's lock while it computes, so that nothing else in the process could move, and
copies logits once more.
"""

from __future__ import annotations

import ctypes
import os
import sys
from ctypes import POINTER, byref, c_char_p, c_double, c_float, c_size_t, c_void_p
from pathlib import Path
from typing import Any

# Some builds report to their maker how they are used. This must be set before they are loaded.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import numpy as np
import numpy.typing as npt
import onnxruntime_genai

from corectl.errors import EngineError, OutOfMemory
from corectl.runner.sampling import Logits

_FILES = {"win32": "onnxruntime-genai.dll", "darwin": "libonnxruntime-genai.dylib"}
# The package has loaded it already, with all that it needs.
_library = ctypes.CDLL(
    str(Path(onnxruntime_genai.__file__).with_name(_FILES.get(sys.platform, "libonnxruntime-genai.so")))
)

_NO_MEMORY = ("bad_alloc", "out of memory", "failed to allocate", "could not allocate")
_MOST_SAID = 400


def _function(name: str, *arguments: Any, result: Any = c_void_p) -> Any:
    found = getattr(_library, name)
    found.argtypes, found.restype = arguments, result
    return found


_error = _function("OgaResultGetError", c_void_p, result=c_char_p)
_destroy_result = _function("OgaDestroyResult", c_void_p, result=None)
_create_config = _function("OgaCreateConfig", c_char_p, POINTER(c_void_p))
_destroy_config = _function("OgaDestroyConfig", c_void_p, result=None)
_create_model = _function("OgaCreateModelFromConfig", c_void_p, POINTER(c_void_p))
_destroy_model = _function("OgaDestroyModel", c_void_p, result=None)
_create_params = _function("OgaCreateGeneratorParams", c_void_p, POINTER(c_void_p))
_destroy_params = _function("OgaDestroyGeneratorParams", c_void_p, result=None)
_set_number = _function("OgaGeneratorParamsSetSearchNumber", c_void_p, c_char_p, c_double)
_create_generator = _function("OgaCreateGenerator", c_void_p, c_void_p, POINTER(c_void_p))
_destroy_generator = _function("OgaDestroyGenerator", c_void_p, result=None)
_append_tokens = _function("OgaGenerator_AppendTokens", c_void_p, c_void_p, c_size_t)
_rewind_to = _function("OgaGenerator_RewindTo", c_void_p, c_size_t)
_get_logits = _function("OgaGenerator_GetLogits", c_void_p, POINTER(c_void_p))
_get_data = _function("OgaTensorGetData", c_void_p, POINTER(c_void_p))
_destroy_tensor = _function("OgaDestroyTensor", c_void_p, result=None)


def _check(result: int | None) -> None:
    """Raises `EngineError` with what the library says, and `OutOfMemory` if it speaks of that."""
    if not result:
        return
    text = _error(result).decode("utf-8", "replace").strip()[:_MOST_SAID]
    _destroy_result(result)
    if any(mark in text.lower() for mark in _NO_MEMORY):
        raise OutOfMemory(f"ONNX Runtime has no memory left: {text}")
    raise EngineError(f"ONNX Runtime: {text}")


def _created(create: Any, *arguments: Any) -> c_void_p:
    found = c_void_p()
    _check(create(*arguments, byref(found)))
    return found


class NativeModel:
    """A model that the library has loaded from a folder. All methods raise `EngineError` and `OutOfMemory`."""

    def __init__(self, folder: Path, *, vocabulary: int) -> None:
        """`vocabulary` is how many logits the folder's configuration promises."""
        self._vocabulary = vocabulary
        config = _created(_create_config, os.fsencode(folder))
        try:
            self._model = _created(_create_model, config)
        finally:
            _destroy_config(config)

    def generator(self, length: int) -> Generator:
        """Room for one sequence of at most so many tokens. Its memory is taken, and written to, right away."""
        params = _created(_create_params, self._model)
        try:
            for name, value in ((b"max_length", length), (b"batch_size", 1), (b"num_beams", 1)):
                _check(_set_number(params, name, float(value)))
            return Generator(_created(_create_generator, self._model, params), self._vocabulary)
        finally:
            _destroy_params(params)

    def close(self) -> None:
        """Called once. The memory is free when all generators are closed as well."""
        _destroy_model(self._model)


class Generator:
    """One sequence, and the room for it. Used by one thread."""

    def __init__(self, native: c_void_p, vocabulary: int) -> None:
        self._native, self._vocabulary = native, vocabulary
        self._logits: c_void_p | None = None

    def append(self, tokens: npt.NDArray[np.int32]) -> None:
        """Computes tokens that follow those before."""
        _check(_append_tokens(self._native, tokens.ctypes.data, len(tokens)))

    def logits(self) -> Logits:
        """Those for the token that comes next. The array is the caller's until the next call of any method."""
        self._forget_logits()
        self._logits = _created(_get_logits, self._native)
        data = ctypes.cast(_created(_get_data, self._logits), POINTER(c_float))
        return np.ctypeslib.as_array(data, (self._vocabulary,))

    def rewind(self, length: int) -> None:
        """Forgets all but the first `length` tokens."""
        _check(_rewind_to(self._native, length))

    def close(self) -> None:
        """Called once."""
        self._forget_logits()
        _destroy_generator(self._native)

    def _forget_logits(self) -> None:
        logits, self._logits = self._logits, None
        if logits is not None:
            _destroy_tensor(logits)
