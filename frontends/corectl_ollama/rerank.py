"""POST /api/rerank, and /v1/rerank in the shape that rerank services share. Additions of ours."""

from __future__ import annotations

from typing import Any

import msgspec
from litestar import Response

from corectl.errors import BadRequest
from corectl.messages import Rerank, Scores
from corectl.server.body import AnyRequest
from corectl.server.context import Clock
from corectl.server.services import Services, require_name
from corectl.server.watch import while_connected
from corectl_ollama.question import Durations, asking, durations
from corectl_ollama.replies import reply
from corectl_ollama.schema import Document, RerankRequest


class Result(msgspec.Struct, kw_only=True, omit_defaults=True):
    """`index` is the document's place in the request. `relevance_score` is from 0 to 1."""

    index: int
    relevance_score: float
    document: str | Document | None = None


class RerankReply(Durations, kw_only=True, omit_defaults=True):
    model: str
    results: list[Result]
    prompt_eval_count: int = 0
    dropped_tokens: int = 0


async def rerank(request: AnyRequest, services: Services, body: RerankRequest) -> Response[Any]:
    clock = Clock()
    documents = _documents(body)
    scores = await while_connected(request, _scores(services, clock, body, documents))
    return reply(
        RerankReply(
            model=body.model,
            results=_results(scores, body, documents),
            prompt_eval_count=scores.prompt_tokens,
            dropped_tokens=scores.dropped_tokens,
            **durations(clock),
        )
    )


async def v1_rerank(request: AnyRequest, services: Services, body: RerankRequest) -> Response[Any]:
    documents = _documents(body)
    scores = await while_connected(request, _scores(services, Clock(), body, documents))
    tokens = scores.prompt_tokens
    dropped = {"dropped_tokens": scores.dropped_tokens} if scores.dropped_tokens else {}
    return reply(
        {
            "object": "list",
            "model": body.model,
            "results": _results(scores, body, [Document(text=text) for text in documents]),
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens, **dropped},
        }
    )


def _documents(body: RerankRequest) -> list[str]:
    """The texts. Raises `BadRequest` for a request that lacks something."""
    require_name(body.model)
    if not body.query:
        raise BadRequest("query is required")
    if not body.documents:
        raise BadRequest("documents must have at least one text")
    return [item if isinstance(item, str) else item.text for item in body.documents]


async def _scores(services: Services, clock: Clock, body: RerankRequest, documents: list[str]) -> Scores:
    async with asking(services, clock, body) as (_, runner):
        return await runner.rerank(
            Rerank(
                query=body.query,
                documents=tuple(documents),
                truncate=body.truncate and not services.settings.strict_context,
            )
        )


def _results(scores: Scores, body: RerankRequest, documents: list[Any]) -> list[Result]:
    """Most relevant first; equals in the order of the request."""
    order = sorted(range(len(documents)), key=lambda index: -scores.scores[index])
    return [
        Result(
            index=index,
            relevance_score=scores.scores[index],
            document=documents[index] if body.return_documents else None,
        )
        for index in order[: body.top_n]
    ]
