"""What an engine is that can see: images in, cells of a sequence out.

An engine that can has a property `vision`; one that cannot has nothing to do. Images are read in three stages, each on
the thread where it holds up the fewest: `see` says what stands for an image, from its size alone; `load` decodes its
pixels; `encode` runs the vision model.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import msgspec

IMAGE = -1
"""Stands in a list of tokens for a cell that an image fills."""


class Picture(msgspec.Struct, frozen=True, kw_only=True):
    """An image of a prompt. `digest` tells it from all others, and from the same of another `cache_salt`.

    Sizes are in pixels.

    `pixels` decodes it: red, green and blue, a byte each, rows from the top. It raises `BadRequest` for a damaged file,
    and may be called on any thread.
    """

    digest: str
    width: int
    height: int
    pixels: Callable[[], bytes]


class ImageSpan(msgspec.Struct, frozen=True, kw_only=True):
    """Cells that an image fills, always computed in one piece: `cells` of them, from the place `start` in the tokens.

    They take `positions` positions, which may be fewer (M-RoPE). `handle` is the engine's own.
    """

    start: int
    cells: int
    positions: int
    handle: Any


class Seen(msgspec.Struct, frozen=True):
    """What stands for an image in a sequence: tokens, with `IMAGE` in the cells of the spans."""

    tokens: tuple[int, ...]
    spans: tuple[ImageSpan, ...]


class Vision(Protocol):
    """The power to see. An image that was seen before may be known still, and then costs nothing again."""

    def see(self, picture: Picture) -> Seen:
        """What stands for a picture, which is not decoded yet. Raises `BadRequest` for a shape that cannot be seen.

        Called on the thread that prepares requests.
        """
        ...

    def load(self, span: ImageSpan) -> None:
        """Decodes a span's picture, so that it is known to be sound; keeps that if memory allows. Raises `BadRequest`.

        Called on the thread that prepares requests.
        """
        ...

    def encode(self, span: ImageSpan) -> None:
        """Computes a span's embeddings, so that a step can take it. May take seconds.

        Called on the batch loop's thread, before each step that takes it. Raises `EngineError`; then only this
        sequence fails.
        """
        ...


@runtime_checkable
class SeeingEngine(Protocol):
    """An engine that may be able to see: `vision` is None for a model that cannot."""

    @property
    def vision(self) -> Vision | None: ...


def vision_of(engine: object) -> Vision | None:
    """An engine's power to see, or None."""
    return engine.vision if isinstance(engine, SeeingEngine) else None
