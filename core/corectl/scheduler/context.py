"""How long a model's context is, and what shape its key-value memory has. Pure."""

from __future__ import annotations

import msgspec

from corectl.config import Settings
from corectl.errors import BadRequest
from corectl.runner.engine import CacheShape

GIB = 2**30
TIERS = ((47 * GIB, 262_144), (23 * GIB, 32_768), (0, 4096))
"""The memory that all accelerators have together, from which on a context is chosen so long."""
MIN_CONTEXT = 4
MIN_VISION_CONTEXT = 2048
"""An image takes hundreds of tokens."""
BATCHES = ((4096, 512), (32_768, 1024))
"""Contexts up to which a batch is so large; it is 2048 above."""
AUTO_SEQUENCES = 16
EMBEDDING_SEQUENCES = 64
"""Texts that are embedded in one step: they are short, and need no memory."""


class Context(msgspec.Struct, frozen=True):
    """A context in tokens. One that is `automatic`, because nobody has set it, may be lowered if memory is short."""

    num_ctx: int
    automatic: bool

    def choices(self) -> tuple[int, ...]:
        """The contexts to try, longest first."""
        lower = [length for _, length in TIERS if length < self.num_ctx] if self.automatic else []
        return (self.num_ctx, *lower)


def tier(memory: int) -> int:
    """The context in tokens where nothing is set; `memory` is that of all accelerators in bytes."""
    return next(length for least, length in TIERS if memory >= least)


def settle_context(
    requested: int | None, *, configured: int, memory: int, trained: int, ceiling: int, vision: bool
) -> Context:
    """The effective context: what request or model ask for, else the configured one, else by the accelerators' memory.

    It is at most what the model was trained for (0: not known). Raises `BadRequest` for a request above the `ceiling`
    (0: none).
    """
    if requested and ceiling and requested > ceiling:
        raise BadRequest(f'option "num_ctx" is {requested}, but this server allows {ceiling} at most')
    wanted = requested or configured or tier(memory)
    most = min(limit for limit in (trained, ceiling, max(wanted, MIN_VISION_CONTEXT)) if limit)
    least = min(MIN_VISION_CONTEXT, most) if vision else MIN_CONTEXT
    return Context(max(min(wanted, most), least, MIN_CONTEXT), automatic=requested is None and not configured)


def cache_shape(num_ctx: int, num_batch: int | None, settings: Settings, *, embedding: bool) -> CacheShape:
    """What decides, besides the number of cells, how much memory a model takes."""
    sequences = settings.num_parallel or (EMBEDDING_SEQUENCES if embedding else AUTO_SEQUENCES)
    if embedding:
        batch = num_ctx  # an encoder reads an input in one piece
    else:
        usual = next((size for most, size in BATCHES if num_ctx <= most), 2048)
        wanted = num_batch or (512 if settings.flash_attention is False else usual)
        # A token for each sequence that generates, and one of a prompt: else some would wait for others to end.
        batch = min(max(wanted, sequences + 1), num_ctx)
    return CacheShape(
        num_batch=batch,
        max_sequences=sequences,
        cache_type=settings.kv_cache_type,
        flash_attention=settings.flash_attention,
    )
