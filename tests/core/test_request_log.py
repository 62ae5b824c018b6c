"""One line of the log for each request, whatever becomes of it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from corectl.server.request_log import RequestLog

App = Callable[[Any, Any, Any], Awaitable[None]]


async def answers(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 404, "headers": []})
    await send({"type": "http.response.body", "body": b""})


async def fails(scope: Any, receive: Any, send: Any) -> None:
    raise RuntimeError("a bug")


async def fails_late(scope: Any, receive: Any, send: Any) -> None:
    await answers(scope, receive, send)
    raise RuntimeError("a bug")


async def says_nothing(scope: Any, receive: Any, send: Any) -> None:
    """The client has left."""


@pytest.mark.parametrize(
    ("app", "status", "outcome"),
    [
        (answers, 404, "refused"),
        (fails, 500, "refused"),
        (fails_late, 404, "refused"),
        (says_nothing, 499, "refused"),
    ],
)
def test_the_status(app: App, status: int, outcome: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "corectl.request")
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def story() -> None:
        scope = {"type": "http", "method": "GET", "path": "/x", "headers": [(b"x-request-id", b"mine")]}
        await RequestLog(app)(scope, None, send)  # type: ignore[arg-type]

    try:
        asyncio.run(story())
    except RuntimeError as exc:
        assert str(exc) == "a bug"
    (record,) = caplog.records
    fields: dict[str, Any] = record.fields  # type: ignore[attr-defined]
    assert (fields["id"], fields["path"]) == ("mine", "/x")
    assert (fields["status"], fields["outcome"]) == (status, outcome)
    assert not sent or (b"x-request-id", b"mine") in sent[0]["headers"]
