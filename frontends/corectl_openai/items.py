"""The items of /v1/responses: from what a client sends to messages of the core, and the tools that go with them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from corectl.messages import Message, Notice, Tool
from corectl_openai.content import ROLES, read_arguments, read_content
from corectl_openai.errors import WrongField

_WORDS: dict[str, tuple[type, str]] = {
    "description": (str, "a string"),
    "parameters": (dict, "an object"),
}
"""What a function may have besides its name."""

SEARCHES = (
    *("web_search", "web_search_2025_08_26"),
    *("web_search_preview", "web_search_preview_2025_03_11"),
)


class _Turn(msgspec.Struct):
    """An assistant's turn while it is gathered: calls that follow it are part of it."""

    content: str = ""
    images: tuple[str, ...] = ()
    thoughts: list[str] = []
    calls: list[dict[str, Any]] = []

    def message(self) -> Message:
        return Message(
            role="assistant",
            content=self.content,
            images=self.images,
            thinking="".join(self.thoughts),
            tool_calls=tuple(self.calls),
        )


def without_references(
    items: str | list[dict[str, Any]], find: Callable[[str], bytes | None]
) -> str | list[dict[str, Any]]:
    """The items, with those that `find` knows, encoded, in the place of references to them.

    Raises `WrongField` for one that it does not know, and for a second reference to one: what is kept has a bound, and
    a request must not come to many times that.
    """
    if isinstance(items, str):
        return items
    named: set[str] = set()
    read: list[dict[str, Any]] = []
    for index, item in enumerate(items):
        if _is_reference(item):
            where = f"input[{index}]"
            id = _text(item, "id", where)
            if id in named:
                raise WrongField(f"{where}.id", f"{where}.id: another item refers to {short(id)} too")
            named.add(id)
            item = _referred(id, f"{where}.id", find)
        read.append(item)
    return read


def _is_reference(item: dict[str, Any]) -> bool:
    if item.get("type") is None:
        return item.get("id") is not None and item.get("role") is None
    return bool(item["type"] == "item_reference")


def _referred(id: str, where: str, find: Callable[[str], bytes | None]) -> dict[str, Any]:
    found = find(id)
    if found is None:
        raise WrongField(
            where, f"{where}: there is no item {short(id)} here, or not any more; send the item itself"
        )
    item: dict[str, Any] = msgspec.json.decode(found)
    return item


def read_items(items: str | list[dict[str, Any]]) -> list[Message]:
    """The messages that the items come to. Raises `WrongField` that names the item."""
    if isinstance(items, str):
        return [Message(role="user", content=items)]
    turns: list[Message | _Turn] = []
    _gather(turns, items)
    return [turn.message() if isinstance(turn, _Turn) else turn for turn in turns]


def _gather(turns: list[Message | _Turn], items: list[dict[str, Any]]) -> None:
    """Adds the turns that the items come to. A thought belongs to what comes next, if that is the assistant's."""
    names: dict[str, str] = {}
    thoughts: list[str] = []
    for index, item in enumerate(items):
        where = f"input[{index}]"
        kind = "message" if item.get("type") is None else item["type"]
        if kind == "reasoning":
            thoughts.append(_thought(item, where))
        elif kind == "function_call":
            turn = turns[-1] if turns else None
            if not isinstance(turn, _Turn):
                turn = _Turn()
                turns.append(turn)
            _add_call(turn, item, where, names, thoughts)
            thoughts = []
        elif kind == "function_call_output":
            turns.append(_output(item, where, names))
        elif kind == "message":
            turns.append(_said(item, where, thoughts))
            thoughts = []
        elif kind != "web_search_call":
            raise WrongField(f"{where}.type", f"{where}: items of type {short(kind)} are not supported")
    if any(thoughts):
        turns.append(_Turn(thoughts=thoughts))


def short(kind: Any) -> str:
    """What a client calls something, for an error: as much of it as fits there."""
    return repr(kind[:64]) if isinstance(kind, str) else type(kind).__name__


def _said(item: dict[str, Any], where: str, thoughts: list[str]) -> Message | _Turn:
    role = _text(item, "role", where).lower()
    content, images = read_content(item.get("content"), f"{where}.content")
    if role == "assistant":
        return _Turn(content, images, thoughts)
    return Message(role=ROLES.get(role, role), content=content, images=images)


