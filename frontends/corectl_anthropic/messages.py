"""POST /v1/messages and /v1/messages/count_tokens."""

from __future__ import annotations

from typing import Any

from litestar import Response

from corectl.server.body import AnyRequest
from corectl.server.context import Clock, asked_context, context_headers
from corectl.server.fetching import read_with_images
from corectl.server.inference import not_found, open_completion, render
from corectl.server.operation import SSE
from corectl.server.services import Services
from corectl.server.streaming import OpenCompletion, StreamedReply
from corectl.server.watch import while_connected
from corectl.server.whole import collected
from corectl_anthropic.asked import Asked, read
from corectl_anthropic.conversation import Told
from corectl_anthropic.errors import request_id
from corectl_anthropic.replies import (
    CountReply,
    Reply,
    ToolUseBlock,
    Usage,
    blocks_of,
    end_of,
    message_id,
    reply,
    said_of,
    usage_of,
)
from corectl_anthropic.schema import CountRequest, MessagesRequest
from corectl_anthropic.stream import PING, MessageStream


async def create_message(
    request: AnyRequest, services: Services, body: MessagesRequest, told: Told
) -> Response[Any]:
    """Answers a conversation: streamed, or as one message. An early error gets its own status."""
    clock = Clock()
    asked = await _asked(request, services, body, told)
    opened = await open_completion(request, services, asked.settled, asked.work, clock)
    headers = {"request-id": request_id(), **context_headers(opened.started, clock)}
    if body.stream:
        stream = _stream(opened, asked, body, clock)
        return StreamedReply(
            opened,
            media_type=SSE,
            headers=headers,
            encode=stream.lines,
            encode_error=stream.failed,
            ping=PING,
        )
    try:
        message = await while_connected(request, _whole(opened, asked, body, clock))
    finally:
        await opened.close()
    return reply(message, headers)


async def count_tokens(
    request: AnyRequest, services: Services, body: CountRequest, told: Told
) -> Response[Any]:
    """How many tokens the model would read. Nothing is cut: what is longer than the context is refused."""
    asked = await _asked(request, services, body, told, count=True)
    prompt = await while_connected(request, render(services, asked.settled, asked.work, Clock()))
    return reply(CountReply(prompt.prompt_tokens), {"request-id": request_id()})


async def _asked(
    request: AnyRequest, services: Services, body: CountRequest, told: Told, *, count: bool = False
) -> Asked:
    """What is asked of the model; the request's context is from the header where it has none."""
    body.num_ctx = asked_context(request.headers) if body.num_ctx is None else body.num_ctx
    return await read_with_images(
        request,
        services,
        body.model,
        told.messages,
        told.urls,
        lambda record, messages: read(services, record, body, messages, count=count),
        missing=_missing,
    )


def _missing(name: str) -> str:
    """Clients come with names of Anthropic's models."""
    return (
        f"{not_found(name)}; `corectl list` shows those that are, and `corectl cp MODEL {name}` names one so"
    )


def _stream(opened: OpenCompletion, asked: Asked, body: MessagesRequest, clock: Clock) -> MessageStream:
    # What of the prompt is in the cache is known at the end.
    usage = Usage(input_tokens=opened.started.prompt_tokens)
    return MessageStream(
        Reply(id=message_id(), model=body.model, usage=usage),
        clock,
        stops=body.stop_sequences,
        eager={tool.name for tool in body.tools if tool.eager_input_streaming},
        notices=asked.notices,
    )


async def _whole(opened: OpenCompletion, asked: Asked, body: MessagesRequest, clock: Clock) -> Reply:
    delta, finish = await collected(opened)
    content = blocks_of(delta)
    called = any(isinstance(block, ToolUseBlock) for block in content)
    end = end_of(finish, called, body.stop_sequences)
    return Reply(
        id=message_id(),
        model=body.model,
        content=content,
        usage=usage_of(finish),
        stop_reason=end.stop_reason,
        stop_sequence=end.stop_sequence,
        **said_of(finish, asked.notices, clock),
    )
