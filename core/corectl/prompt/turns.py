"""Chats put differently, with nothing lost, for templates that do not know every kind of turn."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from corectl.messages import Message

_THOUGHT = re.compile(r"\s*<think>.*?</think>\s*", re.DOTALL)


def called_function(call: Mapping[str, Any]) -> Mapping[str, Any]:
    """The `function` of a tool call, empty where a client sent none."""
    function = call.get("function")
    return function if isinstance(function, Mapping) else {}


def with_call_ids(messages: Sequence[Message]) -> list[Message]:
    """Every call with an identifier, and every tool result with the name and the identifier of its call.

    That is the call of the turn before which the result names, else the first that has no result yet.
    """
    made: list[Message] = []
    waiting: dict[str, str] = {}
    numbers = itertools.count()
    for message in messages:
        if message.tool_calls:
            calls = tuple({**call, "id": _id(call, numbers)} for call in message.tool_calls)
            waiting = {call["id"]: str(called_function(call).get("name") or "") for call in calls}
            message = msgspec.structs.replace(message, tool_calls=calls)
        elif message.role == "tool":
            id = _answered(message, waiting)
            name = waiting.pop(id, "")
            message = msgspec.structs.replace(
                message, tool_call_id=message.tool_call_id or id, tool_name=message.tool_name or name
            )
        made.append(message)
    return made


def _id(call: Mapping[str, Any], numbers: itertools.count[int]) -> str:
    given = call.get("id")
    return given if isinstance(given, str) and given else f"call{next(numbers):05}"


def _answered(result: Message, waiting: Mapping[str, str]) -> str:
    """The identifier of the call that a result belongs to, or nothing."""
    if result.tool_call_id:
        return result.tool_call_id
    fits = (id for id, name in waiting.items() if result.tool_name in ("", name))
    return next(fits, "")


def without_past_thoughts(messages: Sequence[Message]) -> list[Message]:
    """The model's turns before the user's last one without the `<think>` block that their content begins with."""
    last = max((at for at, message in enumerate(messages) if message.role == "user"), default=0)
    return [
        msgspec.structs.replace(message, content=_THOUGHT.sub("", message.content, count=1))
        if at < last and message.role == "assistant" and _THOUGHT.match(message.content)
        else message
        for at, message in enumerate(messages)
    ]


def system_in_user(messages: Sequence[Message]) -> list[Message]:
    """The system texts in front of a chat as the beginning of the user's first turn."""
    told = list(itertools.takewhile(lambda message: message.role == "system", messages))
    rest = list(messages[len(told) :])
    text = "\n\n".join(message.content for message in told)
    if text and rest and rest[0].role == "user":
        rest[0] = msgspec.structs.replace(rest[0], content=f"{text}\n\n{rest[0].content}")
        return rest
    return [Message(role="user", content=text), *rest] if text else rest


def late_system_in_user(messages: Sequence[Message]) -> list[Message]:
    """System texts that come later than in front as the user's, and neighbours of the user's that this makes as one."""
    made = list(itertools.takewhile(lambda message: message.role == "system", messages))
    for message in messages[len(made) :]:
        late = message.role == "system"
        turn = msgspec.structs.replace(message, role="user") if late else message
        if made and turn.role == made[-1].role == "user":
            made[-1] = msgspec.structs.replace(
                made[-1],
                content="\n\n".join(filter(None, (made[-1].content, turn.content))),
                images=(*made[-1].images, *turn.images),
            )
        else:
            made.append(turn)
    return made


def content_in_thought(message: Message) -> Message:
    """A turn with calls, a thought and content: the content as the end of the thought. Others as they are."""
    if not (message.tool_calls and message.thinking and message.content):
        return message
    thinking = f"{message.thinking}\n\n{message.content}"
    return msgspec.structs.replace(message, thinking=thinking, content="")


def one_call_a_turn(messages: Sequence[Message]) -> list[Message]:
    """Each of several calls in one turn as a turn of its own, followed by its result. Calls have identifiers."""
    made: list[Message] = []
    at = 0
    while at < len(messages):
        message = messages[at]
        at += 1
        if len(message.tool_calls) < 2:
            made.append(message)
            continue
        results = list(itertools.takewhile(lambda later: later.role == "tool", messages[at:]))
        at += len(results)
        made.extend(_apart(message, results))
    return made


def _apart(turn: Message, results: list[Message]) -> list[Message]:
    made: list[Message] = []
    left = results
    for number, call in enumerate(turn.tool_calls):
        first = turn if number == 0 else Message(role=turn.role)
        made.append(msgspec.structs.replace(first, tool_calls=(call,)))
        made += [result for result in left if result.tool_call_id == call["id"]]
        left = [result for result in left if result.tool_call_id != call["id"]]
    return made + left
