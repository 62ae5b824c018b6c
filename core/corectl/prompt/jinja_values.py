"""Messages and thinking as chat templates in Jinja see them: dicts with the names that published templates read."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from corectl.messages import Message, Think
from corectl.prompt.turns import (
    called_function,
    calls_alone,
    content_in_thought,
    late_system_in_user,
    one_call_a_turn,
    system_in_user,
    with_call_ids,
)

# The names under which templates look for the thought of an earlier turn, and for the switch to think at all.
_THOUGHTS = ("thinking", "reasoning_content", "reasoning", "thought")
_SWITCHES = ("enable_thinking", "thinking", "reasoning")
_EFFORTS = ("reasoning_effort", "reasoning_strength")
_LADDER = ("minimal", "low", "medium", "high", "xhigh", "max")
_QUOTED_LEVEL = re.compile(rf"""(['"])({"|".join(_LADDER)})\1""")
# Mistral's templates insist on identifiers of this length.
_SHORT_ID = 9


class Manners(msgspec.Struct, frozen=True, kw_only=True):
    """In which form a template wants what may be written in several.

    `parts`: content as a list of parts, not as text. `system_in_user`: no system turns. `late_in_user`: none but in
    front. `one_call`: no more than one call in a turn. `short_ids`: identifiers of calls of nine letters or digits.
    `text_arguments`: arguments of calls as JSON text, not as objects. `calls_alone`: no content in turns with calls,
    not even an empty one. `one_text`: no turn with calls that has both a thought and content.
    """

    parts: bool = False
    system_in_user: bool = False
    late_in_user: bool = False
    one_call: bool = False
    short_ids: bool = False
    text_arguments: bool = False
    calls_alone: bool = False
    one_text: bool = False


def message_values(messages: Sequence[Message], manners: Manners) -> list[dict[str, Any]]:
    """Messages as dicts. What a message does not have is left out, as templates ask whether it is there."""
    if any(message.tool_calls for message in messages):
        messages = with_call_ids(messages)
        if manners.one_text:
            messages = [content_in_thought(message) for message in messages]
        if manners.calls_alone:
            messages = [turn for message in messages for turn in calls_alone(message)]
        if manners.one_call:
            messages = one_call_a_turn(messages)
    if manners.late_in_user:
        messages = late_system_in_user(messages)
    if manners.system_in_user:
        messages = system_in_user(messages)
    return [_message(message, manners) for message in messages]


def _message(message: Message, manners: Manners) -> dict[str, Any]:
    content: Any = [{"type": "text", "text": message.content}] if manners.parts else message.content
    if manners.calls_alone and message.tool_calls:
        content = None
    value: dict[str, Any] = {"role": message.role, "content": content}
    if message.thinking:
        value.update(dict.fromkeys(_THOUGHTS, message.thinking))
    if message.tool_calls:
        value["tool_calls"] = [_call(call, manners) for call in message.tool_calls]
        if message.thinking:
            # What Cohere's templates call a thought before a call.
            value["tool_plan"] = message.thinking
    if message.tool_name:
        value["name"] = message.tool_name
    if message.tool_call_id:
        value["tool_call_id"] = _id(message.tool_call_id, manners)
    return value


def _call(call: Mapping[str, Any], manners: Manners) -> dict[str, Any]:
    function = called_function(call)
    arguments = function.get("arguments") or {}
    if manners.text_arguments and not isinstance(arguments, str):
        arguments = json.dumps(arguments, ensure_ascii=False)
    return {
        "type": "function",
        "id": _id(call["id"], manners),
        "function": {"name": function.get("name", ""), "arguments": arguments},
    }


def _id(given: str, manners: Manners) -> str:
    if manners.short_ids and not (len(given) == _SHORT_ID and given.isalnum()):
        return hashlib.sha256(given.encode()).hexdigest()[:_SHORT_ID]
    return given


def think_values(text: str, think: Think) -> dict[str, Any]:
    """The variables that tell a template whether and how much to think. For None its own default holds."""
    if think is None:
        return {}
    values: dict[str, Any] = dict.fromkeys(_SWITCHES, bool(think))
    if isinstance(think, str):
        values.update(dict.fromkeys(_EFFORTS, _level(text, think)))
    if think is False:
        values["thinking_budget"] = 0
    return values


def _level(text: str, wanted: str) -> str:
    """The level to ask a template for. One that names several knows no others, and gets the nearest of them."""
    named: set[str] = {found[1] for found in _QUOTED_LEVEL.findall(text)}
    if wanted in named:
        return wanted
    if len(named) < 2:
        return "high" if wanted == "max" else wanted
    at = _LADDER.index(wanted)
    return min(named, key=lambda level: (abs(_LADDER.index(level) - at), -_LADDER.index(level)))
