"""POST /v1/chat/completions."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import msgspec
from litestar import Response
from msgspec import UNSET

from corectl.messages import Completion, Delta, Finish, Message, Think, Tool
from corectl.model.record import ModelRecord
from corectl.server.body import AnyRequest
from corectl.server.context import Clock, context_headers
from corectl.server.fetching import read_with_images
from corectl.server.fields import read_tools
from corectl.server.inference import Settled, chat_needs, chat_prompt, completion, settle
from corectl.server.operation import SSE
from corectl.server.services import Services, require_name
from corectl.server.streaming import StreamedReply
from corectl.server.whole import CallCollector
from corectl_openai.asked import (
    load_options,
    read_choice,
    read_effort,
    read_format,
    read_keep_alive,
    read_top_logprobs,
    refuse_others,
    sampling_options,
)
from corectl_openai.choices import open_all, take_all, variants
from corectl_openai.content import read_messages
from corectl_openai.errors import error_event
from corectl_openai.images import addresses_of
from corectl_openai.objects import ChatChoice, ChatCompletion, ChatLogprobs, ChatMessage
from corectl_openai.replies import PING, new_id, reply, said_of, usage_of, wire_logprobs
from corectl_openai.schema import ChatRequest
from corectl_openai.stream import ChatStream, reason_of, wire_calls


class AskedChat(msgspec.Struct, frozen=True, kw_only=True):
    """A request as far as it is read without its model. `urls` are of images, by the parts that name them."""

    body: ChatRequest
    messages: list[Message]
    urls: dict[str, str]
    tools: tuple[Tool, ...]
    fields: dict[str, Any]


def read_chat(body: ChatRequest) -> AskedChat:
    """Checks what needs no model. Raises `BadRequest`."""
    require_name(body.model)
    refuse_others(body)
    messages = read_messages(body.messages)
    fields = {
        "grammar": read_format(body.response_format),
        "tool_choice": read_choice(body),
        "logprobs": body.logprobs,
        "top_logprobs": read_top_logprobs(body),
    }
    return AskedChat(
        body=body,
        messages=messages,
        urls=addresses_of(body.messages, "messages", "content"),
        tools=read_tools(body.tools),
        fields=fields,
    )


async def chat(request: AnyRequest, services: Services, asked: AskedChat) -> Response[Any]:
    """Checks what is left, then runs it; an error before the first piece has a status of its own."""
    clock, created = Clock(), int(time.time())
    body = asked.body
    options = load_options(request, body)

    def read(record: ModelRecord, messages: list[Message]) -> tuple[Settled, Completion]:
        settled = _settled(services, record, body, options, messages)
        prompt = chat_prompt(services, settled, messages, asked.tools)
        return settled, completion(services, settled, prompt, fields=asked.fields)

    settled, work = await read_with_images(request, services, body.model, asked.messages, asked.urls, read)
    opened = await open_all(request, services, settled, variants(work, body.n), clock)
    headers = context_headers(opened[0].started, clock)
    if not body.stream:
        return reply(_whole(body, created, clock, await take_all(request, opened)), headers)
    usage = bool(body.stream_options.include_usage)
    stream = ChatStream(body.model, created, clock, choices=body.n, usage=usage)
    streams = [(one, choice.encode) for one, choice in zip(opened, stream.choices, strict=True)]
    return StreamedReply(
        opened[0],
        media_type=SSE,
        headers=headers,
        encode=streams[0][1],
        encode_error=error_event,
        ping=PING,
        beside=streams[1:],
    )


def _settled(
    services: Services,
    record: ModelRecord,
    body: ChatRequest,
    options: dict[str, Any],
    messages: Sequence[Message],
) -> Settled:
    limit = body.max_tokens if body.max_completion_tokens is None else body.max_completion_tokens
    return settle(
        services,
        record,
        name=body.model,
        options=options | sampling_options(record, body, limit),
        keep_alive=read_keep_alive(body),
        think=_effort(body),
        verb="chat",
        needs=chat_needs(messages, tools=bool(body.tools)),
    )


def _effort(body: ChatRequest) -> Think:
    if body.reasoning_effort is not None:
        return read_effort(body.reasoning_effort, "reasoning_effort")
    return read_effort(body.reasoning.effort, "reasoning.effort")


def _whole(
    body: ChatRequest, created: int, clock: Clock, results: Sequence[tuple[Delta, Finish]]
) -> ChatCompletion:
    ends = [finish for _, finish in results]
    return ChatCompletion(
        id=new_id("chatcmpl-"),
        created=created,
        model=body.model,
        choices=[_choice(index, *result) for index, result in enumerate(results)],
        usage=usage_of([ends]),
        **said_of(ends, clock),
    )


def _choice(index: int, delta: Delta, finish: Finish) -> ChatChoice:
    calls = wire_calls(CallCollector().take(delta.tool_calls))
    return ChatChoice(
        index=index,
        message=ChatMessage(content=delta.text, reasoning=delta.thinking or UNSET, tool_calls=calls or UNSET),
        finish_reason=reason_of(finish, called=bool(calls)),
        logprobs=ChatLogprobs(wire_logprobs(delta.logprobs)) if delta.logprobs else UNSET,
    )
