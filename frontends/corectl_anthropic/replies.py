"""The replies of the Messages API."""

from __future__ import annotations

import base64
import hashlib
import secrets
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import msgspec
from litestar import Response
from msgspec import UNSET, UnsetType

from corectl.messages import Delta, Finish, Notice
from corectl.server.context import Clock, ContextFit, context_fit
from corectl.server.whole import CallCollector

_encode = msgspec.json.Encoder().encode


class Usage(msgspec.Struct, kw_only=True):
    """Tokens. `input_tokens` are those of the prompt that were computed, the others of it were in the cache."""

    input_tokens: int
    cache_creation_input_tokens: int = 0
    cache_read_input_tokens: int = 0
    output_tokens: int = 0


class TextBlock(msgspec.Struct, tag="text", tag_field="type"):
    text: str


class ThinkingBlock(msgspec.Struct, tag="thinking", tag_field="type"):
    thinking: str
    signature: str


class ToolUseBlock(msgspec.Struct, tag="tool_use", tag_field="type"):
    """`input` is a JSON object as the model wrote it: its numbers and escapes may be more than we could hold."""

    id: str
    name: str
    input: msgspec.Raw


class End(msgspec.Struct):
    """Why an output has ended, and the stop sequence that did it."""

    stop_reason: str
    stop_sequence: str | None = None


class CountReply(msgspec.Struct):
    input_tokens: int


class Reply(msgspec.Struct, kw_only=True, tag="message", tag_field="type"):
    """A message; where a stream begins, one without content. `context_fit` and `warnings` are additions of ours."""

    id: str
    role: str = "assistant"
    model: str
    content: list[TextBlock | ThinkingBlock | ToolUseBlock] = []
    stop_reason: str | None = None
    stop_sequence: str | None = None
    usage: Usage
    context_fit: ContextFit | UnsetType = UNSET
    warnings: list[Notice] | UnsetType = UNSET


def message_id() -> str:
    return f"msg_{secrets.token_hex(12)}"


def usage_of(finish: Finish) -> Usage:
    usage = finish.usage
    return Usage(
        input_tokens=max(usage.prompt_tokens - usage.cached_tokens, 0),
        cache_read_input_tokens=usage.cached_tokens,
        output_tokens=usage.output_tokens,
    )


def end_of(finish: Finish, called: bool, stops: Collection[str]) -> End:
    """Why an output has ended. `called` says that there is a tool call, `stops` are the request's stop sequences."""
    if called:
        return End("tool_use")
    if finish.reason == "length":
        return End("max_tokens")
    if finish.stop and finish.stop in stops:
        return End("stop_sequence", finish.stop)
    return End("end_turn")


def said_of(finish: Finish, notices: Iterable[Notice], clock: Clock) -> dict[str, Any]:
    """What was done to make the request fit, and notices, where there is something to say: our additions.

    A remote server of another kind says nothing of its context.
    """
    warnings = [*notices, *finish.notices]
    fit = {"context_fit": context_fit(finish.fit, clock)} if finish.fit.num_ctx else {}
    return {**fit, "warnings": warnings} if warnings else fit


class Signature:
    """What a thought is signed with: a sum that clients keep with it. Nobody checks it, and it proves nothing."""

    def __init__(self) -> None:
        self._sum = hashlib.sha256()

    def add(self, thought: str) -> None:
        self._sum.update(thought.encode())

    def text(self) -> str:
        return base64.b64encode(self._sum.digest()).decode()


def blocks_of(delta: Delta) -> list[TextBlock | ThinkingBlock | ToolUseBlock]:
    """All that a model has put out, as content. A call that was never done is none: its text is in the delta's."""
    blocks: list[TextBlock | ThinkingBlock | ToolUseBlock] = []
    if delta.thinking:
        signature = Signature()
        signature.add(delta.thinking)
        blocks.append(ThinkingBlock(delta.thinking, signature.text()))
    if delta.text:
        blocks.append(TextBlock(delta.text))
    calls = CallCollector().take(delta.tool_calls)
    blocks += [ToolUseBlock(call.id, call.name, msgspec.Raw(call.arguments.encode())) for call in calls]
    return blocks


def reply(value: Any, headers: Mapping[str, str]) -> Response[bytes]:
    return Response(_encode(value), media_type="application/json", status_code=200, headers=headers)
