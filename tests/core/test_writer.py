"""Bodies that are written in the turn of the loop in which their pieces come."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from corectl.server.writer import BodyWriter
from tests.core.stories import play

HEAD: Any = {"type": "http.response.start", "status": 200, "headers": []}


class Client:
    """An ASGI `send` that takes everything at once, until it is told to wait."""

    def __init__(self) -> None:
        self.heads = 0
        self.messages: list[Any] = []
        self.ready = asyncio.Event()
        self.ready.set()
        self.error: Exception | None = None

    async def send(self, message: Any) -> None:
        await self.ready.wait()
        if self.error is not None:
            raise self.error
        if message is HEAD:
            self.heads += 1
            assert not self.messages
        else:
            self.messages.append(message)

    @property
    def body(self) -> bytes:
        return b"".join(message["body"] for message in self.messages)


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def test_a_client_that_keeps_up_is_written_to_at_once() -> None:
    async def story() -> None:
        client = Client()
        writer = BodyWriter({}, client.send, HEAD)
        assert (writer.begun, client.heads) == (False, 0)
        writer.write([b"a"])
        writer.write([b""])
        assert (writer.begun, client.heads) == (True, 1)
        assert [message["body"] for message in client.messages] == [b"a"]
        assert len(asyncio.all_tasks()) == 1, "no task for a piece"
        writer.write([b"b"], last=True)
        assert writer.sent.done() and client.body == b"ab"
        assert [message["more_body"] for message in client.messages] == [True, False]

    play(story())


@pytest.mark.parametrize("turns", [0, 5])
@pytest.mark.parametrize("pieces", [1, 2, 5])
def test_what_a_slow_client_does_not_take_is_held_and_sent_in_order(pieces: int, turns: int) -> None:
    async def story() -> None:
        client = Client()
        writer = BodyWriter({}, client.send, HEAD)
        client.ready.clear()
        for number in range(pieces):
            writer.write([b"%d" % number], last=number == pieces - 1)
            for _ in range(turns):
                await asyncio.sleep(0)
        assert (client.messages, writer.held) == ([], pieces)
        client.ready.set()
        await writer.sent
        assert client.body == b"".join(b"%d" % number for number in range(pieces))
        assert [message["more_body"] for message in client.messages][-1] is False
        assert sum(not message["more_body"] for message in client.messages) == 1
        assert writer.held == 0

    play(story())


def test_an_empty_last_piece_ends_a_body_that_is_held() -> None:
    async def story() -> None:
        client = Client()
        writer = BodyWriter({}, client.send, HEAD)
        client.ready.clear()
        writer.write([b"a"])
        writer.write([], last=True)
        client.ready.set()
        await writer.sent
        assert client.body == b"a"
        assert [message["more_body"] for message in client.messages] == [True, False]

    play(story())


def test_a_client_may_be_slow_again_and_again() -> None:
    async def story() -> None:
        client = Client()
        writer = BodyWriter({}, client.send, HEAD)
        for number in range(20):
            client.ready.set() if number % 3 else client.ready.clear()
            writer.write([b"%d," % number])
            await asyncio.sleep(0)
        writer.write([b""], last=True)
        client.ready.set()
        await writer.sent
        assert client.body == b"".join(b"%d," % number for number in range(20))
        assert client.messages[-1]["more_body"] is False

    play(story())


@pytest.mark.parametrize("waits", [True, False])
@pytest.mark.parametrize("begun", [False, True])
def test_an_error_of_sending_is_kept(begun: bool, waits: bool) -> None:
    async def story() -> None:
        client = Client()
        writer = BodyWriter({}, client.send, HEAD)
        if begun:
            writer.write([b""])
            assert client.heads == 1
        client.error = OSError("broken")
        if waits:
            client.ready.clear()
        writer.write([b"a"], last=True)
        client.ready.set()
        with pytest.raises(OSError, match="broken"):
            await writer.sent

    play(story())


def test_an_abandoned_body_leaves_no_task() -> None:
    async def story() -> None:
        client = Client()
        writer = BodyWriter({}, client.send, HEAD)
        client.ready.clear()
        writer.write([b"a"])
        writer.write([b"b"])
        writer.abandon()
        await settle()
        assert writer.sent.done() and len(asyncio.all_tasks()) == 1
        client.ready.set()
        await settle()
        assert client.messages == []

    play(story())
