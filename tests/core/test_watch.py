"""Work that ends when its client leaves."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any, cast

import pytest

from corectl.errors import BadRequest, Canceled
from corectl.server.body import AnyRequest
from corectl.server.watch import while_connected


class Client:
    """What a request has of its client: it stays until it `leaves`."""

    def __init__(self) -> None:
        self.leaves = asyncio.Event()

    async def receive(self) -> dict[str, Any]:
        await self.leaves.wait()
        return {"type": "http.disconnect"}

    @property
    def request(self) -> AnyRequest:
        return cast(AnyRequest, self)


def run(work: Any) -> None:
    asyncio.run(asyncio.wait_for(work, 30))


def test_work_is_done_while_the_client_waits() -> None:
    async def check() -> None:
        async def work() -> int:
            await asyncio.sleep(0)
            return 1

        assert await while_connected(Client().request, work()) == 1
        with pytest.raises(BadRequest):
            await while_connected(Client().request, _refused())

    run(check())


async def _refused() -> None:
    raise BadRequest("no")


def test_work_is_cancelled_when_the_client_leaves_and_tidies_up_first() -> None:
    async def check() -> None:
        client, tidied = Client(), False

        async def work() -> None:
            nonlocal tidied
            client.leaves.set()
            try:
                await asyncio.Event().wait()
            finally:
                await asyncio.sleep(0)
                tidied = True

        with pytest.raises(Canceled):
            await while_connected(client.request, work())
        assert tidied
        # The task goes on as if nothing had been.
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0
        await asyncio.sleep(0)

    run(check())


def test_a_failure_while_tidying_up_is_not_what_a_client_that_left_is_told() -> None:
    async def check() -> None:
        client = Client()

        async def work() -> None:
            client.leaves.set()
            try:
                await asyncio.Event().wait()
            finally:
                raise BadRequest("broken")

        with pytest.raises(Canceled):
            await while_connected(client.request, work())

    run(check())


def test_who_cancels_the_task_ends_it() -> None:
    async def check() -> None:
        client = Client()
        task = asyncio.ensure_future(while_connected(client.request, asyncio.Event().wait()))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        both = asyncio.ensure_future(while_connected(client.request, asyncio.Event().wait()))
        await asyncio.sleep(0)
        client.leaves.set()
        both.cancel()
        with pytest.raises(asyncio.CancelledError):
            await both

    run(check())


@pytest.mark.parametrize("turns", range(6))
def test_a_client_that_leaves_as_the_work_ends_disturbs_nothing_later(turns: int) -> None:
    async def check() -> None:
        client = Client()

        async def work() -> int:
            client.leaves.set()
            for _ in range(turns):
                await asyncio.sleep(0)
            return turns

        # In one of these turns the client's leaving is known already, and not told yet.
        with suppress(Canceled):
            assert await while_connected(client.request, work()) == turns
        for _ in range(6):
            await asyncio.sleep(0)

    run(check())
