"""Work that ends when its client leaves."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from corectl.errors import Canceled
from corectl.server.body import AnyRequest

T = TypeVar("T")


async def while_connected(request: AnyRequest, work: Awaitable[T]) -> T:
    """The result of `work`, which is cancelled when the client disconnects (then `Canceled` is raised).

    Call it after the request's body has been read.
    """
    # The work is done by this very task, and begins at once; one of its own would have to wait for its turn first.
    task = asyncio.current_task()
    assert task is not None
    at_work, left = True, False

    def leave(_: asyncio.Future[None]) -> None:
        nonlocal left
        left = at_work and task.cancel()

    gone = asyncio.ensure_future(disconnected(request.receive))
    gone.add_done_callback(leave)
    try:
        return await work
    except (asyncio.CancelledError, Exception):
        # Whoever else has cancelled this task wants it to end.
        if left and not task.uncancel():
            raise Canceled("request canceled") from None
        raise
    finally:
        at_work = False
        gone.cancel()


async def disconnected(receive: Callable[[], Awaitable[Any]]) -> None:
    """Returns when the client has left. Call it after the request's body has been read."""
    while (await receive())["type"] != "http.disconnect":
        pass
