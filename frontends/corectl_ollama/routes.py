"""The route table: paths and bodies. What they do is in the modules beside."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import msgspec
from litestar import Response, Router, delete, get, head, post

from corectl import OLLAMA_LEVEL, __version__
from corectl.server.body import AnyRequest, read_json
from corectl.server.services import Services
from corectl_ollama import schema
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
from corectl_ollama.replies import reply
from corectl_ollama.rerank import rerank, v1_rerank
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
    @get("/")
    async def root() -> Response[str]:
        return Response("Ollama is running", media_type="text/plain")

    @get("/api/version")
    async def version() -> Response[bytes]:
        return reply({"version": OLLAMA_LEVEL, "corectl": __version__})

    @get("/api/tags")
    async def get_tags() -> Response[bytes]:
        return await tags(services)

    @get("/api/ps")
    async def get_ps() -> Response[bytes]:
        return await ps(services)

    @head(["/", "/api/version", "/api/tags"])
    async def alive() -> None:
        return None

    @get("/api/status")
    async def get_status() -> Response[bytes]:
        return status()

    @post("/api/me")
    async def post_me() -> Response[bytes]:
        return await me()

    @post("/api/signout")
    async def post_signout() -> None:
        signout()

    return [root, version, get_tags, get_ps, alive, get_status, post_me, post_signout]


def _model_routes(services: Services) -> list[Any]:
    @post("/api/show")
    async def post_show(request: AnyRequest) -> Response[bytes]:
        return await show(services, await _body(request, services, schema.ShowRequest))

    @post("/api/plan")
    async def post_plan(request: AnyRequest) -> Response[bytes]:
        return await plan(services, await _body(request, services, schema.PlanRequest))

    @post("/api/copy")
    async def post_copy(request: AnyRequest) -> Response[bytes]:
        return await copy(services, await _body(request, services, schema.CopyRequest))

    @delete("/api/delete", status_code=200)
    async def delete_delete(request: AnyRequest) -> Response[bytes]:
        return await delete_model(services, await _body(request, services, schema.DeleteRequest))

    @post("/api/create")
    async def post_create(request: AnyRequest) -> Response[Any]:
        return await create_model(request, services, await _body(request, services, schema.CreateRequest))

    @post("/api/verify")
    async def post_verify(request: AnyRequest) -> Response[Any]:
        return await verify_store(request, services, await _body(request, services, schema.VerifyRequest))

    @post("/api/pull")
    async def post_pull(request: AnyRequest) -> Response[Any]:
        return await pull(request, services, await _body(request, services, schema.TransferRequest))

    @post("/api/push")
    async def post_push(request: AnyRequest) -> Response[Any]:
        return await push(request, services, await _body(request, services, schema.TransferRequest))

    @head("/api/blobs/{digest:str}")
    async def head_blobs(digest: str) -> Response[None]:
        return await head_blob(services, digest)

    @post("/api/blobs/{digest:str}")
    async def post_blobs(request: AnyRequest, digest: str) -> Response[bytes]:
        return await post_blob(request, services, digest)

    changing = [post_copy, delete_delete, post_create, post_pull, post_push]
    return [post_show, post_plan, *changing, post_verify, head_blobs, post_blobs]


def _inference_routes(services: Services) -> list[Any]:
    @post("/api/generate")
    async def post_generate(request: AnyRequest) -> Response[Any]:
        return await generate(request, services, await _body(request, services, schema.GenerateRequest))

    @post("/api/chat")
    async def post_chat(request: AnyRequest) -> Response[Any]:
        return await chat(request, services, await _body(request, services, schema.ChatRequest))

    @post("/api/render")
    async def post_render(request: AnyRequest) -> Response[Any]:
        return await render(request, services)

    return [post_generate, post_chat, post_render]


def _question_routes(services: Services) -> list[Any]:
    @post("/api/embed")
    async def post_embed(request: AnyRequest) -> Response[Any]:
        return await embed(request, services, await _body(request, services, schema.EmbedRequest))

    @post("/api/embeddings")
    async def post_embeddings(request: AnyRequest) -> Response[Any]:
        return await embeddings(request, services, await _body(request, services, schema.EmbeddingsRequest))

    @post("/api/rerank")
    async def post_rerank(request: AnyRequest) -> Response[Any]:
        return await rerank(request, services, await _body(request, services, schema.RerankRequest))

    @post("/v1/rerank")
    async def post_v1_rerank(request: AnyRequest) -> Response[Any]:
        return await v1_rerank(request, services, await _body(request, services, schema.RerankRequest))

    @post("/api/tokenize")
    async def post_tokenize(request: AnyRequest) -> Response[Any]:
        return await tokenize(request, services, await _body(request, services, schema.TokenizeRequest))

    @post("/api/detokenize")
    async def post_detokenize(request: AnyRequest) -> Response[Any]:
        return await detokenize(request, services, await _body(request, services, schema.DetokenizeRequest))

    return [post_embed, post_embeddings, post_rerank, post_v1_rerank, post_tokenize, post_detokenize]


async def _body(request: AnyRequest, services: Services, kind: type[T]) -> T:
    return await read_json(request, services.settings.max_body, kind)
