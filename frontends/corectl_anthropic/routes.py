"""The route table: paths and bodies. What they do is in the modules beside."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from litestar import Response, Router, post

from corectl.server.body import AnyRequest, read_request
from corectl.server.context import CONTEXT_HEADER, Count
from corectl.server.failures import error_handlers
from corectl.server.operation import RUNNING, SSE, Operation, Stream
from corectl.server.services import Services
from corectl_anthropic.asked import told
from corectl_anthropic.errors import ErrorReply, error_reply
from corectl_anthropic.messages import count_tokens, create_message
from corectl_anthropic.replies import CountReply, Reply
from corectl_anthropic.schema import CountRequest, MessagesRequest
from corectl_anthropic.stream import ServerEvent

HEADERS = {CONTEXT_HEADER: Count}

MESSAGES = Operation(
    summary="Answers a conversation",
    body=MessagesRequest,
    reply=Reply,
    stream=Stream(SSE, (ServerEvent, ErrorReply)),
    fails=RUNNING,
    headers=HEADERS,
)
COUNT_TOKENS = Operation(
    summary="How many tokens a model would read",
    body=CountRequest,
    reply=CountReply,
    fails=RUNNING,
    headers=HEADERS,
)


def routers(services: Services) -> Sequence[Router]:
    """The Messages API on one server's services."""
    limit = services.settings.max_body

    @post("/v1/messages", operation=MESSAGES)
    async def post_messages(request: AnyRequest) -> Response[Any]:
        body, what = await read_request(request, limit, MessagesRequest, told)
        return await create_message(request, services, body, what)

    @post("/v1/messages/count_tokens", operation=COUNT_TOKENS)
    async def post_count_tokens(request: AnyRequest) -> Response[Any]:
        body, what = await read_request(request, limit, CountRequest, told)
        return await count_tokens(request, services, body, what)

    handlers = [post_messages, post_count_tokens]
    return [
        Router(
            "/",
            route_handlers=handlers,
            exception_handlers=error_handlers(error_reply),
            opt={"failure": ErrorReply},
        )
    ]
