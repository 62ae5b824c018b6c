"""Makes the weights of a GGUF model smaller, as llama.cpp does. In a process of its own."""

from __future__ import annotations

import ctypes
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# Without it a failed assert attaches a debugger and prints its trace before the process ends.
os.environ.setdefault("GGML_NO_BACKTRACE", "1")

import llama_cpp

from corectl.errors import BadRequest, LoadFailed
from corectl.hardware.cores import usable_cores
from corectl.messages import Notice
from corectl.model.files import ModelFiles
from corectl.model.gguf import Header
from corectl.model.split import part_name, parts_of, whole_header
from corectl_llamacpp import ggml, logs
from corectl_llamacpp.build import Build
from corectl_llamacpp.kinds import KINDS

RESULT = "model.gguf"

_UNQUANTIZED = frozenset(("F32", "F16", "BF16", "F64", "I8", "I16", "I32", "I64"))
"""Types of tensors that are not quantised; the whole numbers are tables, which stay as they are."""

_BEGINS = re.compile(r"\[ *\d+/ *\d+\] +(\S+)")
"""A tensor's turn, in the log."""
_FALLS_BACK = re.compile(r"-> falling back to +(\S+)")

_DEFAULT_KIND = KINDS["Q8_0"]


def write_quantized(
    files: ModelFiles, target: str, folder: Path, done: Callable[[int, int], None], build: Build
) -> list[Notice]:
    """Writes `model.gguf` to the folder. `target` is one of `KINDS`.

    Raises `BadRequest` for weights that are quantised, `BadModelFile`, and `LoadFailed` with what llama.cpp says.
    """
    header = whole_header(files)
    if any(tensor.type_name not in _UNQUANTIZED for tensor in header.tensors):
        raise BadRequest("quantization is only supported for F16, BF16 and F32 models")
    logs.install()
    ggml.start(build.folders)
    progress = _Progress(header, done)
    callback = llama_cpp.llama_log_callback(progress)
    llama_cpp.llama_log_set(callback, None)
    with _named_as_parts(files) as first:
        status = llama_cpp.llama_model_quantize(
            os.fsencode(first), os.fsencode(folder / RESULT), ctypes.byref(_params(target))
        )
    if status:
        raise logs.failure("llama.cpp cannot quantise the model")
    progress.end()
    return progress.notices(target)


def _params(target: str) -> Any:
    params = llama_cpp.llama_model_quantize_default_params()
    # The library copies a structure whose layout the bindings only assume: these are known.
    if params.ftype != _DEFAULT_KIND or not params.quantize_output_tensor or params.imatrix:
        raise LoadFailed("this build of llama-cpp-python does not fit its library; install it again")
    params.ftype = KINDS[target]
    params.nthread = usable_cores()
    return params


@contextmanager
def _named_as_parts(files: ModelFiles) -> Iterator[Path]:
    """The first file. llama.cpp finds other parts by their names, which blobs do not have."""
    paths = parts_of(files)
    if len(paths) == 1:
        yield paths[0]
        return
    with tempfile.TemporaryDirectory(prefix="corectl-") as name:
        links = [Path(name, part_name("model", number, len(paths))) for number in range(1, len(paths) + 1)]
        for link, path in zip(links, paths, strict=True):
            link.symlink_to(path.resolve())
        yield links[0]


class _Progress:
    """Reads from llama.cpp's log how far it is, and what it makes otherwise than it was asked to."""

    def __init__(self, header: Header, done: Callable[[int, int], None]) -> None:
        self._sizes = {tensor.name: tensor.size_bytes for tensor in header.tensors}
        self._total = sum(self._sizes.values())
        self._completed = 0
        self._current = 0
        self._done = done
        self._instead: list[str] = []

    def __call__(self, level: int, text: bytes, data: Any) -> None:
        # An exception must not get out of a callback that C code calls.
        try:
            said = text.decode("utf-8", "replace")
            if found := _BEGINS.match(said):
                self._begin(found[1])
            elif found := _FALLS_BACK.match(said):
                self._instead.append(found[1].upper())
        except Exception:
            self._current = 0
        logs.callback(level, text, data)

    def _begin(self, tensor: str) -> None:
        self._completed += self._current
        self._current = self._sizes.get(tensor, 0)
        self._done(min(self._completed, self._total), self._total)

    def end(self) -> None:
        self._done(self._total, self._total)

    def notices(self, target: str) -> list[Notice]:
        """What became another kind than `target` wants, because rows do not divide into its blocks."""
        if not self._instead:
            return []
        kinds = " or ".join(sorted(set(self._instead)))
        message = (
            f"{len(self._instead)} of {len(self._sizes)} tensors have rows that do not divide into the blocks of "
            f"{target}; they are {kinds} instead"
        )
        return [Notice(code="quantize_fallback", message=message)]
