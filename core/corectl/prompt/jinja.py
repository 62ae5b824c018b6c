"""Prompts from chat templates in Jinja, which come with the weights.

Templates differ in the forms of messages that they take, and nothing in them says which. So a small chat is rendered
in one form after the other, until what was put in is in the prompt.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import msgspec

from corectl.errors import BadRequest
from corectl.messages import Message, Think
from corectl.prompt.budget import CACHED_TEMPLATES, OutOfTime, rendering_budget
from corectl.prompt.jinja_engine import run_template
from corectl.prompt.jinja_values import Manners, message_values, think_values

_NEEDLES = ("pX7needle", "pX8needle")
_TOOL = {
    "type": "function",
    "function": {
        "name": "find",
        "description": "Finds",
        "parameters": {
            "type": "object",
            "properties": {"what": {"type": "string", "description": "What"}},
            "required": ["what"],
        },
    },
}
_ASKED = (Message(role="user", content=" ".join(_NEEDLES)),)
_TOLD = (Message(role="system", content=" ".join(_NEEDLES)), Message(role="user", content="Go"))
_TOLD_LATE = (
    Message(role="user", content="Go"),
    Message(role="system", content=" ".join(_NEEDLES)),
    Message(role="assistant", content="Gone"),
    Message(role="user", content="Go"),
)
_CALLED = (
    Message(role="user", content="Go"),
    Message(
        role="assistant",
        tool_calls=tuple(
            {"id": f"call_1234567{number}", "function": {"name": "find", "arguments": {needle: "it"}}}
            for number, needle in enumerate(_NEEDLES)
        ),
    ),
    Message(role="tool", content="found", tool_call_id="call_12345670"),
    Message(role="tool", content="found", tool_call_id="call_12345671"),
)
_EXPLAINED = tuple(
    msgspec.structs.replace(message, thinking="Hm", content=" ".join(_NEEDLES))
    if message.tool_calls
    else message
    for message in _CALLED
)


def render_chat(
    text: str,
    messages: Sequence[Message],
    *,
    bos_token: str,
    eos_token: str,
    add_generation_prompt: bool = True,
    tools: Sequence[Mapping[str, Any]] = (),
    think: Think = None,
) -> str:
    """The prompt that a chat template makes of messages. Every failure is a `BadRequest`.

    `think` is on, off, a level, or None where the request says nothing.
    """
    system = any(message.role == "system" for message in messages)
    late = any(after.role == "system" != before.role for before, after in itertools.pairwise(messages))
    calls = any(message.tool_calls for message in messages)
    with rendering_budget():
        variables = {
            **think_values(text, think),
            "messages": message_values(messages, _manners(text, system, late, calls)),
            "tools": list(tools) or None,
            "documents": None,
            "bos_token": bos_token,
            "eos_token": eos_token,
            "add_generation_prompt": add_generation_prompt,
        }
        return run_template(text, variables)


@lru_cache(maxsize=4 * CACHED_TEMPLATES)
def _manners(text: str, system: bool, late: bool, calls: bool) -> Manners:
    """How a template wants a chat that has system turns, some of them later than in front, or calls."""
    plain, parts = Manners(), Manners(parts=True)
    found = _fitting(text, _ASKED, (plain, parts)) or plain
    if system:
        told = (found, parts, msgspec.structs.replace(found, system_in_user=True))
        found = _fitting(text, _TOLD, told) or found
    if late:
        told_late = (found, msgspec.structs.replace(found, late_in_user=True))
        found = _fitting(text, _TOLD_LATE, told_late) or found
    if calls:
        switches = itertools.product((False, True), repeat=5)
        called = (
            msgspec.structs.replace(
                found,
                calls_alone=alone,
                one_call=one,
                parts=found.parts or parts,
                short_ids=short,
                text_arguments=text_arguments,
            )
            for alone, one, parts, short, text_arguments in switches
        )
        found = _fitting(text, _CALLED, called) or found
        explained = (found, msgspec.structs.replace(found, one_text=True))
        found = _fitting(text, _EXPLAINED, explained) or found
    return found


def _fitting(text: str, messages: Sequence[Message], forms: Iterable[Manners]) -> Manners | None:
    """The first form in which a template takes messages."""
    return next((form for form in forms if _takes(text, messages, form)), None)


def _takes(text: str, messages: Sequence[Message], form: Manners) -> bool:
    """Whether the needles get into the prompt, and not as the keys of a dict that Python has printed."""
    variables = {
        "messages": message_values(messages, form),
        "tools": [_TOOL],
        "documents": None,
        "bos_token": "",
        "eos_token": "",
        "add_generation_prompt": True,
    }
    try:
        said = run_template(text, variables)
    except OutOfTime:
        raise
    except BadRequest:
        return False
    return all(needle in said and f"{{'{needle}'" not in said for needle in _NEEDLES)
