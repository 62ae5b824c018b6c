"""The route table: paths and bodies. What they do is in the modules beside."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import msgspec
from litestar import Response, Router, post

from corectl.server.body import AnyRequest, read_json
from corectl.server.failures import error_handlers
from corectl.server.services import Services
from corectl_openai import schema
from corectl_openai.chat import chat
from corectl_openai.errors import error_reply

T = TypeVar("T", bound=msgspec.Struct)


def routers(services: Services) -> Sequence[Router]:
    """OpenAI's API on one server's services."""

    @post("/chat/completions")
    async def post_chat(request: AnyRequest) -> Response[Any]:
        return await chat(request, services, await _body(request, services, schema.ChatRequest))

    return [
        Router("/v1", route_handlers=[post_chat], exception_handlers=error_handlers(error_reply)),
    ]


async def _body(request: AnyRequest, services: Services, kind: type[T]) -> T:
    return await read_json(request, services.settings.max_body, kind)
