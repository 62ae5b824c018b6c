"""Work that takes as long as a client's data are large: beside the event loop, where others would notice."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

INLINE = 64 * 2**10
"""Bytes. For less, the way to a worker thread and back takes longer than the work."""


async def apart(size: int, work: Callable[[], T]) -> T:
    """The result of work on so many bytes: on a worker thread if they are many, else at once."""
    return await asyncio.to_thread(work) if size > INLINE else work()
