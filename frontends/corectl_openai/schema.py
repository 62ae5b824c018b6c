"""The requests of OpenAI's API as they come over the wire. Unknown keys are left alone, null counts as not given.

`num_ctx` and `keep_alive` are additions of ours: the protocol has no words for them.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from corectl.messages import Think
from corectl.server.fields import NEEDED, NOT_EMPTY, KeepAlive, among
from corectl.server.ranking import Document

MAX_CHOICES = 128
TRUNCATIONS = ("auto", "disabled")

EFFORTS: dict[str, Think] = {
    "none": False,
    "minimal": "low",
    "low": "low",
    "medium": "medium",
    "high": "high",
    "xhigh": "max",
    "ultra": "max",
    "max": "max",
}


def _shape(*schemas: dict[str, Any]) -> Any:
    """What a value is that is read later, because its errors name a part of it."""
    return msgspec.Meta(extra_json_schema=schemas[0] if len(schemas) == 1 else {"anyOf": [*schemas]})


_TEXT, _NULL, _OBJECT = {"type": "string"}, {"type": "null"}, {"type": "object"}
_TOKENS = {"type": "array", "minItems": 1, "items": {"type": "integer", "minimum": 0, "maximum": 2**31 - 1}}
_FUNCTION = {**_OBJECT, "properties": {"name": {**_TEXT, "minLength": 1}}, "required": ["name"]}
_CALL = {**_OBJECT, "properties": {"id": _TEXT, "function": _FUNCTION}, "required": ["function"]}
_PART = {
    **_OBJECT,
    "properties": {
        "type": {"enum": ["text", "image_url"]},
        "text": _TEXT,
        "image_url": {"anyOf": [_TEXT, _OBJECT]},
    },
    "required": ["type"],
    "anyOf": [
        {"properties": {"type": {"const": "text"}}, "required": ["text"]},
        {"properties": {"type": {"const": "image_url"}}, "required": ["image_url"]},
    ],
}
_REFUSED, _NONE = _shape(_NULL), _shape(_NULL, {"type": "array", "maxItems": 0})
_FORMAT = _shape(
    {
        "properties": {"type": {"enum": ["text", "json_object", "json_schema"]}, "json_schema": _OBJECT},
        "required": ["type"],
    }
)

WireMessage = Annotated[
    dict[str, Any],
    _shape(
        {
            "properties": {
                "role": {**_TEXT, "minLength": 1},
                "content": {"anyOf": [_TEXT, {"type": "array", "items": _PART}]},
                "tool_calls": {"type": "array", "items": _CALL, "minItems": 1},
                "tool_call_id": _TEXT,
                "name": _TEXT,
                "reasoning": _TEXT,
            },
            "required": ["role"],
            "anyOf": [{"required": ["content"]}, {"required": ["tool_calls"]}],
        }
    ),
]
ToolChoice = Annotated[Any, _shape({"enum": ["auto", "none", "required"]}, _OBJECT, _NULL)]
Inputs = Annotated[
    Any,
    _shape(_TEXT, _TOKENS, {"type": "array", "minItems": 1, "items": {"anyOf": [_TEXT, _TOKENS]}}, _NULL),
]
Tools = Annotated[
    list[dict[str, Any]],
    _shape({"items": {**_OBJECT, "properties": {"function": _FUNCTION}, "required": ["function"]}}),
]
Bias = Annotated[float, msgspec.Meta(ge=-100, le=100)]
Biases = Annotated[dict[str, Bias], _shape({"propertyNames": {"pattern": "^[0-9]{1,9}$"}})]
Positive = Annotated[float | None, _shape({"minimum": 0})]
Share = Annotated[float | None, _shape({"minimum": 0, "maximum": 1})]
Limit = Annotated[int, msgspec.Meta(ge=-(2**31) + 1, le=2**31 - 1)]
Choices = Annotated[int, msgspec.Meta(ge=1, le=MAX_CHOICES)]


class StreamOptions(msgspec.Struct, frozen=True, kw_only=True):
    include_usage: bool | None = None


class NativeOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The native API's options that some clients send here too, because this protocol has no context; in tokens."""

    num_ctx: Annotated[int | None, _shape({"minimum": 0})] = None
    num_predict: Limit | None = None


