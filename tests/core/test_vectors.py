"""Vectors as they travel, and as lists."""

from __future__ import annotations

import msgspec
import numpy as np

from corectl.messages import Vectors
from corectl.output.vectors import json_rows, rows


def test_rows_are_the_vectors_one_after_another() -> None:
    matrix = np.arange(6, dtype=np.float32).reshape(2, 3) / 7
    vectors = Vectors(data=matrix.tobytes(), size=3, prompt_tokens=0)
    found = list(rows(vectors))
    np.testing.assert_array_equal(np.array(found, np.float32), matrix)
    assert all(type(value) is float for row in found for value in row)
    assert msgspec.json.decode(msgspec.json.encode(json_rows(vectors))) == found


def test_no_vectors() -> None:
    assert list(rows(Vectors(data=b"", size=0, prompt_tokens=0))) == []
