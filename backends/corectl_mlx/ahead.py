"""The step after the next one: MLX computes it while the token before it is made into text and sent.

Nobody has asked for it by then, so it may be in vain, and is undone. It takes the likeliest token, which MLX finds
without handing out logits; what is drawn in another way has to wait. In the runner.
"""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import msgspec

from corectl_mlx.caches import Caches


class _Begun(msgspec.Struct):
    """A step of one sequence, for which its caches have a token more than anybody knows."""

    id: int
    token: int
    caches: Caches
    found: mx.array


class Ahead:
    """Greedy steps of a sequence that generates alone. One at a time is ahead. For the engine's thread only."""

    def __init__(self, model: Any, vocabulary: int) -> None:
        self._model = model
        self._vocabulary = vocabulary
        self._begun: _Begun | None = None

    def next(self, id: int, token: int, caches: Caches) -> int:
        """The token that follows `token`, which is the sequence's last one. Plain caches only, with room for two."""
        begun, self._begun = self._begun, None
        if begun is not None and (begun.id, begun.token) == (id, token):
            found = begun.found
        else:
            _undo(begun)
            found = self._step(mx.array([token]), caches)
        following = self._step(found, caches)
        drawn = int(found.item())
        self._begun = _Begun(id, drawn, caches, following)
        return drawn

    def undo(self, id: int) -> None:
        """Has the caches of a sequence as everybody knows them."""
        if self._begun is not None and self._begun.id == id:
            _undo(self._begun)
            self._begun = None

    def _step(self, token: mx.array, caches: Caches) -> mx.array:
        logits = self._model(token[None], cache=caches)[:, -1, : self._vocabulary]
        found = mx.argmax(logits, axis=-1)
        mx.async_eval(found)
        return found


def _undo(begun: _Begun | None) -> None:
    for cache in begun.caches if begun is not None else ():
        cache.trim(1)
