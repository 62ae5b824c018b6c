"""Remote servers that say what a test wants, without any connection."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, cast

from corectl.config import Settings
from corectl.messages import LoadOptions
from corectl.model.manifest import ModelConfig
from corectl.model.name import ModelName
from corectl.model.record import ModelRecord
from corectl.remote.backend import RemoteEntry, RemoteServer
from corectl.remote.remotes import Remotes
from corectl.remote.watch import WatchedServer

URL = "http://10.0.0.2:8000/v1"
KEY = "sk-do-not-tell"


class FakeHost:
    """A server that says what the test wants."""

    protocol = "fake"

    def __init__(self, server: RemoteServer) -> None:
        self.server = server
        self.offers: Sequence[RemoteEntry] = ()
        self.problem: Exception | None = None
        self.gate = asyncio.Event()
        self.gate.set()
        self.checks = 0
        self.asked: list[tuple[Any, ...]] = []
        self.closed = False

    async def models(self) -> Sequence[RemoteEntry]:
        self.checks += 1
        await self.gate.wait()
        if self.problem is not None:
            raise self.problem
        return self.offers

    async def describe(self, model: str) -> RemoteEntry:
        await self.gate.wait()
        if self.problem is not None:
            raise self.problem
        return RemoteEntry(id=model, family="llama", capabilities=("completion",), context_length=64)

    def runner(self, model: str, options: LoadOptions, keep_alive: float | None) -> Any:
        self.asked.append((model, options, keep_alive))
        return self

    async def unload(self, model: str) -> None:
        self.asked.append(("unload", model))

    async def close(self) -> None:
        self.closed = True


class FakeBackend:
    name = "fake"
    schemes: tuple[str, ...] = ("http", "https")

    def connect(self, server: RemoteServer) -> FakeHost:
        return FakeHost(server)


def make(backends: dict[str, Any] | None = None, **settings: Any) -> Remotes:
    return Remotes(Settings(**settings), {"fake": FakeBackend()} if backends is None else backends)


def host_of(watched: WatchedServer) -> FakeHost:
    return cast(FakeHost, watched.host)


def stub(url: str = URL, model: str = "x", name: str = "stub") -> ModelRecord:
    return ModelRecord(
        name=ModelName.parse(name),
        digest="0",
        size=0,
        modified_at=datetime.now(UTC),
        config=ModelConfig(remote_host=url, remote_model=model),
        layers=(),
    )


def watched_server(**settings: Any) -> WatchedServer:
    return make(remotes={"lab": URL}, **settings).named["lab"]


def entries(*ids: str) -> list[RemoteEntry]:
    return [RemoteEntry(id=id) for id in ids]
