"""POST /api/rerank. An addition of ours."""

from __future__ import annotations

from typing import Any

import msgspec
from litestar import Response

from corectl.server.body import AnyRequest
from corectl.server.context import Clock
from corectl.server.ranking import Ranking, rank, read_documents
from corectl.server.services import Services, require_name
from corectl.server.watch import while_connected
from corectl_ollama.question import Durations, asking, durations
from corectl_ollama.replies import reply
from corectl_ollama.schema import RerankRequest


class Result(msgspec.Struct, kw_only=True, omit_defaults=True):
    """`index` is the document's place in the request. `relevance_score` is from 0 to 1."""

    index: int
    relevance_score: float
    document: str | None = None


class RerankReply(Durations, kw_only=True, omit_defaults=True):
    model: str
    results: list[Result]
    prompt_eval_count: int = 0
    dropped_tokens: int = 0


async def rerank(request: AnyRequest, services: Services, body: RerankRequest) -> Response[Any]:
    clock = Clock()
    require_name(body.model)
    documents = read_documents(body.query, body.documents)
    ranking = await while_connected(request, _ranking(services, clock, body, documents))
    results = [
        Result(
            index=item.index,
            relevance_score=item.score,
            document=documents[item.index] if body.return_documents else None,
        )
        for item in ranking.best
    ]
    return reply(
        RerankReply(
            model=body.model,
            results=results,
            prompt_eval_count=ranking.prompt_tokens,
            dropped_tokens=ranking.dropped_tokens,
            **durations(clock),
        )
    )


async def _ranking(services: Services, clock: Clock, body: RerankRequest, documents: list[str]) -> Ranking:
    async with asking(services, clock, body) as (_, runner):
        return await rank(services, runner, body.query, documents, truncate=body.truncate, count=body.top_n)
