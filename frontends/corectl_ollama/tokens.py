"""POST /api/tokenize and /api/detokenize: additions of ours."""

from __future__ import annotations

from typing import Any

from litestar import Response

from corectl.errors import BadRequest
from corectl.messages import Detokenize, Text, Tokenize, Tokens
from corectl.server.body import AnyRequest
from corectl.server.context import Clock
from corectl.server.services import Services, require_name
from corectl.server.watch import while_connected
from corectl_ollama.question import Durations, asking, durations
from corectl_ollama.replies import reply
from corectl_ollama.schema import DetokenizeRequest, TokenizeRequest


class TokenizeReply(Durations, kw_only=True):
    model: str
    tokens: tuple[int, ...]
    count: int


class DetokenizeReply(Durations, kw_only=True):
    model: str
    text: str


async def tokenize(request: AnyRequest, services: Services, body: TokenizeRequest) -> Response[Any]:
    clock = Clock()
    require_name(body.model)
    if body.text is None:
        raise BadRequest("text is required")
    work = Tokenize(text=body.text, add_special=body.add_special)

    async def ask() -> Tokens:
        async with asking(services, clock, body) as (_, runner):
            return await runner.tokenize(work)

    tokens = (await while_connected(request, ask())).tokens
    return reply(TokenizeReply(model=body.model, tokens=tokens, count=len(tokens), **durations(clock)))


async def detokenize(request: AnyRequest, services: Services, body: DetokenizeRequest) -> Response[Any]:
    clock = Clock()
    require_name(body.model)
    if body.tokens is None:
        raise BadRequest("tokens is required")
    work = Detokenize(tokens=tuple(body.tokens))

    async def ask() -> Text:
        async with asking(services, clock, body) as (_, runner):
            return await runner.detokenize(work)

    found = await while_connected(request, ask())
    return reply(DetokenizeReply(model=body.model, text=found.text, **durations(clock)))
