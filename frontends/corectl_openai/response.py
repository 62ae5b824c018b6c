"""The object that /v1/responses answers with, and its items."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping, Sequence

import msgspec
from msgspec import UNSET

from corectl.errors import CorectlError
from corectl.messages import Delta, Finish, Message, Notice
from corectl.server.context import Clock
from corectl.server.whole import ToolCall
from corectl_openai.content import read_arguments
from corectl_openai.errors import response_code
from corectl_openai.items import full_name, spaces_of
from corectl_openai.replies import said_of
from corectl_openai.response_objects import (
    CallItem,
    IncompleteDetails,
    InputDetails,
    Item,
    MessageItem,
    OutputDetails,
    OutputText,
    ReasoningItem,
    ResponseError,
    ResponseObject,
    ResponseUsage,
    SummaryText,
    Thought,
)
from corectl_openai.schema import ResponsesRequest

Spaces = Mapping[str, tuple[str, str]]


def item_id(kind: str) -> str:
    return f"{kind}_{secrets.token_hex(16)}"


def message_item(id: str, text: str, status: str = "completed") -> MessageItem:
    content = [OutputText(text)] if status != "in_progress" else []
    return MessageItem(id=id, status=status, content=content)


def reasoning_item(id: str, text: str) -> ReasoningItem:
    """The thought is its own summary; `encrypted_content` is what a client sends back, in the clear."""
    return ReasoningItem(id=id, summary=[SummaryText(text)] if text else [], encrypted_content=text)


def call_item(id: str, call: ToolCall, spaces: Spaces, status: str = "completed") -> CallItem:
    """A call, whose arguments are still to come if it is in progress; a namespace stands apart from the name."""
    space, name = spaces.get(call.name, ("", call.name))
    return CallItem(
        id=id,
        status=status,
        call_id=call.id,
        name=name,
        namespace=space or UNSET,
        arguments="" if status == "in_progress" else call.arguments,
    )


def is_cut(finish: Finish) -> bool:
    """Whether a model had more to say."""
    return finish.reason == "length"


def items_of(delta: Delta, calls: Sequence[ToolCall], spaces: Spaces, *, cut: bool) -> list[Item]:
    """The items of a reply that came as a whole; one without anything is an empty message."""
    items: list[Item] = [reasoning_item(item_id("rs"), delta.thinking)] if delta.thinking else []
    if delta.text or not (calls or items):
        items.append(message_item(item_id("msg"), delta.text, "incomplete" if cut else "completed"))
    return [*items, *(call_item(item_id("fc"), call, spaces) for call in calls)]


def answer_of(items: Sequence[Item]) -> Message:
    """The items as a turn of the conversation that they continue."""
    return Message(
        role="assistant",
        content="".join(item.content[0].text for item in items if isinstance(item, MessageItem)),
        thinking="".join(item.encrypted_content for item in items if isinstance(item, ReasoningItem)),
        tool_calls=tuple(
            {
                "id": item.call_id,
                "type": "function",
                "function": {
                    "name": full_name(item.name, item.namespace),
                    "arguments": read_arguments(item.arguments, "output"),
                },
            }
            for item in items
            if isinstance(item, CallItem)
        ),
    )


class ResponseHead:
    """What of a response is known from the beginning, and how it ends. `spaces` are those of its functions."""

    def __init__(self, body: ResponsesRequest, clock: Clock, notices: tuple[Notice, ...]) -> None:
        self.id = item_id("resp")
        self.spaces = spaces_of(body.tools)
        self._clock = clock
        self._notices = notices
        self._head = _begun(self.id, body)

    def begun(self) -> ResponseObject:
        return self._head

    def ended(self, items: list[Item], finish: Finish) -> ResponseObject:
        """One that was cut says so: its last item is not all that the model wanted to say."""
        usage, cut = finish.usage, is_cut(finish)
        said = said_of([finish], self._clock)
        warnings = [*self._notices, *said.pop("warnings", [])]
        return msgspec.structs.replace(
            self._head,
            status="incomplete" if cut else "completed",
            incomplete_details=IncompleteDetails("max_output_tokens") if cut else None,
            completed_at=int(time.time()),
            output=items,
            usage=ResponseUsage(
                input_tokens=usage.prompt_tokens,
                output_tokens=usage.output_tokens,
                total_tokens=usage.prompt_tokens + usage.output_tokens,
                input_tokens_details=InputDetails(usage.cached_tokens),
                output_tokens_details=OutputDetails(),
            ),
            **said,
            warnings=warnings or UNSET,
        )

    def failed(self, items: list[Item], error: CorectlError) -> ResponseObject:
        problem = ResponseError(response_code(error), error.message)
        return msgspec.structs.replace(self._head, status="failed", output=items, error=problem)


def _begun(id: str, body: ResponsesRequest) -> ResponseObject:
    effort, summary = body.reasoning.effort, body.reasoning.summary
    return ResponseObject(
        id=id,
        created_at=int(time.time()),
        status="in_progress",
        model=body.model,
        previous_response_id=body.previous_response_id,
        instructions=body.instructions,
        tools=[{"strict": None, "description": None, **tool} for tool in body.tools],
        tool_choice=body.tool_choice or "auto",
        truncation=body.truncation or "auto",
        parallel_tool_calls=body.parallel_tool_calls,
        text={"format": {"type": "text"}, **body.text},
        temperature=1 if body.temperature is None else body.temperature,
        top_p=1 if body.top_p is None else body.top_p,
        reasoning=Thought(effort, summary) if effort or summary else None,
        max_output_tokens=body.max_output_tokens,
        store=body.store,
        metadata=body.metadata,
        safety_identifier=body.safety_identifier,
        prompt_cache_key=body.prompt_cache_key,
    )