def _thought(item: dict[str, Any], where: str) -> str:
    """What a model has thought: in full, as it was given out or as other servers have it, or the summary."""
    whole = item.get("encrypted_content") or ""
    if not isinstance(whole, str):
        raise WrongField(
            f"{where}.encrypted_content", f"{where}.encrypted_content must be a string", "invalid_type"
        )
    content, summary = (_lines(item, key, where) for key in ("content", "summary"))
    return whole or content or summary


def _lines(item: dict[str, Any], key: str, where: str) -> str:
    parts = item.get(key) or []
    if not isinstance(parts, list):
        raise WrongField(f"{where}.{key}", f"{where}.{key} must be an array", "invalid_type")
    return read_content(parts, f"{where}.{key}")[0]


def _add_call(
    turn: _Turn, item: dict[str, Any], where: str, names: dict[str, str], thoughts: list[str]
) -> None:
    _text(item, "name", where)
    id, name = _text(item, "call_id", where), full_name(item["name"], item.get("namespace"))
    arguments = read_arguments(item.get("arguments"), f"{where}.arguments")
    names[id] = name
    turn.thoughts += thoughts
    turn.calls.append({"id": id, "type": "function", "function": {"name": name, "arguments": arguments}})


def _output(item: dict[str, Any], where: str, names: dict[str, str]) -> Message:
    id = _text(item, "call_id", where)
    content, images = read_content(item.get("output"), f"{where}.output")
    return Message(role="tool", content=content, images=images, tool_call_id=id, tool_name=names.get(id, ""))


def _text(item: dict[str, Any], key: str, where: str) -> str:
    value = item.get(key)
    if not isinstance(value, str) or not value:
        raise WrongField(f"{where}.{key}", f"{where}.{key} must be a string", "invalid_type")
    return value


def full_name(name: Any, space: Any) -> str:
    """What the model calls the function that an item or a choice names."""
    return f"{space}.{name}" if space and isinstance(space, str) else str(name)


def spaces_of(tools: list[dict[str, Any]]) -> dict[str, tuple[str, str]]:
    """Namespace and name of the functions that are in one, by what the model calls them."""
    return {
        f"{tool['name']}.{member['name']}": (tool["name"], member["name"])
        for tool in tools
        if tool.get("type") == "namespace"
        for member in tool["tools"]
    }


def read_response_tools(tools: list[dict[str, Any]]) -> tuple[list[Tool], tuple[Notice, ...]]:
    """The functions among the tools, and what is to be said of the others. Those of a namespace have it in front.

    Raises `WrongField`, also for two functions that the model could not tell apart.
    """
    functions: dict[str, Tool] = {}
    notices: list[Notice] = []

    def add(tool: dict[str, Any], where: str, space: str = "") -> None:
        function = _function(tool, where, space)
        name = function["function"]["name"]
        if name in functions:
            raise WrongField(f"{where}.name", f"{where}.name: another tool is called {short(name)} too")
        functions[name] = function

    for index, tool in enumerate(tools):
        where, kind = f"tools[{index}]", tool.get("type")
        if kind == "function":
            add(tool, where)
        elif kind == "namespace" and isinstance(tool.get("tools"), list):
            space = _text(tool, "name", where)
            for number, member in enumerate(tool["tools"]):
                if not isinstance(member, dict):
                    raise WrongField(f"{where}.tools[{number}]", f"{where}.tools[{number}] must be an object")
                add(member, f"{where}.tools[{number}]", f"{space}.")
        elif kind in SEARCHES:
            notices.append(Notice(code="tool_left_out", message=f"{where}: there is no {kind} here"))
        else:
            raise WrongField(f"{where}.type", f"{where}: tools of type {short(kind)} are not supported")
    return [*functions.values()], tuple(notices)


def _function(tool: dict[str, Any], where: str, space: str) -> Tool:
    words = {key: tool[key] for key in _WORDS if tool.get(key) is not None}
    for key, value in words.items():
        kind, article = _WORDS[key]
        if not isinstance(value, kind):
            raise WrongField(f"{where}.{key}", f"{where}.{key} must be {article}", "invalid_type")
    return {"type": "function", "function": {"name": space + _text(tool, "name", where), **words}}
