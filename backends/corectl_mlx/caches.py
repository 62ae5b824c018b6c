"""The key-value caches of sequences: each has its own, or a row in those that are computed together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mlx.core as mx
import msgspec
import numpy as np
from mlx_lm.models.cache import KVCache

Caches = list[Any]
"""One for each layer, of mlx-lm's classes."""


class Rows:
    """Sequences that are computed in one go. Their caches are joined, padded on the left to one length."""

    def __init__(self) -> None:
        self.ids: list[int] = []
        self.caches: Caches = []

    def join(self, joining: dict[int, Caches]) -> None:
        """Adds sequences, whose own caches are used up by that."""
        if not joining:
            return
        parts = list(joining.values())
        merged = [layer[0].merge(list(layer)) for layer in zip(*parts, strict=True)]
        if not self.ids:
            self.caches = merged
        else:
            for cache, more in zip(self.caches, merged, strict=True):
                cache.extend(more)
        self.ids += joining

    def leave(self, leaving: Sequence[int]) -> dict[int, Caches]:
        """Takes sequences out; gives their own caches."""
        places = {id: self.ids.index(id) for id in leaving}
        taken = {id: [cache.extract(place) for cache in self.caches] for id, place in places.items()}
        # Else they would go on to hold the memory of all.
        mx.eval([cache.state for caches in taken.values() for cache in caches])
        self.drop(leaving)
        return taken

    def drop(self, leaving: Sequence[int]) -> None:
        """Takes sequences out, and forgets them."""
        stay = [place for place, id in enumerate(self.ids) if id not in leaving]
        if len(stay) == len(self.ids):
            return
        self.ids = [self.ids[place] for place in stay]
        for cache in self.caches if stay else ():
            cache.filter(stay)
        if not stay:
            self.caches = []


def trimmed(caches: Caches, length: int, tokens: int) -> bool:
    """Cuts caches of `length` tokens to the first `tokens`; False, and nothing done, where that cannot be."""
    if length == tokens:
        return True
    if not all(cache.is_trimmable() for cache in caches):
        return False
    # Such a cache has let go of its beginning, and says that it can be cut all the same.
    if any(getattr(cache, "start_position", 0) for cache in caches):
        return False
    for cache in caches:
        cache.trim(length - tokens)
    return True


def is_plain(caches: Caches) -> bool:
    """Whether caches hold keys and values and nothing else, so that they can be saved."""
    return all(type(cache) is KVCache for cache in caches)


class Layout(msgspec.Struct, frozen=True):
    """How plain caches are laid out in a saved state: for each array its heads, the size of a head, and its type."""

    arrays: tuple[tuple[int, int, Any], ...]

    @classmethod
    def of(cls, caches: Caches) -> Layout:
        """Of caches that have tokens."""
        arrays = [array for cache in caches for array in (cache.keys, cache.values)]
        return cls(tuple((array.shape[1], array.shape[3], array.dtype) for array in arrays))

    @property
    def cell(self) -> int:
        """Bytes of one token."""
        return sum(heads * size * int(kind.size) for heads, size, kind in self.arrays)

    def save(self, caches: Caches) -> bytearray:
        state = bytearray()
        for cache in caches:
            for array in cache.keys_and_values():
                # Not all of MLX's types are known to others, but all have bytes.
                state += np.array(mx.contiguous(array).view(mx.uint8)).data
        return state

    def load(self, state: bytearray) -> Caches:
        data, length, start = mx.array(np.frombuffer(state, np.uint8)), len(state) // self.cell, 0
        arrays = []
        for heads, size, kind in self.arrays:
            end = start + heads * length * size * int(kind.size)
            arrays.append(data[start:end].view(kind).reshape(1, heads, length, size))
            start = end
        caches = []
        for keys, values in zip(arrays[::2], arrays[1::2], strict=True):
            cache: Any = KVCache()
            cache.keys, cache.values, cache.offset = keys, values, length
            caches.append(cache)
        mx.eval(arrays)
        return caches
