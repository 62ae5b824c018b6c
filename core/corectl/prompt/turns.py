"""Chats put differently, with nothing lost, for templates that do not know every kind of turn."""

from __future__ import annotations

import itertools
import re
from collections import defaultdict, deque
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
    waiting = _Waiting(())
    numbers = itertools.count()
    for message in messages:
        if message.tool_calls:
            calls = tuple({**call, "id": _id(call, numbers)} for call in message.tool_calls)
            waiting = _Waiting(calls)
            message = msgspec.structs.replace(message, tool_calls=calls)
        elif message.role == "tool":
            id, name = waiting.answered(message)
            message = msgspec.structs.replace(
                message, tool_call_id=message.tool_call_id or id, tool_name=message.tool_name or name
            )
        made.append(message)
    return made


def with_tool_names(messages: Sequence[Message]) -> list[Message]:
    """Every tool result with the name of its call, which is found as `with_call_ids` does."""
    return [
        msgspec.structs.replace(message, tool_name=known.tool_name) if message.role == "tool" else message
        for message, known in zip(messages, with_call_ids(messages), strict=True)
    ]


def _id(call: Mapping[str, Any], numbers: itertools.count[int]) -> str:
    given = call.get("id")
    return given if isinstance(given, str) and given else f"call{next(numbers):05}"


class _Waiting:
    """The calls of a turn that have no result yet."""

    def __init__(self, calls: Sequence[Mapping[str, Any]]) -> None:
        self._names = {call["id"]: str(called_function(call).get("name") or "") for call in calls}
        # A call that has its result stays in here until it is the first, so that many results take no longer each.
        self._by_name: dict[str, deque[str]] = defaultdict(deque)
        for id, name in self._names.items():
            self._by_name[name].append(id)
            if name:
                self._by_name[""].append(id)

    def answered(self, result: Message) -> tuple[str, str]:
        """The identifier and the name of the call that a result belongs to, which waits no longer; or nothing twice."""
        id = result.tool_call_id or self._first(result.tool_name)
        return id, self._names.pop(id, "")

    def _first(self, name: str) -> str:
        """The first call of a function; of any, without a name."""
        ids = self._by_name.get(name, deque())
        while ids and ids[0] not in self._names:
            ids.popleft()
        return ids[0] if ids else ""


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
    asked: list[Message] = []
    for message in messages[len(made) :]:
        if message.role in ("system", "user"):
            asked.append(message)
        else:
            made += [*_as_one(asked), message]
            asked = []
    return made + _as_one(asked)


def _as_one(asked: Sequence[Message]) -> list[Message]:
    """Neighbours of the user's as one turn; none, if there are none."""
    if not asked:
        return []
    first = asked[0]
    return [
        msgspec.structs.replace(
            first,
            role="user",
            content="\n\n".join(turn.content for turn in asked if turn.content),
            images=tuple(image for turn in asked for image in turn.images),
        )
    ]


def content_in_thought(message: Message) -> Message:
    """A turn with calls, a thought and content: the content as the end of the thought. Others as they are."""
    if not (message.tool_calls and message.thinking and message.content):
        return message
    thinking = f"{message.thinking}\n\n{message.content}"
    return msgspec.structs.replace(message, thinking=thinking, content="")


def calls_alone(message: Message) -> list[Message]:
    """A turn with calls and content as two, so that the calls have neither content nor images with them."""
    if not (message.tool_calls and message.content):
        return [message]
    said = msgspec.structs.replace(message, tool_calls=())
    return [said, Message(role=message.role, tool_calls=message.tool_calls)]


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


def _apart(turn: Message, results: Sequence[Message]) -> list[Message]:
    made: list[Message] = []
    by_call: dict[str, list[Message]] = defaultdict(list)
    for result in results:
        by_call[result.tool_call_id].append(result)
    for number, call in enumerate(turn.tool_calls):
        first = turn if number == 0 else Message(role=turn.role)
        made.append(msgspec.structs.replace(first, tool_calls=(call,)))
        made += by_call.pop(call["id"], [])
    return made + [result for result in results if result.tool_call_id in by_call]
