"""The layers of a model in the making, in their order, and what is to be said when they are stored."""

from __future__ import annotations

import hashlib
from pathlib import Path

import msgspec

from corectl.model.manifest import Layer, MediaType
from corectl.progress import Progress, Report
from corectl.store.blobs import BlobStore


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """A layer whose bytes are a blob, or `data`, or lie at `path` in a scratch folder. `digest` is `sha256:<hex>`.

    A blob may have been made for this model a moment ago: it is `new`. What is `told` gets a line when it is stored.
    """

    media_type: str
    digest: str
    size: int
    name: str = ""
    from_: str = ""
    data: bytes | None = None
    path: Path | None = None
    new: bool = False
    told: bool = True

    @property
    def layer(self) -> Layer:
        return Layer(
            media_type=self.media_type, digest=self.digest, size=self.size, name=self.name, from_=self.from_
        )


def text_part(media_type: MediaType, data: bytes, *, told: bool = True) -> Part:
    """A small layer that is not stored yet."""
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    return Part(media_type=media_type, digest=digest, size=len(data), data=data, told=told)


class Parts:
    """Layers, and sentences between them."""

    def __init__(self) -> None:
        self._items: list[Part | str] = []

    def add(self, *parts: Part) -> None:
        self._items += parts

    def say(self, status: str) -> None:
        """A sentence for when everything before it has been stored."""
        self._items.append(status)

    def replace(self, *parts: Part) -> None:
        """Add parts in the place of all others of their kinds."""
        kinds = {part.media_type for part in parts}
        self._items = [item for item in self._items if isinstance(item, str) or item.media_type not in kinds]
        self.add(*parts)

    def digests(self, media_type: MediaType) -> set[str]:
        """Of all layers of one kind."""
        return {
            item.digest for item in self._items if isinstance(item, Part) and item.media_type == media_type
        }

    def store(self, blobs: BlobStore, report: Report, created: list[str]) -> list[Layer]:
        """Stores what is not stored yet; returns all layers. New blobs are added to `created`. Raises `OSError`."""
        layers = []
        for item in self._items:
            if isinstance(item, str):
                report(Progress(item))
                continue
            stored = _store(blobs, item)
            if stored:
                created.append(item.digest)
            if item.told:
                new = stored or item.new
                report(Progress(f"{'creating new' if new else 'using existing'} layer {item.digest}"))
            layers.append(item.layer)
        return layers


def _store(blobs: BlobStore, part: Part) -> bool:
    """Whether the part was not a blob before."""
    if part.data is not None:
        return blobs.put(part.data).created
    return part.path is not None and blobs.move(part.path, part.digest)
