"""Several attempts of which the first that succeeds counts."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from corectl_remote import race
from corectl_remote.address import addresses
from corectl_remote.race import first
from tests.core.stories import play

Attempt = Callable[[], Coroutine[Any, Any, str]]


def after(gate: asyncio.Event | None, result: str | Exception, begun: list[str] | None = None) -> Attempt:
    async def attempt() -> str:
        if begun is not None:
            begun.append(str(result))
        if gate is not None:
            await gate.wait()
        if isinstance(result, Exception):
            raise result
        return result

    return attempt


def test_one_that_succeeds_at_once_is_alone() -> None:
    async def story() -> None:
        begun: list[str] = []
        assert await first([after(None, "a", begun), after(None, "b", begun)], begun.append) == "a"
        assert begun == ["a"]

    play(story())


def test_the_next_one_begins_when_one_fails_or_is_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        never = asyncio.Event()
        monkeypatch.setattr(race, "HEAD_START", 60.0)
        assert await first([after(None, OSError("x")), after(None, "b")], print) == "b"
        monkeypatch.setattr(race, "HEAD_START", 0.01)
        assert await first([after(never, "a"), after(None, OSError("x")), after(None, "c")], print) == "c"

    play(story())


def test_if_all_fail_the_first_error_counts() -> None:
    async def story() -> None:
        with pytest.raises(OSError, match="one"):
            await first([after(None, OSError("one")), after(None, OSError("two"))], print)

    play(story())


def test_what_succeeds_too_late_is_spared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(race, "HEAD_START", 0.0)

    async def story() -> None:
        spared: list[str] = []
        go = asyncio.Event()
        racing = asyncio.ensure_future(first([after(go, "a"), after(go, "b"), after(go, "c")], spared.append))
        await asyncio.sleep(0.05)
        go.set()
        won = await racing
        await asyncio.sleep(0)
        assert {won, *spared} == {"a", "b", "c"}
        assert len(asyncio.all_tasks()) == 1, "nothing goes on"

    play(story())


def test_giving_up_ends_all_attempts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(race, "HEAD_START", 0.0)

    async def story() -> None:
        never = asyncio.Event()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(first([after(never, "a"), after(never, "b")], print), 0.05)
        await asyncio.sleep(0)
        assert len(asyncio.all_tasks()) == 1

    play(story())


def test_addresses_come_in_turns_of_their_kinds(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        def entry(family: int, *at: Any) -> tuple[Any, ...]:
            return (family, socket.SOCK_STREAM, 6, "", at)

        async def lookup(*_: Any, **__: Any) -> list[tuple[Any, ...]]:
            four, six = socket.AF_INET, socket.AF_INET6
            return [
                entry(six, "2001:db8::1", 80, 0, 0),
                entry(six, "fe80::1", 80, 0, 3),
                entry(six, "2001:db8::1", 80, 0, 0),
                entry(four, "192.0.2.1", 80),
                entry(four, "192.0.2.2", 80),
                entry(four, "192.0.2.3", 80),
            ]

        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", lookup)
        found = await addresses("h", 80)
        assert found == ["2001:db8::1", "192.0.2.1", "fe80::1%3", "192.0.2.2", "192.0.2.3"]

    play(story())
