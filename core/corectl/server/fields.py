"""Fields that requests of several protocols have, read and checked; errors name the field."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from corectl.config import FOREVER
from corectl.duration import parse_duration
from corectl.errors import BadRequest
from corectl.messages import ToolChoice

NEEDED = msgspec.Meta(extra_json_schema={"x-needed": True})
"""For a field that has a default, and that must be given all the same. This and the others below are for documents
only: what is wrong is found later, and said in the words that clients know."""

NOT_EMPTY = msgspec.Meta(extra_json_schema={"minItems": 1})


def among(*values: str) -> msgspec.Meta:
    """For a text that is one of these."""
    return msgspec.Meta(extra_json_schema={"enum": [*values]})


KeepAlive = Annotated[
    Any, msgspec.Meta(extra_json_schema={"anyOf": [{"type": kind} for kind in ("number", "string", "null")]})
]
"""The type of a field for `keep_alive_seconds`, whose errors are those that clients know."""

MAX_TOP_LOGPROBS = 20
MAX_SECONDS = 1e12
_TYPE_NAMES = {bool: "bool", list: "[]interface {}", dict: "map[string]interface {}"}


def keep_alive_seconds(value: Any) -> float | None:
    """A `keep_alive` in seconds (infinity: for ever), None where it is not given. Raises `BadRequest`."""
    if value is None:
        return None
    if isinstance(value, str):
        try:
            seconds = parse_duration(value)
        except ValueError as exc:
            raise BadRequest(str(exc)) from exc
    elif isinstance(value, int | float) and not isinstance(value, bool):
        # Python's whole numbers have no limit, but a float has.
        seconds = float(value) if abs(value) < MAX_SECONDS else MAX_SECONDS * (1 if value > 0 else -1)
    else:
        raise BadRequest(f"Unsupported type: '{_TYPE_NAMES.get(type(value), type(value).__name__)}'")
    return FOREVER if seconds < 0 else seconds


def read_tool_choice(value: Any, tools: list[dict[str, Any]]) -> ToolChoice:
    """Which tools may, or must, be called. Raises `BadRequest` that names the field."""
    if value is None:
        return ToolChoice()
    if isinstance(value, dict):
        function = value.get("function")
        name = function.get("name") if isinstance(function, dict) else None
        if not isinstance(name, str):
            raise BadRequest("tool_choice: an object needs a function with a name")
        choice = ToolChoice(mode="required", name=name)
    elif value in ("auto", "none", "required"):
        choice = ToolChoice(mode=value)
    else:
        raise BadRequest('tool_choice must be "auto", "none", "required", or an object that names a function')
    if choice.mode == "required" and not tools:
        raise BadRequest("tool_choice: there are no tools to choose from")
    return choice


def read_tools(tools: list[dict[str, Any]]) -> tuple[dict[str, Any], ...]:
    """The tools as the client defines them. Raises `BadRequest` for one that has no name."""
    for index, tool in enumerate(tools):
        function = tool.get("function")
        if (
            not isinstance(function, dict)
            or not isinstance(function.get("name"), str)
            or not function["name"]
        ):
            raise BadRequest(f"tools[{index}]: needs a function with a name")
        if not isinstance(function.get("description") or "", str):
            raise BadRequest(f"tools[{index}].function.description must be a string")
        if not isinstance(function.get("parameters") or {}, dict):
            raise BadRequest(f"tools[{index}].function.parameters must be an object")
    return tuple(tools)


def check_top_logprobs(count: int) -> None:
    if not 0 <= count <= MAX_TOP_LOGPROBS:
        raise BadRequest(f"top_logprobs must be between 0 and {MAX_TOP_LOGPROBS}")
