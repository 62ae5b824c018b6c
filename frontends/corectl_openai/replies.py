"""What replies of this API have in common."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
from litestar import Response

from corectl.messages import Finish, Logprob, Notice, TokenLogprob
from corectl.server.context import Clock, ContextFit, context_fit
from corectl_openai.errors import JSON

DONE = b"data: [DONE]\n\n"
PING = b": nothing yet\n\n"
"""A comment, which clients pass over."""

FINGERPRINT = "fp_corectl"

_encoder = msgspec.json.Encoder()
encode = _encoder.encode


class CachedTokens(msgspec.Struct):
    cached_tokens: int = 0


class Usage(msgspec.Struct, kw_only=True):
    """Tokens. Those of a prompt count once, however many choices were made of it."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0
    prompt_tokens_details: CachedTokens = msgspec.field(default_factory=CachedTokens)


class TopLogprob(msgspec.Struct):
    token: str
    logprob: float
    bytes: list[int]


class TokenLogprobs(TopLogprob):
    top_logprobs: list[TopLogprob]


def new_id(kind: str) -> str:
    """An id for a reply, such as `chatcmpl-` and 24 digits."""
    return f"{kind}{secrets.token_hex(12)}"


def usage_of(prompts: Sequence[Sequence[Finish]]) -> Usage:
    """The figures of a reply, whose choices come prompt by prompt."""
    prompt = sum(ends[0].usage.prompt_tokens for ends in prompts)
    output = sum(end.usage.output_tokens for ends in prompts for end in ends)
    cached = sum(ends[0].usage.cached_tokens for ends in prompts)
    return Usage(
        prompt_tokens=prompt,
        completion_tokens=output,
        total_tokens=prompt + output,
        prompt_tokens_details=CachedTokens(cached),
    )


def said_of(ends: Iterable[Finish], clock: Clock) -> dict[str, Any]:
    """Additions of ours: what went another way than the client may think, if anything did."""
    warnings: list[Notice] = []
    fit: ContextFit | None = None
    for end in ends:
        warnings += [notice for notice in end.notices if notice not in warnings]
        if end.fit.dropped_messages or end.fit.dropped_tokens or end.fit.shifts:
            fit = fit or context_fit(end.fit, clock)
    return {**({"warnings": warnings} if warnings else {}), **({"context_fit": fit} if fit else {})}


def wire_logprobs(found: Iterable[Logprob]) -> list[TokenLogprobs]:
    return [
        TokenLogprobs(
            item.chosen.token,
            item.chosen.logprob,
            list(item.chosen.bytes_),
            [_top(top) for top in item.top],
        )
        for item in found
    ]


def _top(item: TokenLogprob) -> TopLogprob:
    return TopLogprob(item.token, item.logprob, list(item.bytes_))


def reply(value: Any, headers: Mapping[str, str] | None = None) -> Response[bytes]:
    return Response(encode(value), media_type=JSON, status_code=200, headers=headers)
