"""The route table: paths and bodies. What they do is in the modules beside."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import msgspec
from litestar import Response, Router, delete, get, head, post

from corectl import OLLAMA_LEVEL, __version__
from corectl.server.body import AnyRequest, read_json
from corectl.server.services import Services
from corectl_ollama import operations, schema
from corectl_ollama.account import me, signout, status
from corectl_ollama.blobs import head_blob, post_blob
from corectl_ollama.chat import chat
from corectl_ollama.create import create_model
from corectl_ollama.embed import embed, embeddings
from corectl_ollama.generate import generate
from corectl_ollama.models import copy, ps, show, tags
from corectl_ollama.models import delete as delete_model
from corectl_ollama.plan import plan
from corectl_ollama.pull import pull
from corectl_ollama.push import push
from corectl_ollama.render import render
from corectl_ollama.replies import VersionReply, reply
from corectl_ollama.rerank import rerank
from corectl_ollama.tokens import detokenize, tokenize
from corectl_ollama.verify import verify_store

T = TypeVar("T", bound=msgspec.Struct)


def routers(services: Services) -> Sequence[Router]:
    """The native API on one server's services."""
    return [
        Router(
            "/",
            route_handlers=[
                *_status_routes(services),
                *_model_routes(services),
                *_inference_routes(services),
                *_question_routes(services),
            ],
        )
    ]


def _status_routes(services: Services) -> list[Any]:
    @get("/", operation=operations.ROOT)
    async def root() -> Response[str]:
        return Response("Ollama is running", media_type="text/plain")

    @get("/api/version", operation=operations.VERSION)
    async def version() -> Response[bytes]:
        return reply(VersionReply(OLLAMA_LEVEL, __version__))

    @get("/api/tags", operation=operations.TAGS)
    async def get_tags() -> Response[bytes]:
        return await tags(services)

    @get("/api/ps", operation=operations.PS)
    async def get_ps() -> Response[bytes]:
        return await ps(services)

    @head(["/", "/api/version", "/api/tags"], operation=operations.ALIVE)
    async def alive() -> None:
        return None

    @get("/api/status", operation=operations.STATUS)
    async def get_status() -> Response[bytes]:
        return status()

    @post("/api/me", operation=operations.ME)
    async def post_me() -> Response[bytes]:
        return await me()

    @post("/api/signout", operation=operations.SIGNOUT)
    async def post_signout() -> None:
        signout()

    return [root, version, get_tags, get_ps, alive, get_status, post_me, post_signout]


def _model_routes(services: Services) -> list[Any]:
    @post("/api/show", operation=operations.SHOW)
    async def post_show(request: AnyRequest) -> Response[bytes]:
        return await show(services, await _body(request, services, schema.ShowRequest))

    @post("/api/plan", operation=operations.PLAN)
    async def post_plan(request: AnyRequest) -> Response[bytes]:
        return await plan(services, await _body(request, services, schema.PlanRequest))

    @post("/api/copy", operation=operations.COPY)
    async def post_copy(request: AnyRequest) -> Response[bytes]:
        return await copy(services, await _body(request, services, schema.CopyRequest))

    @delete("/api/delete", operation=operations.DELETE, status_code=200)
    async def delete_delete(request: AnyRequest) -> Response[bytes]:
        return await delete_model(services, await _body(request, services, schema.DeleteRequest))

    @post("/api/create", operation=operations.CREATE)
    async def post_create(request: AnyRequest) -> Response[Any]:
        return await create_model(request, services, await _body(request, services, schema.CreateRequest))

    @post("/api/verify", operation=operations.VERIFY)
    async def post_verify(request: AnyRequest) -> Response[Any]:
        return await verify_store(request, services, await _body(request, services, schema.VerifyRequest))

    @post("/api/pull", operation=operations.PULL)
    async def post_pull(request: AnyRequest) -> Response[Any]:
        return await pull(request, services, await _body(request, services, schema.TransferRequest))

    @post("/api/push", operation=operations.PUSH)
    async def post_push(request: AnyRequest) -> Response[Any]:
        return await push(request, services, await _body(request, services, schema.TransferRequest))

    @head("/api/blobs/{digest:str}", operation=operations.HEAD_BLOB)
    async def head_blobs(digest: str) -> Response[None]:
        return await head_blob(services, digest)

    @post("/api/blobs/{digest:str}", operation=operations.POST_BLOB)
    async def post_blobs(request: AnyRequest, digest: str) -> Response[bytes]:
        return await post_blob(request, services, digest)

    changing = [post_copy, delete_delete, post_create, post_pull, post_push]
    return [post_show, post_plan, *changing, post_verify, head_blobs, post_blobs]


def _inference_routes(services: Services) -> list[Any]:
    @post("/api/generate", operation=operations.GENERATE)
    async def post_generate(request: AnyRequest) -> Response[Any]:
        return await generate(request, services, await _body(request, services, schema.GenerateRequest))

    @post("/api/chat", operation=operations.CHAT)
    async def post_chat(request: AnyRequest) -> Response[Any]:
        return await chat(request, services, await _body(request, services, schema.ChatRequest))

    @post("/api/render", operation=operations.RENDER)
    async def post_render(request: AnyRequest) -> Response[Any]:
        return await render(request, services)

    return [post_generate, post_chat, post_render]


def _question_routes(services: Services) -> list[Any]:
    @post("/api/embed", operation=operations.EMBED)
    async def post_embed(request: AnyRequest) -> Response[Any]:
        return await embed(request, services, await _body(request, services, schema.EmbedRequest))

    @post("/api/embeddings", operation=operations.EMBEDDINGS)
    async def post_embeddings(request: AnyRequest) -> Response[Any]:
        return await embeddings(request, services, await _body(request, services, schema.EmbeddingsRequest))

    @post("/api/rerank", operation=operations.RERANK)
    async def post_rerank(request: AnyRequest) -> Response[Any]:
        return await rerank(request, services, await _body(request, services, schema.RerankRequest))

    @post("/api/tokenize", operation=operations.TOKENIZE)
    async def post_tokenize(request: AnyRequest) -> Response[Any]:
        return await tokenize(request, services, await _body(request, services, schema.TokenizeRequest))

    @post("/api/detokenize", operation=operations.DETOKENIZE)
    async def post_detokenize(request: AnyRequest) -> Response[Any]:
        return await detokenize(request, services, await _body(request, services, schema.DetokenizeRequest))

    return [post_embed, post_embeddings, post_rerank, post_tokenize, post_detokenize]


async def _body(request: AnyRequest, services: Services, kind: type[T]) -> T:
    return await read_json(request, services.settings.max_body, kind)
