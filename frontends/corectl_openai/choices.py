"""Several completions for one reply: choices of one prompt, or of several."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

import msgspec

from corectl.messages import Completion, Delta, Finish
from corectl.server.body import AnyRequest
from corectl.server.context import Clock
from corectl.server.inference import Settled
from corectl.server.services import Services
from corectl.server.streaming import OpenCompletion
from corectl.server.watch import while_connected
from corectl.server.whole import collected
from corectl_openai.errors import WrongField
from corectl_openai.replies import encode

T = TypeVar("T")

SEEDS = 2**31


def variants(work: Completion, count: int) -> list[Completion]:
    """The same work several times. A seed that was given is that of the first; the others draw with the next ones."""
    seed = work.sampling.seed
    if seed < 0:
        return [work] * count
    return [
        work,
        *(
            msgspec.structs.replace(
                work, sampling=msgspec.structs.replace(work.sampling, seed=(seed + step) % SEEDS)
            )
            for step in range(1, count)
        ),
    ]


def check_size(works: Sequence[Completion], limit: int) -> None:
    """Each goes to the runner with the whole of its prompt: together they may have as many bytes as a request."""
    sizes: dict[int, int] = {}
    for work in works:
        if id(work.prompt) not in sizes:
            sizes[id(work.prompt)] = len(encode((work.prompt, work.context)))
    size = sum(sizes[id(work.prompt)] for work in works)
    if size > limit:
        raise WrongField(
            "n", f"n: {len(works)} prompts of {size} bytes together; this server takes {limit} (max_body)"
        )


async def open_all(
    request: AnyRequest, services: Services, settled: Settled, works: Sequence[Completion], clock: Clock
) -> list[OpenCompletion]:
    """Starts all of them; returns when all prompts have been fitted. What fails until then ends all, and is raised.

    Raises `WrongField` for more than may be in work at once.
    """
    if len(works) > 1:
        await asyncio.to_thread(check_size, works, services.settings.max_body)
    starting = [
        OpenCompletion.open(services.scheduler, settled.model, settled.load, settled.keep_alive, work)
        for work in works
    ]
    opened = await while_connected(request, _together(starting))
    clock.load, clock.requested_ctx = opened[0].load_ns, settled.load.num_ctx or 0
    return opened


async def take_all(request: AnyRequest, opened: Sequence[OpenCompletion]) -> list[tuple[Delta, Finish]]:
    """All that they give, each as one piece and its end. They are closed then, and if one fails."""
    try:
        return await while_connected(request, _together([collected(one) for one in opened]))
    finally:
        for one in opened:
            await one.close()


async def _together(work: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """The results of all. If one raises, or this is cancelled, nothing is left running or open."""
    tasks = [asyncio.ensure_future(item) for item in work]
    try:
        return await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        for result in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(result, OpenCompletion):
                await result.close()
        raise
