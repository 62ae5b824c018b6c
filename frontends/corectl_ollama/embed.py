"""POST /api/embed and the older /api/embeddings."""

from __future__ import annotations

from typing import Any

import msgspec
from litestar import Response

from corectl.errors import BadRequest, NotFound
from corectl.messages import Embedding, Vectors
from corectl.output.vectors import json_rows
from corectl.server.apart import apart
from corectl.server.body import AnyRequest
from corectl.server.context import Clock
from corectl.server.services import Services, require_name
from corectl.server.watch import while_connected
from corectl_ollama.question import Durations, asking, durations
from corectl_ollama.replies import reply
from corectl_ollama.schema import EmbeddingsRequest, EmbedRequest, QuestionRequest

NO_VECTORS = Vectors(data=b"", size=0, prompt_tokens=0)


class EmbedReply(Durations, kw_only=True, omit_defaults=True):
    model: str
    embeddings: list[list[float]]
    prompt_eval_count: int = 0
    dropped_tokens: int = 0


class EmbeddingsReply(msgspec.Struct):
    embedding: list[float]


def _inputs(value: Any) -> tuple[str, ...]:
    """The texts of `input`: a string, a list of them, or nothing."""
    if value is None or value == "":
        return ()
    if isinstance(value, str):
        return (value,)
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return tuple(value)
    raise BadRequest("invalid input type")


async def embed(request: AnyRequest, services: Services, body: EmbedRequest) -> Response[Any]:
    clock = Clock()
    inputs = _inputs(body.input)
    if not body.model:
        raise NotFound("model '' not found")
    vectors = await while_connected(
        request,
        _vectors(services, clock, body, inputs, truncate=body.truncate, dimensions=body.dimensions),
    )
    if not inputs:
        return reply(EmbedReply(model=body.model, embeddings=[]))
    return await apart(len(vectors.data), lambda: reply(_embed_reply(body.model, vectors, clock)))


def _embed_reply(model: str, vectors: Vectors, clock: Clock) -> EmbedReply:
    written: list[Any] = json_rows(vectors)
    return EmbedReply(
        model=model,
        embeddings=written,
        prompt_eval_count=vectors.prompt_tokens,
        dropped_tokens=vectors.dropped_tokens,
        **durations(clock),
    )


async def embeddings(request: AnyRequest, services: Services, body: EmbeddingsRequest) -> Response[Any]:
    require_name(body.model)
    inputs = (body.prompt,) if body.prompt else ()
    vectors = await while_connected(request, _vectors(services, Clock(), body, inputs, truncate=False))
    written: list[Any] = json_rows(vectors)
    return reply(EmbeddingsReply(written[0] if inputs else []))


async def _vectors(
    services: Services,
    clock: Clock,
    body: QuestionRequest,
    inputs: tuple[str, ...],
    *,
    truncate: bool,
    dimensions: int = 0,
) -> Vectors:
    """Loads the model, and embeds if there is anything to."""
    async with asking(services, clock, body) as (record, runner):
        if not inputs:
            await runner.ready()
            return NO_VECTORS
        return await runner.embed(
            Embedding(
                inputs=inputs,
                template=services.embedding_template(record),
                truncate=truncate and not services.settings.strict_context,
                dimensions=dimensions,
            )
        )
