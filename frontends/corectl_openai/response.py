"""The object that /v1/responses answers with, and its items."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping, Sequence
from typing import Any

from corectl.errors import CorectlError
from corectl.messages import Delta, Finish, Message, Notice
from corectl.server.context import Clock
from corectl.server.whole import ToolCall
from corectl_openai.content import read_arguments
from corectl_openai.errors import response_code
from corectl_openai.items import full_name, spaces_of
from corectl_openai.replies import said_of
from corectl_openai.schema import ResponsesRequest

Item = dict[str, Any]
Spaces = Mapping[str, tuple[str, str]]


def item_id(kind: str) -> str:
    return f"{kind}_{secrets.token_hex(16)}"


def message_item(id: str, text: str, status: str = "completed") -> Item:
    content = [text_part(text)] if status != "in_progress" else []
    return {"id": id, "type": "message", "status": status, "role": "assistant", "content": content}


def text_part(text: str) -> Item:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def reasoning_item(id: str, text: str) -> Item:
    """The thought is its own summary; `encrypted_content` is what a client sends back, in the clear."""
    summary = [{"type": "summary_text", "text": text}] if text else []
    return {"id": id, "type": "reasoning", "summary": summary, "encrypted_content": text}


def call_item(id: str, call: ToolCall, spaces: Spaces, status: str = "completed") -> Item:
    """A call, whose arguments are still to come if it is in progress; a namespace stands apart from the name."""
    space, name = spaces.get(call.name, ("", call.name))
    return {
        "id": id,
        "type": "function_call",
        "status": status,
        "call_id": call.id,
        "name": name,
        **({"namespace": space} if space else {}),
        "arguments": "" if status == "in_progress" else call.arguments,
    }


def items_of(delta: Delta, calls: Sequence[ToolCall], spaces: Spaces) -> list[Item]:
    """The items of a reply that came as a whole; one without anything is an empty message."""
    items = [reasoning_item(item_id("rs"), delta.thinking)] if delta.thinking else []
    if delta.text or not calls:
        items.append(message_item(item_id("msg"), delta.text))
    return items + [call_item(item_id("fc"), call, spaces) for call in calls]


def answer_of(items: Sequence[Item]) -> Message:
    """The items as a turn of the conversation that they continue."""
    return Message(
        role="assistant",
        content="".join(item["content"][0]["text"] for item in items if item["type"] == "message"),
        thinking="".join(item["encrypted_content"] for item in items if item["type"] == "reasoning"),
        tool_calls=tuple(
            {
                "id": item["call_id"],
                "type": "function",
                "function": {
                    "name": full_name(item),
                    "arguments": read_arguments(item["arguments"], "output"),
                },
            }
            for item in items
            if item["type"] == "function_call"
        ),
    )


class ResponseHead:
    """What of a response is known from the beginning, and how it ends. `spaces` are those of its functions."""

    def __init__(self, body: ResponsesRequest, clock: Clock, notices: tuple[Notice, ...]) -> None:
        self.id = item_id("resp")
        self.spaces = spaces_of(body.tools)
        self._clock = clock
        self._notices = notices
        self._head = _echo(body) | {"id": self.id, "created_at": int(time.time())}

    def begun(self) -> dict[str, Any]:
        return self._head | {"status": "in_progress"}

    def ended(self, items: Sequence[Item], finish: Finish) -> dict[str, Any]:
        """One that was cut says so: its last item is not all that the model wanted to say."""
        usage, cut = finish.usage, finish.reason == "length"
        said = said_of([finish], self._clock)
        warnings = [*self._notices, *said.pop("warnings", [])]
        return {
            **self._head,
            "status": "incomplete" if cut else "completed",
            "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
            "completed_at": int(time.time()),
            "output": items,
            "usage": {
                "input_tokens": usage.prompt_tokens,
                "output_tokens": usage.output_tokens,
                "total_tokens": usage.prompt_tokens + usage.output_tokens,
                "input_tokens_details": {"cached_tokens": usage.cached_tokens},
                "output_tokens_details": {"reasoning_tokens": 0},
            },
            **said,
            **({"warnings": warnings} if warnings else {}),
        }

    def failed(self, items: Sequence[Item], error: CorectlError) -> dict[str, Any]:
        return self._head | {
            "status": "failed",
            "output": items,
            "error": {"code": response_code(error), "message": error.message},
        }


def _echo(body: ResponsesRequest) -> dict[str, Any]:
    effort, summary = body.reasoning.effort, body.reasoning.summary
    thought = {"effort": effort, "summary": summary} if effort or summary else None
    return {
        "object": "response",
        "completed_at": None,
        "error": None,
        "incomplete_details": None,
        "model": body.model,
        "previous_response_id": body.previous_response_id,
        "instructions": body.instructions,
        "output": [],
        "tools": [{"strict": None, "description": None, **tool} for tool in body.tools],
        "tool_choice": body.tool_choice or "auto",
        "truncation": "disabled",
        "parallel_tool_calls": body.parallel_tool_calls,
        "text": {"format": {"type": "text"}, **body.text},
        "temperature": 1 if body.temperature is None else body.temperature,
        "top_p": 1 if body.top_p is None else body.top_p,
        "presence_penalty": 0,
        "frequency_penalty": 0,
        "top_logprobs": 0,
        "reasoning": thought,
        "usage": None,
        "max_output_tokens": body.max_output_tokens,
        "max_tool_calls": None,
        "store": body.store,
        "background": False,
        "service_tier": "default",
        "metadata": body.metadata,
        "safety_identifier": body.safety_identifier,
        "prompt_cache_key": body.prompt_cache_key,
    }
