"""POST /v1/responses."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import msgspec
from litestar import Response

from corectl.messages import Completion, Grammar, Message, Notice, Tool
from corectl.model.record import ModelRecord
from corectl.server.apart import apart
from corectl.server.body import AnyRequest
from corectl.server.context import Clock, context_headers
from corectl.server.fetching import read_with_images
from corectl.server.fields import read_tool_choice, read_tools
from corectl.server.inference import (
    Settled,
    chat_needs,
    chat_prompt,
    completion,
    open_completion,
    settle,
)
from corectl.server.operation import SSE
from corectl.server.services import Services, require_name
from corectl.server.streaming import StreamedReply
from corectl.server.whole import CallCollector
from corectl_openai.asked import (
    check_choice,
    load_options,
    read_effort,
    read_grammar,
    read_keep_alive,
    sampling_options,
)
from corectl_openai.choices import take_all
from corectl_openai.errors import WrongField
from corectl_openai.images import addresses_of
from corectl_openai.items import full_name, read_items, read_response_tools, without_references
from corectl_openai.memory import NOTHING, Conversations, decoded, encoded, joined
from corectl_openai.replies import PING, encode, reply
from corectl_openai.response import ResponseHead, answer_of, is_cut, items_of
from corectl_openai.response_objects import Item
from corectl_openai.response_stream import ResponseStream
from corectl_openai.schema import TRUNCATIONS, ResponsesRequest, SamplingRequest

LOGPROBS = "message.output_text.logprobs"
"""What `include` calls the probabilities of tokens."""


class AskedResponse(msgspec.Struct, frozen=True, kw_only=True):
    """A request as far as it is read without its model, and without what was said before.

    `front` is the message of the instructions, which are for one response only; `said` are those of the input, and
    `kept` is what is to be remembered of them. `urls` are of images, by the parts that name them.
    """

    body: ResponsesRequest
    front: list[Message]
    said: list[Message]
    kept: bytes
    urls: dict[str, str]
    tools: tuple[Tool, ...]
    notices: tuple[Notice, ...]
    fields: dict[str, Any]


def read_response(body: ResponsesRequest, memory: Conversations) -> AskedResponse:
    """Checks what needs no model; `memory` has what items refer to. Raises `BadRequest`."""
    require_name(body.model)
    _refuse_others(body)
    if body.truncation not in (None, *TRUNCATIONS):
        raise WrongField("truncation", f"truncation must be one of {', '.join(TRUNCATIONS)}")
    tools, notices = read_response_tools(body.tools)
    items = without_references(body.input, memory.find_item)
    said = read_items(items)
    return AskedResponse(
        body=body,
        front=[Message(role="system", content=body.instructions)] if body.instructions else [],
        said=said,
        kept=encoded(said) if body.store else NOTHING,
        urls=addresses_of(items, "input", "content", "output"),
        tools=read_tools(tools),
        notices=notices,
        fields={"grammar": _format(body.text.get("format")), "tool_choice": _choice(body, tools)},
    )


def _refuse_others(body: ResponsesRequest) -> None:
    """Raises `WrongField` for fields that would change the reply, and that nothing here can do."""
    if body.conversation is not None:
        raise WrongField("conversation", "conversation is not supported; use previous_response_id")
    if body.background:
        raise WrongField("background", "background is not supported")
    if body.prompt is not None:
        raise WrongField("prompt", "prompt is not supported: there are no templates of prompts here")
    for field, wanted in (("include", LOGPROBS in body.include), ("top_logprobs", bool(body.top_logprobs))):
        if wanted:
            raise WrongField(field, f"{field}: probabilities are in /v1/chat/completions only")


async def respond(
    request: AnyRequest, services: Services, memory: Conversations, asked: AskedResponse
) -> Response[Any]:
    """Checks what is left, then runs it; an error before the first piece has a status of its own."""
    clock = Clock()
    body = asked.body
    before = _before(memory, body)
    earlier = await apart(len(before), lambda: decoded(before))
    if not (earlier or asked.said):
        raise WrongField("input", "input is required", "missing_required_parameter")
    options = load_options(request, body)

    def read(record: ModelRecord, said: list[Message]) -> tuple[Settled, Completion, list[Message]]:
        messages = [*asked.front, *earlier, *said]
        settled = _settled(services, record, body, options, messages, tools=bool(asked.tools))
        prompt = chat_prompt(services, settled, messages, asked.tools)
        cuts = body.truncation != "disabled"
        return settled, completion(services, settled, prompt, truncate=cuts, fields=asked.fields), said

    settled, work, said = await read_with_images(request, services, body.model, asked.said, asked.urls, read)
    new = await asyncio.to_thread(encoded, said) if asked.urls and body.store else asked.kept
    opened = await open_completion(request, services, settled, work, clock)
    headers = context_headers(opened.started, clock)
    head = ResponseHead(body, clock, asked.notices)

    def keep(items: list[Item]) -> None:
        if body.store:
            conversation = joined(before, new, encoded([answer_of(items)]))
            memory.keep(head.id, conversation, {item.id: encode(item) for item in items})

    if body.stream:
        stream = ResponseStream(head, keep)
        return StreamedReply(
            opened,
            media_type=SSE,
            headers=headers,
            encode=stream.encode,
            encode_error=stream.failed,
            ping=PING,
        )
    ((delta, finish),) = await take_all(request, [opened])
    items = items_of(delta, CallCollector().take(delta.tool_calls), head.spaces, cut=is_cut(finish))
    keep(items)
    return reply(head.ended(items, finish), headers)


def _before(memory: Conversations, body: ResponsesRequest) -> bytes:
    """What was said before, encoded."""
    if not body.previous_response_id:
        return NOTHING
    found = memory.find(body.previous_response_id)
    if found is None:
        raise WrongField(
            "previous_response_id",
            f"there is no response {body.previous_response_id[:64]!r} here, or not any more",
            "previous_response_not_found",
        )
    return found


def _format(value: Any) -> Grammar | None:
    """What the content must match; the schema lies one level higher than in chats."""
    if value is None:
        return None
    if not isinstance(value, dict):
        raise WrongField("text.format", "text.format must be an object", "invalid_type")
    return read_grammar(value.get("type"), value.get("schema"), "text.format", "text.format.schema")


def _choice(body: ResponsesRequest, tools: list[dict[str, Any]]) -> Any:
    choice = body.tool_choice
    check_choice(choice)
    if isinstance(choice, dict):
        choice = {
            "function": {
                "name": full_name(choice.get("name"), choice.get("namespace"))
                if isinstance(choice.get("name"), str)
                else None
            }
        }
    read = read_tool_choice(choice, tools)
    return type(read)(mode=read.mode, name=read.name, parallel=body.parallel_tool_calls)


def _settled(
    services: Services,
    record: ModelRecord,
    body: ResponsesRequest,
    options: dict[str, Any],
    messages: Sequence[Message],
    *,
    tools: bool,
) -> Settled:
    sampling = SamplingRequest(temperature=body.temperature, top_p=body.top_p, options=body.options)
    return settle(
        services,
        record,
        name=body.model,
        options=options | sampling_options(record, sampling, body.max_output_tokens),
        keep_alive=read_keep_alive(body),
        think=read_effort(body.reasoning.effort, "reasoning.effort"),
        verb="chat",
        needs=chat_needs(messages, tools=tools),
    )
