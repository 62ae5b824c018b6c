"""POST /v1/rerank: OpenAI has no such route; this is the one that Jina, Cohere and vLLM share."""

from __future__ import annotations

from typing import Any

import msgspec
from litestar import Response

from corectl.server.asking import asking
from corectl.server.body import AnyRequest
from corectl.server.context import Clock
from corectl.server.ranking import Document, Ranking, rank, read_documents
from corectl.server.services import Services, require_name
from corectl.server.watch import while_connected
from corectl_openai.asked import load_options, read_keep_alive
from corectl_openai.objects import InputUsage
from corectl_openai.replies import new_id, reply
from corectl_openai.schema import RerankRequest


class Result(msgspec.Struct, kw_only=True, omit_defaults=True):
    """`index` is the document's place in the request. `relevance_score` is from 0 to 1."""

    index: int
    relevance_score: float
    document: Document | None = None


class RerankReply(msgspec.Struct, kw_only=True):
    """`results` has the most relevant document first."""

    id: str
    object: str = "list"
    model: str
    results: list[Result]
    usage: InputUsage


class AskedRerank(msgspec.Struct, frozen=True, kw_only=True):
    """A request as far as it is read without its model."""

    body: RerankRequest
    documents: list[str]


def read_rerank(body: RerankRequest) -> AskedRerank:
    """Checks what needs no model. Raises `BadRequest`."""
    require_name(body.model)
    return AskedRerank(body=body, documents=read_documents(body.query, body.documents))


async def rerank(request: AnyRequest, services: Services, asked: AskedRerank) -> Response[Any]:
    body, documents = asked.body, asked.documents
    ranking = await while_connected(request, _ranking(request, services, body, documents))
    tokens, dropped = ranking.prompt_tokens, ranking.dropped_tokens
    results = [
        Result(
            index=item.index,
            relevance_score=item.score,
            document=Document(text=documents[item.index]) if body.return_documents else None,
        )
        for item in ranking.best
    ]
    usage = InputUsage(prompt_tokens=tokens, total_tokens=tokens, dropped_tokens=dropped)
    return reply(RerankReply(id=new_id("rerank-"), model=body.model, results=results, usage=usage))


async def _ranking(
    request: AnyRequest, services: Services, body: RerankRequest, documents: list[str]
) -> Ranking:
    options, keep_alive = load_options(request, body), read_keep_alive(body)
    async with asking(services, Clock(), body.model, options=options, keep_alive=keep_alive) as (_, runner):
        return await rank(services, runner, body.query, documents, truncate=body.truncate, count=body.top_n)
