"""A tensor of a GGUF file that is to be written, and the types that its values may have."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, Literal

import ml_dtypes  # noqa: F401 - gives numpy the type bfloat16
import msgspec
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Kind = Literal["F32", "F16", "BF16"]

FILE_TYPES: dict[Kind, int] = {"F32": 0, "F16": 1, "BF16": 32}
"""What `general.file_type` says of a file whose matrices are of a kind."""

_BYTES: dict[Kind, int] = {"F32": 4, "F16": 2, "BF16": 2}


class Tensor(msgspec.Struct, frozen=True):
    """`shape` has the slowest dimension first. `chunks` gives all values in their order, in pieces, of any type."""

    name: str
    shape: tuple[int, ...]
    kind: Kind
    chunks: Callable[[], Iterator[Array]]

    @property
    def size(self) -> int:
        """In bytes."""
        return math.prod(self.shape) * _BYTES[self.kind]


def with_type(values: Array, kind: Kind) -> Array:
    """The same numbers in another type; BF16 as it lies in memory. Raises `OverflowError` for what is too large."""
    if kind == "F32":
        return values.astype(np.float32)
    if kind == "BF16":
        return values.astype(np.dtype("bfloat16")).view(np.uint16)
    with np.errstate(over="ignore"):
        found: Array = values.astype(np.float16)
    if not np.isfinite(found).all() and np.isfinite(values.astype(np.float32)).all():
        raise OverflowError("a weight is too large for F16")
    return found
