"""What a route takes and gives, said where it is defined; `corectl.server.openapi` makes documents of it."""

from __future__ import annotations

from typing import Any

import msgspec

NDJSON = "application/x-ndjson"
SSE = "text/event-stream"

READING = (400, 408, 413)
"""How what reads a body fails. Operations that have one need not say so."""

FINDING = (403, 404)
"""How what looks up a model by its name fails."""

RUNNING = (*FINDING, 501, 502, 503)
"""How what needs a model in memory, or on another server, fails."""


class Stream(msgspec.Struct, frozen=True):
    """A reply in pieces: lines (`NDJSON`) or events (`SSE`). `item` is a type that the JSON of each has, or several."""

    media_type: str
    item: Any


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """One route, given to Litestar's decorators as `operation`: `@post("/x", operation=Operation(...))`.

    `body` and `reply` are types that msgspec can describe, or tuples of them for one of several. They are JSON, but for
    `str` and `bytes`, which are texts and bytes as they are; None is for nothing at all. Replies that are no errors
    have one of the `statuses`; with a `stream` they may come that way, too. `fails` are the statuses of errors, besides
    500 and `READING`. Errors have the router's type, `opt={"failure": ...}`, else that of `corectl.server.failures`.
    `headers` are those of the request that mean something, by their names, with their types.
    """

    summary: str
    body: Any = None
    reply: Any = None
    statuses: tuple[int, ...] = (200,)
    stream: Stream | None = None
    fails: tuple[int, ...] = ()
    headers: dict[str, Any] = {}

    def __deepcopy__(self, memo: dict[int, Any]) -> Operation:
        """Litestar copies whatever a router has. Not all types can be copied, and nothing here changes."""
        return self

    @property
    def failing(self) -> list[int]:
        """All statuses that errors are known to have."""
        return sorted({*self.fails, *(READING if self.body is not None else ()), 500} - {*self.statuses})
