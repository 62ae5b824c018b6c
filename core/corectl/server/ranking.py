"""Documents in the order of their relevance to a query: what reranking is in every protocol."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from corectl.errors import BadRequest
from corectl.messages import Rerank
from corectl.runner.model_runner import ModelRunner
from corectl.server.services import Services


class Document(msgspec.Struct, kw_only=True):
    """A document as an object: other members are left alone."""

    text: str


class Ranked(msgspec.Struct, frozen=True):
    """A document by its place in the request, and its relevance from 0 to 1."""

    index: int
    score: float


class Ranking(msgspec.Struct, frozen=True, kw_only=True):
    """The most relevant first; equals in the order of the request. Tokens are those of all pairs."""

    best: list[Ranked]
    prompt_tokens: int
    dropped_tokens: int


def read_documents(query: str, documents: Sequence[str | Document]) -> list[str]:
    """The texts. Raises `BadRequest` for a request that lacks something."""
    if not query:
        raise BadRequest("query is required")
    if not documents:
        raise BadRequest("documents must have at least one text")
    return [item if isinstance(item, str) else item.text for item in documents]


async def rank(
    services: Services,
    runner: ModelRunner,
    query: str,
    documents: Sequence[str],
    *,
    truncate: bool,
    count: int | None,
) -> Ranking:
    """The `count` most relevant documents, or all. A strict server cuts no pair, whatever the request says."""
    strict = services.settings.strict_context
    scores = await runner.rerank(
        Rerank(query=query, documents=tuple(documents), truncate=truncate and not strict)
    )
    order = sorted(range(len(documents)), key=lambda index: -scores.scores[index])
    return Ranking(
        best=[Ranked(index, scores.scores[index]) for index in order[:count]],
        prompt_tokens=scores.prompt_tokens,
        dropped_tokens=scores.dropped_tokens,
    )
