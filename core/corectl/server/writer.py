"""Writes the body of a streamed reply in the very turn of the event loop in which its pieces come."""

from __future__ import annotations

import asyncio
import types
from collections.abc import Awaitable, Generator, Mapping, Sequence
from typing import Any

from litestar.types import HTTPResponseBodyEvent, HTTPResponseStartEvent, Send

from corectl.server.connections import body_of


class BodyWriter:
    """Sends pieces of a body at once while the client keeps up, and holds them while it does not.

    `head` is the message that begins the reply; it goes with the first piece.

    ASGI's `send` is a coroutine, behind one more of each middleware, but it only waits when too much is unsent. Until
    then pieces go to the connection directly, or `send` is run right here: a task that is woken for each token would
    cost more than everything else that is done for the token.
    """

    def __init__(self, scope: Mapping[str, Any], send: Send, head: HTTPResponseStartEvent) -> None:
        self._direct = body_of(scope)
        self.sent: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done when the last piece has been handed over; has the exception that sending raised."""
        self.held = 0
        """Bytes that wait for the client."""
        self.written = 0
        """Bytes in all."""
        self.begun = False
        """Whether anything has been written, and the reply's head with it."""
        self._send = send
        self._head = head
        self._waiting: list[bytes] = []
        self._last = False
        self._draining: asyncio.Task[None] | None = None

    def write(self, pieces: Sequence[bytes], *, last: bool = False) -> None:
        """Sends or holds some pieces at once; nothing may follow the `last` ones. Does not raise; see `sent`."""
        self._last = last
        size = sum(map(len, pieces))
        self.written += size
        if self._draining is not None:
            # An end has to be sent even if it is empty.
            self._waiting += pieces or [b""]
            self.held += size
        elif last or not self.begun or (size and not self._direct(pieces)):
            self._begin(b"".join(pieces))

    def _begin(self, body: bytes) -> None:
        steps = self._sending(body).__await__()
        try:
            waits_for = next(steps)
        except StopIteration:
            if self._last:
                self._finish(None)
        except Exception as exc:
            self._finish(exc)
        else:
            self.held = len(body)
            self._draining = asyncio.get_running_loop().create_task(self._drain(_rest(steps, waits_for)))

    def _sending(self, body: bytes) -> Awaitable[None]:
        # Whether it is the last is known now: while the head waits, more may come.
        piece: HTTPResponseBodyEvent = {
            "type": "http.response.body",
            "body": body,
            "more_body": not self._last,
        }
        if self.begun:
            return self._send(piece)
        self.begun = True
        return self._beginning(piece)

    async def _beginning(self, piece: HTTPResponseBodyEvent) -> None:
        await self._send(self._head)
        await self._send(piece)

    async def _drain(self, first: Awaitable[None]) -> None:
        """Sends what is held, as fast as the client takes it."""
        try:
            await first
            while self._waiting:
                body = b"".join(self._waiting)
                self._waiting.clear()
                self.held = len(body)
                await self._sending(body)
            self.held = 0
        except Exception as exc:
            self._finish(exc)
        else:
            if self._last:
                self._finish(None)
        finally:
            self._draining = None

    def _finish(self, error: Exception | None) -> None:
        if self.sent.done():
            return
        if error is None:
            self.sent.set_result(None)
        else:
            self.sent.set_exception(error)

    def abandon(self) -> None:
        """Forgets what is held: nobody will read it."""
        if self._draining is not None:
            self._draining.cancel()
        self._finish(None)


@types.coroutine
def _rest(steps: Generator[Any, Any, None], waits_for: Any) -> Generator[Any, Any, None]:
    """What is left of a coroutine that has been run up to the future that it waits for."""
    yield waits_for
    yield from steps
