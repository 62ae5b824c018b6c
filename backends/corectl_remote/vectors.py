"""Vectors and scores of somebody else: as many as were asked for, and numbers."""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence

from corectl.errors import RemoteError
from corectl.messages import Scores, Vectors
from corectl.remote.backend import RemoteServer


def vectors_of(
    server: RemoteServer,
    rows: Sequence[Sequence[float]],
    wanted: int,
    *,
    prompt_tokens: int,
    dropped_tokens: int = 0,
) -> Vectors:
    """The rows as L2-normalised vectors. Raises `RemoteError` unless there is one of the same length for each input."""
    sizes = {len(row) for row in rows}
    if len(rows) != wanted or len(sizes) > 1 or 0 in sizes:
        found = f"{len(rows)} vectors, with {sorted(sizes)[:3]} values"
        raise RemoteError(f"remote server {server.label} sent {found}; wanted were {wanted} of one size")
    data = array("f")
    for row in rows:
        length = math.hypot(*row)
        if not math.isfinite(length):
            raise RemoteError(f"remote server {server.label} sent a vector with NaN or Inf")
        data.extend(value / length for value in row) if length else data.extend(row)
    return Vectors(
        data=data.tobytes(),
        size=sizes.pop() if sizes else 0,
        prompt_tokens=prompt_tokens,
        dropped_tokens=dropped_tokens,
    )


def scores_of(
    server: RemoteServer,
    pairs: Sequence[tuple[int, float]],
    wanted: int,
    *,
    prompt_tokens: int,
    dropped_tokens: int = 0,
) -> Scores:
    """Scores by the places of their documents. Raises `RemoteError` unless each has one."""
    found = dict(pairs)
    if len(pairs) != wanted or set(found) != set(range(wanted)):
        raise RemoteError(f"remote server {server.label} did not score each of {wanted} documents once")
    return Scores(
        scores=tuple(found[index] for index in range(wanted)),
        prompt_tokens=prompt_tokens,
        dropped_tokens=dropped_tokens,
    )
