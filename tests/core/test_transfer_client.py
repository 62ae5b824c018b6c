"""Replies that are read as a whole, and how long they may take."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import httpx
import pytest

from corectl.errors import RemoteUnreachable
from corectl.transfer.client import Answer, ask
from tests.core.transfer_kit import FakeOrigin, Reply


def asked(
    origin: FakeOrigin,
    method: str,
    *,
    seconds: float,
    client: float,
    body: AsyncIterator[bytes] | None = None,
) -> Answer:
    """A reply to a client whose own timeouts are short."""

    async def work() -> Answer:
        async with httpx.AsyncClient(timeout=client, trust_env=False) as http:
            headers = {"content-length": "8"} if body else {}
            return await ask(http, method, f"{origin.url}/x", headers=headers, content=body, seconds=seconds)

    return asyncio.run(work())


def answering_late(origin: FakeOrigin, seconds: float) -> None:
    def late(reply: Reply) -> bool:
        reply.rfile.read(int(reply.asked.headers.get("content-length", 0)))
        time.sleep(seconds)
        reply.send(201)
        return True

    origin.faults.append(late)


async def pieces(count: int, pause: float) -> AsyncIterator[bytes]:
    for _ in range(count):
        await asyncio.sleep(pause)
        yield b"x"


def test_a_reply_may_be_long_in_coming(origin: FakeOrigin) -> None:
    """A registry puts the parts of a large blob together before it answers."""
    answering_late(origin, 1)
    assert asked(origin, "PUT", seconds=60, client=0.2).status == 201


def test_a_reply_that_does_not_come(origin: FakeOrigin) -> None:
    answering_late(origin, 5)
    with pytest.raises(RemoteUnreachable):
        asked(origin, "PUT", seconds=0.3, client=60)


def test_a_body_may_take_as_long_as_it_moves(origin: FakeOrigin) -> None:
    answering_late(origin, 0)
    assert asked(origin, "PATCH", seconds=2, client=60, body=pieces(8, 0.4)).status == 201


def test_a_body_that_does_not_move(origin: FakeOrigin) -> None:
    answering_late(origin, 0)
    with pytest.raises(RemoteUnreachable, match="no answer within"):
        asked(origin, "PATCH", seconds=0.3, client=60, body=pieces(8, 10))
