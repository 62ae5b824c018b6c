"""What replies of every protocol say of a request's way through the server: how long, and in what context."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Annotated

import msgspec

from corectl.errors import BadRequest
from corectl.messages import Fit, Started

CONTEXT_HEADER = "x-corectl-num-ctx"
"""How long a context a client wants that cannot add a field to its requests, in tokens."""


Count = Annotated[int, msgspec.Meta(ge=0, lt=10**9)]
"""What that header may be."""


class Clock(msgspec.Struct, kw_only=True):
    """When a request came in and how long its model took to be ready (nanoseconds); the context that was asked for."""

    started: int = msgspec.field(default_factory=time.monotonic_ns)
    load: int = 0
    requested_ctx: int = 0


class ContextFit(msgspec.Struct, kw_only=True):
    """Our addition: what was done to make the request fit. All in tokens, but for messages and shifts.

    `requested_ctx` is the context that request or model asked for (0: neither), `num_ctx` the one in force.
    """

    num_ctx: int
    requested_ctx: int = 0
    dropped_messages: int = 0
    dropped_tokens: int = 0
    shifts: int = 0


def asked_context(headers: Mapping[str, str]) -> int | None:
    """The context that a request's header asks for, None without that. Raises `BadRequest`."""
    text = headers.get(CONTEXT_HEADER)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise BadRequest(f"the header {CONTEXT_HEADER} must be a number of tokens")
    return int(text)


def context_fit(fit: Fit, clock: Clock) -> ContextFit:
    """What was done to make a request fit, as replies have it."""
    return ContextFit(
        num_ctx=fit.num_ctx,
        requested_ctx=clock.requested_ctx,
        dropped_messages=fit.dropped_messages,
        dropped_tokens=fit.dropped_tokens,
        shifts=fit.shifts,
    )


def context_headers(started: Started, clock: Clock) -> dict[str, str]:
    """The header that says before the first token what became of the prompt; the values are those of `ContextFit`.

    There is none where a remote server does not say.
    """
    fit = started.fit
    if not fit.num_ctx:
        return {}
    values = {
        "requested_ctx": clock.requested_ctx,
        "num_ctx": fit.num_ctx,
        "prompt_tokens": started.prompt_tokens,
        "dropped_messages": fit.dropped_messages,
        "dropped_tokens": fit.dropped_tokens,
    }
    return {"x-corectl-context": ", ".join(f"{name}={value}" for name, value in values.items())}
