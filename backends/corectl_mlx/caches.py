"""The key-value caches of sequences: each has its own, or a row in those that are computed together."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import mlx.core as mx
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
    for cache in caches:
        cache.trim(length - tokens)
    return True


def is_plain(caches: Caches) -> bool:
    """Whether caches hold keys and values and nothing else, so that they can be saved."""
    return all(type(cache) is KVCache for cache in caches)


def frozen(caches: Caches) -> bytearray:
    """The state of plain caches, as a safetensors file."""
    buffer = io.BytesIO()
    arrays: dict[str, Any] = {}
    for layer, cache in enumerate(caches):
        keys, values = cache.keys_and_values()
        arrays |= {f"{layer}.keys": mx.contiguous(keys), f"{layer}.values": mx.contiguous(values)}
    mx.save_safetensors(buffer, arrays)
    return bytearray(buffer.getbuffer())


def thawed(state: bytearray, layers: int) -> Caches:
    """Caches with a saved state."""
    arrays = mx.load(io.BytesIO(state), format="safetensors")
    found = []
    for layer in range(layers):
        cache: Any = KVCache()
        cache.keys, cache.values = arrays[f"{layer}.keys"], arrays[f"{layer}.values"]
        cache.offset = cache.keys.shape[2]
        found.append(cache)
    mx.eval([cache.state[:2] for cache in found])
    return found
