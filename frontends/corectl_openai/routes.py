"""The route table: paths and bodies. What they do is in the modules beside."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import msgspec
from litestar import Response, Router, get, post

from corectl.server.body import AnyRequest, read_json
from corectl.server.failures import error_handlers
from corectl.server.services import Services
from corectl_openai import schema
from corectl_openai.chat import chat
from corectl_openai.completions import complete
from corectl_openai.embeddings import embeddings, tokenize
from corectl_openai.errors import error_reply
from corectl_openai.memory import Conversations
from corectl_openai.models import list_models, one_model
from corectl_openai.rerank import rerank
from corectl_openai.responses import respond

T = TypeVar("T", bound=msgspec.Struct)


def routers(services: Services) -> Sequence[Router]:
    """OpenAI's API on one server's services."""

    memory = Conversations()

    @post("/chat/completions")
    async def post_chat(request: AnyRequest) -> Response[Any]:
        return await chat(request, services, await _body(request, services, schema.ChatRequest))

    @post("/completions")
    async def post_completions(request: AnyRequest) -> Response[Any]:
        return await complete(request, services, await _body(request, services, schema.CompletionRequest))

    @post("/embeddings")
    async def post_embeddings(request: AnyRequest) -> Response[Any]:
        return await embeddings(request, services, await _body(request, services, schema.EmbeddingsRequest))

    @post("/rerank")
    async def post_rerank(request: AnyRequest) -> Response[Any]:
        return await rerank(request, services, await _body(request, services, schema.RerankRequest))

    @post("/tokenize")
    async def post_tokenize(request: AnyRequest) -> Response[Any]:
        return await tokenize(request, services, await _body(request, services, schema.TokenizeRequest))

    @post("/responses")
    async def post_responses(request: AnyRequest) -> Response[Any]:
        body = await _body(request, services, schema.ResponsesRequest)
        return await respond(request, services, memory, body)

    @get("/models")
    async def get_models() -> Response[Any]:
        return await list_models(services)

    @get("/models/{name:path}")
    async def get_model(name: str) -> Response[Any]:
        return await one_model(services, name.removeprefix("/"))

    return [
        Router(
            "/v1",
            route_handlers=[
                post_chat,
                post_completions,
                post_responses,
                post_embeddings,
                post_rerank,
                post_tokenize,
                get_models,
                get_model,
            ],
            exception_handlers=error_handlers(error_reply),
        ),
    ]


async def _body(request: AnyRequest, services: Services, kind: type[T]) -> T:
    return await read_json(request, services.settings.max_body, kind)
