"""The route table: paths and bodies. What they do is in the modules beside."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from litestar import Response, Router, get, post

from corectl.server.body import AnyRequest, read_json, read_request
from corectl.server.failures import error_handlers
from corectl.server.services import Services
from corectl_openai import operations, schema
from corectl_openai.chat import chat, read_chat
from corectl_openai.completions import complete, read_completion
from corectl_openai.embeddings import embeddings, read_embeddings, tokenize
from corectl_openai.errors import ErrorReply, error_reply
from corectl_openai.memory import Conversations
from corectl_openai.models import list_models, one_model
from corectl_openai.rerank import read_rerank, rerank
from corectl_openai.responses import read_response, respond


def routers(services: Services) -> Sequence[Router]:
    """OpenAI's API on one server's services."""

    memory = Conversations()
    limit = services.settings.max_body

    @post("/chat/completions", operation=operations.CHAT)
    async def post_chat(request: AnyRequest) -> Response[Any]:
        asked = await read_request(request, limit, schema.ChatRequest, read_chat)
        return await chat(request, services, asked)

    @post("/completions", operation=operations.COMPLETIONS)
    async def post_completions(request: AnyRequest) -> Response[Any]:
        asked = await read_request(request, limit, schema.CompletionRequest, read_completion)
        return await complete(request, services, asked)

    @post("/embeddings", operation=operations.EMBEDDINGS)
    async def post_embeddings(request: AnyRequest) -> Response[Any]:
        asked = await read_request(request, limit, schema.EmbeddingsRequest, read_embeddings)
        return await embeddings(request, services, asked)

    @post("/rerank", operation=operations.RERANK)
    async def post_rerank(request: AnyRequest) -> Response[Any]:
        asked = await read_request(request, limit, schema.RerankRequest, read_rerank)
        return await rerank(request, services, asked)

    @post("/tokenize", operation=operations.TOKENIZE)
    async def post_tokenize(request: AnyRequest) -> Response[Any]:
        return await tokenize(request, services, await read_json(request, limit, schema.TokenizeRequest))

    @post("/responses", operation=operations.RESPONSES)
    async def post_responses(request: AnyRequest) -> Response[Any]:
        asked = await read_request(
            request, limit, schema.ResponsesRequest, lambda body: read_response(body, memory)
        )
        return await respond(request, services, memory, asked)

    @get("/models", operation=operations.MODELS)
    async def get_models() -> Response[Any]:
        return await list_models(services)

    @get("/models/{name:path}", operation=operations.MODEL)
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
            opt={"failure": ErrorReply},
        ),
    ]
