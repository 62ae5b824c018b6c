"""What the protocols of remote servers have in common: how each of them is spoken, and how a reply is read."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

import msgspec

from corectl.errors import NotSupported
from corectl.messages import (
    Completion,
    Detokenize,
    Embedding,
    Event,
    GivenOptions,
    LoadOptions,
    Notice,
    Rendered,
    Rerank,
    SamplingOptions,
    Scores,
    Text,
    Tokenize,
    Tokens,
    Vectors,
)
from corectl.remote.backend import RemoteEntry, RemoteServer
from corectl_remote.connection import Head, Take
from corectl_remote.failure import decode, refusal
from corectl_remote.http import Answer, HttpClient, whole_body
from corectl_remote.lines import Lines

T = TypeVar("T")
Emit = Callable[[Event], None]

LONG = 2**18
"""Bytes that take longer to read than a worker thread takes to be woken."""

_DEFAULTS = SamplingOptions()


class Reader(Protocol):
    """Reads one streamed reply, and emits what it comes to. Raises `corectl.errors`."""

    def begins(self, head: Head) -> None:
        """The reply has a head, and its status is 200."""
        ...

    def line(self, line: bytes) -> None: ...

    def ended(self) -> None:
        """All has been read. Raises `RemoteError` if the answer has no end."""
        ...


class Asked(msgspec.Struct, frozen=True):
    """A completion in the words of a protocol, and what reads the reply to it."""

    path: str
    body: dict[str, Any]
    reader: Callable[[Emit], Reader]


class Target(msgspec.Struct, frozen=True):
    """What a request is for: the model, the options that were given for its load, and how long it should stay."""

    model: str
    options: LoadOptions = LoadOptions()
    keep_alive: float | None = None


class Wire(Protocol):
    """A protocol, spoken to one server. Raises `corectl.errors`: `NotSupported` for what it has no words for."""

    @property
    def name(self) -> str:
        """What it is called, for people."""
        ...

    async def models(self) -> Sequence[RemoteEntry]: ...

    async def describe(self, model: str) -> RemoteEntry: ...

    def complete(self, target: Target, request: Completion) -> Asked: ...

    async def render(self, target: Target, request: Completion) -> Rendered: ...

    async def embed(self, target: Target, request: Embedding) -> Vectors: ...

    async def rerank(self, target: Target, request: Rerank) -> Scores: ...

    async def tokenize(self, target: Target, request: Tokenize) -> Tokens: ...

    async def detokenize(self, target: Target, request: Detokenize) -> Text: ...

    async def load(self, target: Target) -> None: ...

    async def unload(self, model: str) -> None: ...


class Api(msgspec.Struct, frozen=True):
    """JSON over HTTP, to one server."""

    server: RemoteServer
    http: HttpClient

    async def get(self, path: str, decoder: msgspec.json.Decoder[T], *, seconds: float) -> T:
        answer = await self.http.ask("GET", path, seconds=seconds)
        return await self._decoded(answer, decoder)

    async def post(
        self, path: str, body: object, decoder: msgspec.json.Decoder[T], *, seconds: float | None = None
    ) -> T:
        answer = await self.http.ask("POST", path, msgspec.json.encode(body), seconds=seconds)
        return await self._decoded(answer, decoder)

    async def _decoded(self, answer: Answer, decoder: msgspec.json.Decoder[T]) -> T:
        if answer.head.status != 200:
            raise refusal(self.server, answer.head.status, answer.body)
        if len(answer.body) > LONG:
            return await asyncio.to_thread(decode, self.server, decoder, answer.body)
        return decode(self.server, decoder, answer.body)

    async def stream(self, asked: Asked, emit: Emit) -> None:
        """Asks, and emits the events of the reply as they come; returns after the last."""
        reader = asked.reader(emit)
        lines = Lines(self.server.label, reader.line)
        refused: list[bytes] = []
        status = 0

        def on_head(head: Head) -> Take:
            nonlocal status
            status = head.status
            if status != 200:
                return whole_body(refused, self.server.label)
            reader.begins(head)
            return lines.feed

        await self.http.send("POST", asked.path, msgspec.json.encode(asked.body), on_head)
        if status != 200:
            raise refusal(self.server, status, b"".join(refused))
        lines.end()
        reader.ended()

    def cannot(self, what: str) -> NotSupported:
        """The error for something that the server has no words for."""
        return NotSupported(f"remote server {self.server.label} {what}")

    def ignored(self, option: str) -> Notice:
        """The notice for an option that does not reach the model."""
        message = f"{option} has no effect: remote server {self.server.label} does not take it"
        return Notice(code="option_ignored", message=message)


def given_sampling(sampling: SamplingOptions) -> dict[str, Any]:
    """The options that somebody has set; the others are for the server to choose."""
    if isinstance(sampling, GivenOptions):
        names: Sequence[str] = sampling.given
    else:
        fields = SamplingOptions.__struct_fields__
        names = [name for name in fields if getattr(sampling, name) != getattr(_DEFAULTS, name)]
    return {name: getattr(sampling, name) for name in names}


def given_load(options: LoadOptions) -> dict[str, Any]:
    """The load options that were given. The backend `remote` is us."""
    given = {name: getattr(options, name) for name in options.__struct_fields__}
    return {
        name: value
        for name, value in given.items()
        if value is not None and (name, value) != ("backend", "remote")
    }


def count(value: float | None) -> int:
    """A number of tokens or nanoseconds that somebody else has counted, as one that can be counted with."""
    return int(min(max(value or 0, 0), 2**62))
