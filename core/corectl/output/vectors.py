"""Vectors on the server's side of the wire. Without numpy, which the server can do without."""

from __future__ import annotations

from array import array
from collections.abc import Iterator

import msgspec

from corectl.messages import Vectors


def rows(vectors: Vectors) -> Iterator[list[float]]:
    """Each vector as a list."""
    size = 4 * vectors.size
    for at in range(0, len(vectors.data), size or 1):
        yield array("f", vectors.data[at : at + size]).tolist()


def json_rows(vectors: Vectors) -> list[msgspec.Raw]:
    """Each vector as JSON, for a reply to be written on a worker thread.

    All of them in one call would keep the event loop from running, as if they were written on it: no other thread runs
    during a call into C that does not let go of the interpreter.
    """
    return [msgspec.Raw(msgspec.json.encode(row)) for row in rows(vectors)]
