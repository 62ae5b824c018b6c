"""Prompts from Go templates: which of three ways a template is run depends on the variables that it uses.

With a suffix it is run once with prompt and suffix. A template that uses `.Messages` is run once over all of
them. Any other is older than chats: it renders one turn of system, prompt and response, so it is run once a
turn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from corectl.errors import BadRequest
from corectl.messages import Message
from corectl.prompt.budget import CACHED_TEMPLATES, MAX_CACHED_SOURCE, rendering_budget
from corectl.prompt.go_values import message_value, tool_values
from corectl.prompt.gotemplate import Body, Node, Program, execute, names, parse
from corectl.prompt.gotemplate.nodes import Arm, Branch, Range
from corectl.prompt.gotemplate.values import MAX_OUTPUT
from corectl.prompt.turns import with_tool_names

DEFAULT_TEMPLATE = "{{ .Prompt }}"
_RESPONSE = "{{ .Response }}"

Think = bool | str | None


def vars(text: str) -> set[str]:
    """The lower-case names of all fields that a template uses, with `response` where it is implied."""
    return set(_variables(_program(text)))


def render_messages(
    text: str, messages: Sequence[Message], *, tools: Sequence[Mapping[str, Any]] = (), think: Think = None
) -> str:
    """The prompt for a chat. `think` is on, off, a level, or None where the request says nothing."""
    program = _program(text)
    system, collated = collate(messages)
    if "messages" not in _variables(program):
        with rendering_budget():
            return _render_turns(program, collated, think)
    data = {
        "System": system,
        "Messages": [message_value(message) for message in with_tool_names(collated)],
        "Tools": tool_values(tools),
        "Response": "",
        **_think_values(think),
    }
    return execute(program, data)


def render_text(text: str, prompt: str, *, system: str = "", suffix: str = "", think: Think = None) -> str:
    """The prompt for one text. With a suffix the text between is wanted, and the system text is not used."""
    if prompt and suffix:
        data = {"Prompt": prompt, "Suffix": suffix, "Response": "", **_think_values(think)}
        return execute(_program(text), data)
    turns = [Message(role="system", content=system)] if system else []
    return render_messages(text, [*turns, Message(role="user", content=prompt)], think=think)


def collate(messages: Sequence[Message]) -> tuple[str, tuple[Message, ...]]:
    """All system texts joined, and the messages, neighbours of one role merged. Tool results stay apart."""
    system = "\n\n".join(message.content for message in messages if message.role == "system")
    groups: list[list[Message]] = []
    for message in messages:
        if groups and groups[-1][0].role == message.role != "tool":
            groups[-1].append(message)
        else:
            groups.append([message])
    return system, tuple(_merge(group) for group in groups)


def _merge(messages: list[Message]) -> Message:
    if len(messages) == 1:
        return messages[0]
    return Message(
        role=messages[0].role,
        content="\n\n".join(message.content for message in messages if message.content),
        thinking="\n\n".join(message.thinking for message in messages if message.thinking),
        images=tuple(image for message in messages for image in message.images),
        tool_calls=tuple(call for message in messages for call in message.tool_calls),
    )


def _program(text: str) -> Program:
    return _cached(text) if len(text) <= MAX_CACHED_SOURCE else _parse(text)


def _parse(text: str) -> Program:
    text = text or DEFAULT_TEMPLATE
    program = parse(text)
    # A template that names neither leaves no place for the model's answer, which then goes to the end.
    if not {"messages", "response"} & _variables(program):
        return Program(program.root + parse(_RESPONSE).root, program.templates)
    return program


_cached = lru_cache(maxsize=CACHED_TEMPLATES)(_parse)


def _variables(program: Program) -> frozenset[str]:
    return frozenset(name.lower() for name in names(program))


def _think_values(think: Think) -> dict[str, Any]:
    level = think if isinstance(think, str) else "medium" if think else ""
    return {"Think": bool(think), "ThinkLevel": level, "IsThinkSet": think is not None}


def _render_turns(program: Program, messages: Sequence[Message], think: Think) -> str:
    thinking = _think_values(think)
    slots = {"System": "", "Prompt": "", "Response": ""}
    pieces: list[str] = []
    written = 0

    def render_turn(part: Program) -> None:
        nonlocal written
        pieces.append(execute(part, {**slots, **thinking}))
        written += len(pieces[-1])
        if written > MAX_OUTPUT:
            raise BadRequest("template: the template makes too much text")

    def finish_turn() -> None:
        render_turn(program)
        slots.update(System="", Prompt="", Response="")

    for message in messages:
        match message.role:
            case "system":
                if slots["Prompt"] or slots["Response"]:
                    finish_turn()
                slots["System"] = message.content
            case "user":
                if slots["Response"]:
                    finish_turn()
                slots["Prompt"] = message.content
            case "assistant":
                slots["Response"] = message.content
    # The model goes on where the last turn's response stands, so what the template has after it is left out.
    render_turn(Program(_cut(program.root)[0], program.templates))
    return "".join(pieces)


def _cut(body: Body) -> tuple[Body, bool]:
    """A body without the nodes after the first that uses `.Response`, and whether there was one."""
    kept: list[Node] = []
    for node in body:
        shorter, found = _cut_node(node)
        kept.append(shorter)
        if found:
            return tuple(kept), True
    return tuple(kept), False


def _cut_node(node: Node) -> tuple[Node, bool]:
    # Bodies come before conditions: `{{ if .Response }}` must not remove the response that it guards.
    match node:
        case Branch():
            return _cut_branch(node)
        case Range(pipe, body, otherwise):
            body, found = _cut(body)
            if not found:
                otherwise, found = _cut(otherwise)
            else:
                otherwise = ()
            return Range(pipe, body, otherwise), found or "Response" in names(pipe)
        case _:
            return node, "Response" in names(node)


def _cut_branch(node: Branch) -> tuple[Branch, bool]:
    arms: list[Arm] = []
    for arm in node.arms:
        body, found = _cut(arm.body)
        arms.append(Arm(arm.pipe, body))
        if found:
            return Branch(node.sets_dot, tuple(arms), ()), True
    otherwise, found = _cut(node.otherwise)
    used = found or any("Response" in names(arm.pipe) for arm in node.arms)
    return Branch(node.sets_dot, tuple(arms), otherwise), used
