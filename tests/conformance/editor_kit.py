"""Ways to ask a server as editors do, and to read its replies as strictly as they do.

What an editor reads is a type with the fields that it cannot do without. The model is that of the programs which are
started (`tests/integrations/loop.py`): it calls the tool that it is given, and with a result it is done.
"""

from __future__ import annotations

from typing import Any, Literal, TypeVar

import httpx
import msgspec
from msgspec import Struct

from tests.conftest import Server
from tests.integrations.loop import DONE, FULL_NAME, TOOLS

T = TypeVar("T")

ARGUMENTS = TOOLS["get_weather"]
TOOL: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
SYSTEM = {"role": "system", "content": "You are a coding agent in an editor."}
USER = {"role": "user", "content": "How is the weather?"}
SUNNY = "Sunny in Paris"


def good(reply: httpx.Response) -> bytes:
    assert reply.status_code == 200, reply.text
    return reply.content


def read(server: Server, path: str, kind: type[T], headers: dict[str, str] | None = None, **body: Any) -> T:
    """One reply, as an editor reads it; a GET if there is no body."""
    method = "POST" if body else "GET"
    return msgspec.json.decode(
        good(server.client.request(method, path, json=body or None, headers=headers)), type=kind
    )


def read_lines(server: Server, kind: type[T], headers: dict[str, str] | None = None, **body: Any) -> list[T]:
    """A chat of Ollama's API, line by line."""
    reply = good(server.client.post("/api/chat", json=body, headers=headers))
    return [msgspec.json.decode(line, type=kind) for line in reply.splitlines()]


class Function(Struct):
    arguments: str
    name: str | None = None


class Call(Struct):
    index: int
    function: Function
    id: str | None = None


class Delta(Struct):
    content: str | None = None
    tool_calls: list[Call] = []


class Choice(Struct):
    index: int
    delta: Delta
    finish_reason: str | None


class Usage(Struct):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class Chunk(Struct):
    id: str
    object: Literal["chat.completion.chunk"]
    created: int
    model: str
    choices: list[Choice]
    usage: Usage | None = None


def read_chunks(server: Server, headers: dict[str, str], **body: Any) -> list[Chunk]:
    """A streamed chat of OpenAI's API."""
    reply = server.client.post("/v1/chat/completions", json={**body, "stream": True}, headers=headers)
    events = good(reply).decode().split("\n\n")
    assert events[-2:] == ["data: [DONE]", ""]
    return [msgspec.json.decode(event.removeprefix("data: "), type=Chunk) for event in events[:-2]]


def _joined(pieces: list[Call]) -> Call:
    """One call, of which a stream may have many pieces."""
    assert {piece.index for piece in pieces} == {0} and pieces[0].id
    arguments = "".join(piece.function.arguments for piece in pieces)
    return Call(0, Function(arguments, pieces[0].function.name), pieces[0].id)


def walk(server: Server, headers: dict[str, str], content: Any, **body: Any) -> list[list[Chunk]]:
    """The two turns of an agent that speaks OpenAI's API, checked; `content` is what its user says."""
    messages: list[dict[str, Any]] = [SYSTEM, {"role": "user", "content": content}]
    first = read_chunks(server, headers, model=FULL_NAME, messages=messages, tools=[TOOL], **body)
    call = _joined([call for chunk in first for choice in chunk.choices for call in choice.delta.tool_calls])
    assert call.function.name == "get_weather" and msgspec.json.decode(call.function.arguments) == ARGUMENTS
    assert [choice.finish_reason for choice in first[-1].choices or first[-2].choices] == ["tool_calls"]

    function = {"name": call.function.name, "arguments": call.function.arguments}
    messages += [
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": call.id, "type": "function", "function": function}],
        },
        {"role": "tool", "tool_call_id": call.id, "content": SUNNY},
    ]
    second = read_chunks(server, headers, model=FULL_NAME, messages=messages, tools=[TOOL], **body)
    assert "".join(choice.delta.content or "" for chunk in second for choice in chunk.choices) == DONE
    return [first, second]