class ModelRequest(msgspec.Struct, kw_only=True):
    """What all requests for a model have in common. `num_ctx` is in tokens, and stands before that of `options`."""

    model: Annotated[str, NEEDED] = ""
    num_ctx: Annotated[int | None, _shape({"minimum": 0})] = None
    options: NativeOptions = NativeOptions()
    keep_alive: KeepAlive = None


class SamplingRequest(ModelRequest, kw_only=True):
    """What chats and completions have in common."""

    stream: bool = False
    stream_options: StreamOptions = StreamOptions()
    max_tokens: Limit | None = None
    temperature: Positive = None
    top_p: Share = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    seed: int | None = None
    stop: str | list[str] = []
    logit_bias: Biases = {}
    n: Choices = 1


class Reasoning(msgspec.Struct, frozen=True, kw_only=True):
    effort: Annotated[str | None, among(*EFFORTS)] = None


class ChatRequest(SamplingRequest, kw_only=True):
    """The last four are of older or other models; they are refused, not passed over."""

    messages: Annotated[list[WireMessage], NEEDED, NOT_EMPTY] = []
    max_completion_tokens: Limit | None = None
    response_format: Annotated[dict[str, Any] | None, _FORMAT] = None
    reasoning_effort: Annotated[str | None, among(*EFFORTS)] = None
    reasoning: Reasoning = Reasoning()
    tools: Tools = []
    tool_choice: ToolChoice = None
    parallel_tool_calls: bool = True
    logprobs: bool = False
    top_logprobs: int | None = None
    audio: Annotated[Any, _REFUSED] = None
    functions: Annotated[Any, _NONE] = None
    function_call: Annotated[Any, _REFUSED] = None
    web_search_options: Annotated[Any, _REFUSED] = None


class CompletionRequest(SamplingRequest, kw_only=True):
    """`prompt` is a text, texts, tokens, or several lists of tokens; `logprobs` counts the alternatives."""

    prompt: Inputs = None
    suffix: str = ""
    echo: bool = False
    best_of: Choices | None = None
    logprobs: Annotated[int, msgspec.Meta(ge=0, le=20)] | None = None


class ResponsesReasoning(msgspec.Struct, frozen=True, kw_only=True):
    effort: Annotated[str | None, among(*EFFORTS)] = None
    summary: str | None = None


class ResponsesRequest(ModelRequest, kw_only=True):
    """`truncation` says whether what is too long may be cut.

    The last five are refused: nothing is kept but the answers that `store` asks for, and probabilities are in chats.
    """

    input: Annotated[str | list[dict[str, Any]], NEEDED] = []
    instructions: str | None = None
    stream: bool = False
    max_output_tokens: Limit | None = None
    temperature: Positive = None
    top_p: Share = None
    reasoning: ResponsesReasoning = ResponsesReasoning()
    text: dict[str, Any] = {}
    tools: list[dict[str, Any]] = []
    tool_choice: ToolChoice = None
    parallel_tool_calls: bool = True
    previous_response_id: str | None = None
    store: bool = True
    metadata: dict[str, Any] = {}
    prompt_cache_key: str | None = None
    safety_identifier: str | None = None
    truncation: Annotated[str | None, among(*TRUNCATIONS)] = None
    conversation: Annotated[Any, _REFUSED] = None
    background: Annotated[bool, _shape({"const": False})] = False
    prompt: Annotated[Any, _REFUSED] = None
    include: list[str] = []
    top_logprobs: Annotated[int, _shape({"const": 0})] = 0


class EmbeddingsRequest(ModelRequest, kw_only=True):
    """`input` is what `prompt` is in completions."""

    input: Annotated[Inputs, NEEDED] = None
    encoding_format: Annotated[str, among("float", "base64")] = "float"
    dimensions: Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)] = 0


class RerankRequest(ModelRequest, kw_only=True):
    """`top_n` is how many documents are wanted, without it all; `truncate` lets pairs that are too long be cut."""

    query: Annotated[str, NEEDED, _shape({"minLength": 1})] = ""
    documents: Annotated[list[str | Document], NEEDED, NOT_EMPTY] = []
    top_n: Annotated[int, msgspec.Meta(ge=1)] | None = None
    return_documents: bool = False
    truncate: bool = True


class TokenizeRequest(ModelRequest, kw_only=True):
    prompt: Annotated[str | None, NEEDED] = None
    add_special_tokens: bool = True
