"""The objects of replies, and of the events of streams, which are written piece by piece in the same form."""

from __future__ import annotations

from datetime import datetime

import msgspec
from msgspec import UNSET, UnsetType

from corectl.messages import Notice
from corectl.server.context import ContextFit
from corectl_openai.replies import FINGERPRINT, TokenLogprobs, Usage


class Said(msgspec.Struct, kw_only=True):
    """Additions of ours: what went another way than the client may think; see `corectl_openai.replies.said_of`."""

    warnings: list[Notice] | UnsetType = UNSET
    context_fit: ContextFit | UnsetType = UNSET


class WireFunction(msgspec.Struct):
    """`arguments` is a text, as the model wrote it."""

    name: str
    arguments: str


class WireCall(msgspec.Struct, kw_only=True):
    id: str
    index: int
    type: str = "function"
    function: WireFunction


class FunctionPiece(msgspec.Struct, kw_only=True):
    """The name comes with the first piece. All `arguments` together are the text that the model wrote."""

    name: str | UnsetType = UNSET
    arguments: str


class CallPiece(msgspec.Struct, kw_only=True):
    """What a stream has of a call. `id` and `type` come with the first piece, and `index` says whose it is."""

    id: str | UnsetType = UNSET
    index: int
    type: str | UnsetType = UNSET
    function: FunctionPiece


class ChatLogprobs(msgspec.Struct):
    content: list[TokenLogprobs]


class ChatMessage(msgspec.Struct, kw_only=True):
    role: str = "assistant"
    content: str
    reasoning: str | UnsetType = UNSET
    tool_calls: list[WireCall] | UnsetType = UNSET


class ChatChoice(msgspec.Struct, kw_only=True):
    index: int
    message: ChatMessage
    finish_reason: str
    logprobs: ChatLogprobs | UnsetType = UNSET


class ChatHead(Said, kw_only=True):
    """What a whole reply and all events of a stream have in common; `created` is in seconds."""

    id: str
    object: str = "chat.completion.chunk"
    created: int
    model: str
    system_fingerprint: str = FINGERPRINT


class ChatCompletion(ChatHead, kw_only=True):
    object: str = "chat.completion"
    choices: list[ChatChoice]
    usage: Usage


class ChatDelta(msgspec.Struct, kw_only=True):
    """What is new. The role comes with the first."""

    role: str | UnsetType = UNSET
    content: str | UnsetType = UNSET
    reasoning: str | UnsetType = UNSET
    tool_calls: list[CallPiece] | UnsetType = UNSET


class ChatChunkChoice(msgspec.Struct, kw_only=True):
    index: int
    delta: ChatDelta
    finish_reason: str | None
    logprobs: ChatLogprobs | UnsetType = UNSET


class ChatChunk(ChatHead, kw_only=True):
    """An event; the last may have no choices, but the usage."""

    choices: list[ChatChunkChoice]
    usage: Usage | UnsetType = UNSET


class TextLogprobs(msgspec.Struct):
    """Offsets are in characters, and count from the first token of the choice."""

    tokens: list[str]
    token_logprobs: list[float]
    top_logprobs: list[dict[str, float]]
    text_offset: list[int]


class TextChoice(msgspec.Struct):
    text: str
    index: int
    finish_reason: str | None
    logprobs: TextLogprobs | UnsetType = UNSET


class TextHead(Said, kw_only=True):
    """What a whole reply and all events of a stream have in common; `created` is in seconds."""

    id: str
    object: str = "text_completion"
    created: int
    model: str
    system_fingerprint: str = FINGERPRINT


class TextCompletion(TextHead, kw_only=True):
    choices: list[TextChoice]
    usage: Usage


class TextChunk(TextHead, kw_only=True):
    """An event. Where tokens are counted, all have a usage; that of the last is right."""

    choices: list[TextChoice]
    usage: Usage | UnsetType = UNSET


class EmbeddingObject(msgspec.Struct, kw_only=True):
    """`embedding` is numbers, or in base64 their little-endian floats of 32 bits."""

    object: str = "embedding"
    embedding: list[float] | str
    index: int


class InputUsage(msgspec.Struct, kw_only=True, omit_defaults=True):
    """Tokens. `dropped_tokens`, an addition of ours, is there if inputs were cut."""

    prompt_tokens: int
    total_tokens: int
    dropped_tokens: int = 0


class EmbeddingsReply(msgspec.Struct, kw_only=True):
    object: str = "list"
    data: list[EmbeddingObject]
    model: str
    usage: InputUsage


class TokenizeReply(msgspec.Struct, kw_only=True):
    object: str = "list"
    model: str
    tokens: tuple[int, ...]
    count: int


class ModelObject(msgspec.Struct, kw_only=True):
    """`created` is in seconds. The last four are what Anthropic's libraries, which ask the same route, read."""

    id: str
    object: str = "model"
    created: int
    owned_by: str
    type: str = "model"
    display_name: str
    created_at: datetime
    lifecycle: str = "active"


class ModelsReply(msgspec.Struct, kw_only=True):
    object: str = "list"
    data: list[ModelObject]
