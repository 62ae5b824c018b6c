"""The route table: paths and bodies. What they do is in the modules beside."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from litestar import Response, Router, post

from corectl.server.body import AnyRequest, read_json
from corectl.server.failures import error_handlers
from corectl.server.services import Services
from corectl_anthropic.errors import error_reply
from corectl_anthropic.messages import count_tokens, create_message
from corectl_anthropic.schema import CountRequest, MessagesRequest


def routers(services: Services) -> Sequence[Router]:
    """The Messages API on one server's services."""
    limit = services.settings.max_body

    @post("/v1/messages")
    async def post_messages(request: AnyRequest) -> Response[Any]:
        return await create_message(request, services, await read_json(request, limit, MessagesRequest))

    @post("/v1/messages/count_tokens")
    async def post_count_tokens(request: AnyRequest) -> Response[Any]:
        return await count_tokens(request, services, await read_json(request, limit, CountRequest))

    handlers = [post_messages, post_count_tokens]
    return [Router("/", route_handlers=handlers, exception_handlers=error_handlers(error_reply))]
