"""POST /v1/responses."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from litestar import Response

from corectl.errors import BadRequest
from corectl.messages import Completion, Grammar, Message
from corectl.model.record import ModelRecord
from corectl.server.body import AnyRequest
from corectl.server.context import Clock, context_headers
from corectl.server.fields import read_tool_choice, read_tools
from corectl.server.inference import (
    Settled,
    chat_needs,
    chat_prompt,
    completion,
    find_model,
    open_completion,
    settle,
)
from corectl.server.services import Services, require_name
from corectl.server.streaming import StreamedReply
from corectl.server.whole import CallCollector
from corectl_openai.asked import load_options, read_effort, read_grammar, read_keep_alive, sampling_options
from corectl_openai.choices import take_all
from corectl_openai.errors import WrongField
from corectl_openai.images import contents_of, with_images
from corectl_openai.items import read_items, read_response_tools
from corectl_openai.memory import Conversations
from corectl_openai.replies import PING, SSE, reply
from corectl_openai.response import Item, ResponseHead, answer_of, items_of
from corectl_openai.response_stream import ResponseStream
from corectl_openai.schema import ResponsesRequest, SamplingRequest


async def respond(
    request: AnyRequest, services: Services, memory: Conversations, body: ResponsesRequest
) -> Response[Any]:
    """Checks the request, then runs it; an error before the first piece has a status of its own."""
    clock = Clock()
    require_name(body.model)
    messages = _messages(memory, body)
    tools, notices = read_response_tools(body.tools)
    fields = {
        "grammar": _format(body.text.get("format")),
        "tool_choice": _choice(body, tools),
    }
    record = await find_model(services, body.model)
    contents = contents_of(body.input, "input", "content", "output")
    messages = await with_images(request, services, record, messages, contents)
    options = load_options(request, body)

    def read() -> tuple[Settled, Completion]:
        settled = _settled(services, record, body, options, messages, tools=bool(tools))
        prompt = chat_prompt(services, settled, messages, read_tools(tools))
        return settled, completion(services, settled, prompt, fields=fields)

    settled, work = await services.reading(record, read)
    opened = await open_completion(request, services, settled, work, clock)
    headers = context_headers(opened.started, clock)
    head = ResponseHead(body, clock, notices)

    def keep(items: list[Item]) -> None:
        if body.store:
            # Instructions are for one response only.
            said = messages[1:] if body.instructions else messages
            # Arguments with numbers that nothing here can hold: such a response cannot be continued.
            with suppress(BadRequest):
                memory.keep(head.id, [*said, answer_of(items)])

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
    items = items_of(delta, CallCollector().take(delta.tool_calls))
    keep(items)
    return reply(head.ended(items, finish), headers)


def _messages(memory: Conversations, body: ResponsesRequest) -> list[Message]:
    """The conversation so far, and what the request adds to it."""
    if body.conversation is not None:
        raise WrongField("conversation", "conversation is not supported; use previous_response_id")
    if body.background:
        raise WrongField("background", "background is not supported")
    earlier: Sequence[Message] = ()
    if body.previous_response_id:
        found = memory.find(body.previous_response_id)
        if found is None:
            raise WrongField(
                "previous_response_id",
                f"there is no response {body.previous_response_id[:64]!r} here, or not any more",
                "previous_response_not_found",
            )
        earlier = found
    added = read_items(body.input, body.instructions)
    front = added[:1] if body.instructions else []
    messages = [*front, *earlier, *added[len(front) :]]
    if len(messages) == len(front):
        raise WrongField("input", "input is required", "missing_required_parameter")
    return messages


def _format(value: Any) -> Grammar | None:
    """What the content must match; the schema lies one level higher than in chats."""
    if value is None:
        return None
    if not isinstance(value, dict):
        raise WrongField("text.format", "text.format must be an object", "invalid_type")
    return read_grammar(value.get("type"), value.get("schema"), "text.format", "text.format.schema")


def _choice(body: ResponsesRequest, tools: list[dict[str, Any]]) -> Any:
    choice = body.tool_choice
    if isinstance(choice, dict):
        choice = {"function": {"name": choice.get("name")}}
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
    sampling = SamplingRequest(temperature=body.temperature, top_p=body.top_p)
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
