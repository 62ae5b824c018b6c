"""The items of /v1/responses: from what a client sends to messages of the core, and the tools that go with them."""

from __future__ import annotations

from typing import Any

import msgspec

from corectl.messages import Message, Notice, Tool
from corectl_openai.content import ROLES, read_arguments, read_content
from corectl_openai.errors import WrongField

SEARCHES = ("web_search", "web_search_preview")


def read_items(items: str | list[dict[str, Any]], instructions: str | None) -> list[Message]:
    """The messages; instructions stand in front. Raises `WrongField` that names the item."""
    messages = [Message(role="system", content=instructions)] if instructions else []
    if isinstance(items, str):
        return [*messages, Message(role="user", content=items)]
    names: dict[str, str] = {}
    thought = ""
    for index, item in enumerate(items):
        where = f"input[{index}]"
        kind = item.get("type", "message")
        if kind == "reasoning":
            thought += _thought(item)
        elif kind == "function_call":
            _add_call(messages, item, where, names, thought)
            thought = ""
        elif kind == "function_call_output":
            messages.append(_output(item, where, names))
        elif kind == "message":
            messages.append(_message(item, where, thought))
            thought = ""
        elif kind != "web_search_call":
            raise WrongField(f"{where}.type", f"{where}: items of type {kind!r} are not supported")
    return [*messages, Message(role="assistant", thinking=thought)] if thought else messages


def _message(item: dict[str, Any], where: str, thought: str) -> Message:
    role = _text(item, "role", where).lower()
    content, images = read_content(item.get("content"), f"{where}.content")
    thinking = thought if role == "assistant" else ""
    return Message(role=ROLES.get(role, role), content=content, images=images, thinking=thinking)


def _thought(item: dict[str, Any]) -> str:
    """What a model has thought: in full, as it was given out, or the summary."""
    whole = item.get("encrypted_content")
    if isinstance(whole, str) and whole:
        return whole
    parts = item.get("summary")
    found = [part.get("text") for part in parts if isinstance(part, dict)] if isinstance(parts, list) else []
    return "\n".join(text for text in found if isinstance(text, str))


def _add_call(
    messages: list[Message], item: dict[str, Any], where: str, names: dict[str, str], thought: str
) -> None:
    """Calls that follow an assistant's turn are part of it."""
    id, name = _text(item, "call_id", where), _text(item, "name", where)
    arguments = read_arguments(item.get("arguments"), f"{where}.arguments")
    names[id] = name
    call = {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}
    last = messages[-1] if messages and messages[-1].role == "assistant" else None
    if last is None:
        messages.append(Message(role="assistant", thinking=thought, tool_calls=(call,)))
    else:
        thinking = last.thinking + thought
        messages[-1] = msgspec.structs.replace(last, tool_calls=(*last.tool_calls, call), thinking=thinking)


def _output(item: dict[str, Any], where: str, names: dict[str, str]) -> Message:
    id = _text(item, "call_id", where)
    content, images = read_content(item.get("output"), f"{where}.output")
    return Message(role="tool", content=content, images=images, tool_call_id=id, tool_name=names.get(id, ""))


def _text(item: dict[str, Any], key: str, where: str) -> str:
    value = item.get(key)
    if not isinstance(value, str) or not value:
        raise WrongField(f"{where}.{key}", f"{where}.{key} must be a string", "invalid_type")
    return value


def read_response_tools(tools: list[dict[str, Any]]) -> tuple[list[Tool], tuple[Notice, ...]]:
    """The functions among the tools, and what is to be said of the others. Those of a namespace have it in front."""
    functions: list[Tool] = []
    notices: list[Notice] = []
    for index, tool in enumerate(tools):
        where, kind = f"tools[{index}]", tool.get("type")
        if kind == "function":
            functions.append(_function(tool, where))
        elif kind == "namespace" and isinstance(tool.get("tools"), list):
            space = _text(tool, "name", where)
            for number, member in enumerate(tool["tools"]):
                if not isinstance(member, dict):
                    raise WrongField(f"{where}.tools[{number}]", f"{where}.tools[{number}] must be an object")
                functions.append(_function(member, f"{where}.tools[{number}]", f"{space}."))
        elif kind in SEARCHES:
            notices.append(Notice(code="tool_left_out", message=f"{where}: there is no {kind} here"))
        else:
            raise WrongField(f"{where}.type", f"{where}: tools of type {kind!r} are not supported")
    return functions, tuple(notices)


def _function(tool: dict[str, Any], where: str, space: str = "") -> Tool:
    words = {key: tool[key] for key in ("description", "parameters") if tool.get(key) is not None}
    return {"type": "function", "function": {"name": space + _text(tool, "name", where), **words}}
