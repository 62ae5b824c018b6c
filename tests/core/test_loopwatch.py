"""Code that holds up the event loop is noticed and named."""

from __future__ import annotations

import asyncio
import logging
import time

import pytest

from corectl.server import loopwatch
from corectl.server.loopwatch import watched_loop


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loopwatch, "EVERY", 0.02)


async def until_said(caplog: pytest.LogCaptureFixture, text: str) -> None:
    async with asyncio.timeout(30):
        while text not in caplog.text:  # noqa: ASYNC110 - a thread writes it
            await asyncio.sleep(0.01)


def test_it_says_who_holds_it_up_and_when_it_goes_on(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loopwatch, "PATIENCE", 0.1)

    async def story() -> None:
        with watched_loop():
            end = time.monotonic() + 30
            while "held up" not in caplog.text and time.monotonic() < end:
                time.sleep(0.01)  # noqa: ASYNC251 - this is what is noticed
            await until_said(caplog, "the event loop goes on")

    with caplog.at_level(logging.WARNING):
        asyncio.run(story())
    assert (
        caplog.records[0]
        .getMessage()
        .startswith("nothing is answered: the event loop is held up by no plugin that is known (")
    )


def test_a_loop_that_turns_is_left_alone(caplog: pytest.LogCaptureFixture) -> None:
    async def story() -> None:
        with watched_loop():
            for _ in range(30):
                await asyncio.sleep(0.01)

    asyncio.run(story())
    assert caplog.text == ""
