"""What /v1/responses answers with: the response, its items, and the events of a stream."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from corectl_openai.objects import Said


class OutputText(msgspec.Struct, tag="output_text", tag_field="type"):
    text: str
    annotations: list[Any] = []
    logprobs: list[Any] = []


class SummaryText(msgspec.Struct, tag="summary_text", tag_field="type"):
    text: str


class MessageItem(msgspec.Struct, kw_only=True, tag="message", tag_field="type"):
    id: str
    status: str
    role: str = "assistant"
    content: list[OutputText]


class ReasoningItem(msgspec.Struct, kw_only=True, tag="reasoning", tag_field="type"):
    id: str
    summary: list[SummaryText]
    encrypted_content: str


class CallItem(msgspec.Struct, kw_only=True, tag="function_call", tag_field="type"):
    id: str
    status: str
    call_id: str
    name: str
    namespace: str | UnsetType = UNSET
    arguments: str


Item = MessageItem | ReasoningItem | CallItem


class IncompleteDetails(msgspec.Struct):
    reason: str


class ResponseError(msgspec.Struct):
    code: str
    message: str


class Thought(msgspec.Struct):
    """What was asked of a model's thinking."""

    effort: str | None
    summary: str | None


class InputDetails(msgspec.Struct):
    """Keeping what was computed costs nothing extra, so nothing is counted as written."""

    cached_tokens: int
    cache_write_tokens: int = 0


class OutputDetails(msgspec.Struct):
    reasoning_tokens: int = 0


class ResponseUsage(msgspec.Struct, kw_only=True):
    """Tokens."""

    input_tokens: int
    output_tokens: int
    total_tokens: int
    input_tokens_details: InputDetails
    output_tokens_details: OutputDetails


class ResponseObject(Said, kw_only=True):
    """A response, with what was asked for. Times are in seconds."""

    id: str
    object: str = "response"
    created_at: int
    status: str
    completed_at: int | None = None
    error: ResponseError | None = None
    incomplete_details: IncompleteDetails | None = None
    model: str
    previous_response_id: str | None
    instructions: str | None
    output: list[Item] = []
    tools: list[dict[str, Any]]
    tool_choice: str | dict[str, Any]
    truncation: str
    parallel_tool_calls: bool
    text: dict[str, Any]
    temperature: float
    top_p: float
    presence_penalty: float = 0
    frequency_penalty: float = 0
    top_logprobs: int = 0
    reasoning: Thought | None
    usage: ResponseUsage | None = None
    max_output_tokens: int | None
    max_tool_calls: int | None = None
    store: bool
    background: bool = False
    service_tier: str = "default"
    metadata: dict[str, Any]
    safety_identifier: str | None
    prompt_cache_key: str | None


class ResponseEvent(msgspec.Struct, kw_only=True, tag_field="type"):
    """An event of a stream. Its type is also its name; `sequence_number` counts from 0."""

    sequence_number: int


class _OfResponse(ResponseEvent, kw_only=True):
    response: ResponseObject


class Created(_OfResponse, tag="response.created"):
    pass


class InProgress(_OfResponse, tag="response.in_progress"):
    pass


class Completed(_OfResponse, tag="response.completed"):
    pass


class Incomplete(_OfResponse, tag="response.incomplete"):
    pass


class Failed(_OfResponse, tag="response.failed"):
    pass


class _OfItem(ResponseEvent, kw_only=True):
    output_index: int
    item: Item


class ItemAdded(_OfItem, tag="response.output_item.added"):
    pass


class ItemDone(_OfItem, tag="response.output_item.done"):
    pass


class _InItem(ResponseEvent, kw_only=True):
    item_id: str
    output_index: int


class _OfPart(_InItem, kw_only=True):
    content_index: int
    part: OutputText


class PartAdded(_OfPart, tag="response.content_part.added"):
    pass


class PartDone(_OfPart, tag="response.content_part.done"):
    pass


class TextDelta(_InItem, kw_only=True, tag="response.output_text.delta"):
    content_index: int
    logprobs: list[Any]
    delta: str


class TextDone(_InItem, kw_only=True, tag="response.output_text.done"):
    content_index: int
    text: str
    logprobs: list[Any]


class _OfSummary(_InItem, kw_only=True):
    summary_index: int
    part: SummaryText


class SummaryAdded(_OfSummary, tag="response.reasoning_summary_part.added"):
    pass


class SummaryDone(_OfSummary, tag="response.reasoning_summary_part.done"):
    pass


class ThoughtDelta(_InItem, kw_only=True, tag="response.reasoning_summary_text.delta"):
    summary_index: int
    delta: str


class ThoughtDone(_InItem, kw_only=True, tag="response.reasoning_summary_text.done"):
    summary_index: int
    text: str


class ArgumentsDelta(_InItem, kw_only=True, tag="response.function_call_arguments.delta"):
    delta: str


class ArgumentsDone(_InItem, kw_only=True, tag="response.function_call_arguments.done"):
    name: str
    arguments: str


AnyResponseEvent = (
    Created
    | InProgress
    | Completed
    | Incomplete
    | Failed
    | ItemAdded
    | ItemDone
    | PartAdded
    | PartDone
    | TextDelta
    | TextDone
    | SummaryAdded
    | SummaryDone
    | ThoughtDelta
    | ThoughtDone
    | ArgumentsDelta
    | ArgumentsDone
)

EVENTS: dict[str, type[ResponseEvent]] = {
    str(kind.__struct_config__.tag): kind for kind in AnyResponseEvent.__args__
}
"""All kinds, by their types."""
