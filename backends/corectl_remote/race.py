"""The first of several attempts that succeeds, such as connections to the addresses of one host."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, TypeVar

T = TypeVar("T")

HEAD_START = 0.25
"""Seconds that an attempt has before the next one begins beside it, as RFC 8305 has it."""


async def first(attempts: Iterable[Callable[[], Coroutine[Any, Any, T]]], spare: Callable[[T], object]) -> T:
    """The result of the attempt that succeeds first. The next one begins when all others have failed, or are slow.

    What else has succeeded is given to `spare`. Raises what the first attempt raised if none succeeds.
    """
    waiting = list(attempts)[::-1]
    running: list[asyncio.Task[T]] = []
    errors: list[BaseException] = []
    try:
        while waiting or running:
            if waiting:
                running.append(asyncio.get_running_loop().create_task(waiting.pop()()))
            await asyncio.wait(
                running, timeout=HEAD_START if waiting else None, return_when=asyncio.FIRST_COMPLETED
            )
            for task in [task for task in running if task.done()]:
                running.remove(task)
                if (error := task.exception()) is None:
                    return task.result()
                errors.append(error)
        raise errors[0]
    finally:
        for task in running:
            if not task.cancel() and task.exception() is None:
                spare(task.result())
