"""Chats put differently: nothing may be lost."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from corectl.messages import ChatPrompt, Message, Template
from corectl.prompt.render import render
from corectl.prompt.turns import (
    late_system_in_user,
    one_call_a_turn,
    system_in_user,
    with_call_ids,
    with_tool_names,
    without_past_thoughts,
)

NAMES = st.sampled_from(["", "f", "g", "h"])
CALLS = st.lists(st.builds(lambda name: {"function": {"name": name}}, NAMES), max_size=3)
MESSAGES = st.lists(
    st.builds(
        lambda role, content, calls, name, id: Message(
            role=role,
            content=content,
            tool_calls=tuple(calls) if role == "assistant" else (),
            tool_name=name if role == "tool" else "",
            tool_call_id=id if role == "tool" else "",
        ),
        st.sampled_from(["system", "user", "assistant", "tool", "tool"]),
        st.text(max_size=5),
        CALLS,
        NAMES,
        st.sampled_from(["", "call00000", "call00001", "x"]),
    ),
    max_size=12,
)


@given(MESSAGES)
def test_one_call_a_turn_keeps_all_calls_and_texts_in_order(messages: list[Message]) -> None:
    before = with_call_ids(messages)
    after = one_call_a_turn(before)
    assert all(len(message.tool_calls) < 2 for message in after)
    for role in ("system", "user", "assistant", "tool"):
        texts = [sorted(m.content for m in chat if m.role == role and m.content) for chat in (before, after)]
        assert texts[0] == texts[1]
    assert [c for m in before for c in m.tool_calls] == [c for m in after for c in m.tool_calls]


@given(MESSAGES)
def test_identifiers_are_there_and_given_ones_stay(messages: list[Message]) -> None:
    for before, after in zip(messages, with_call_ids(messages), strict=True):
        assert all(call["id"] for call in after.tool_calls)
        assert not before.tool_call_id or after.tool_call_id == before.tool_call_id
        assert not before.tool_name or after.tool_name == before.tool_name


@given(MESSAGES)
def test_tool_names_are_those_of_the_calls_and_nothing_else_changes(messages: list[Message]) -> None:
    for before, after, known in zip(
        messages, with_tool_names(messages), with_call_ids(messages), strict=True
    ):
        assert after == msgspec.structs.replace(before, tool_name=known.tool_name)


@given(MESSAGES)
def test_system_texts_stay_in_front(messages: list[Message]) -> None:
    after = system_in_user(messages)
    assert not after or after[0].role != "system"
    assert "".join(m.content for m in after).replace("\n", "") == "".join(
        m.content for m in messages
    ).replace("\n", "")


def test_late_system_texts_are_the_users() -> None:
    chat = [
        Message(role=role, content=content)
        for role, content in (
            ("system", "a"),
            ("user", "b"),
            ("system", "c"),
            ("assistant", "d"),
            ("system", "e"),
            ("user", "f"),
        )
    ]
    after = [(message.role, message.content) for message in late_system_in_user(chat)]
    assert after == [("system", "a"), ("user", "b\n\nc"), ("assistant", "d"), ("user", "e\n\nf")]


@pytest.mark.parametrize(
    ("content", "left"),
    [
        ("<think>\na\n</think>\n\nb", "b"),
        (" <think></think>b", "b"),
        ("<think>a</think>b<think>c</think>d", "b<think>c</think>d"),
        ("b<think>a</think>", "b<think>a</think>"),
        ("<think>a", "<think>a"),
        ("</think>b", "</think>b"),
    ],
)
def test_past_thoughts_are_left_out_before_the_users_last_turn(content: str, left: str) -> None:
    said, asked = Message(role="assistant", content=content), Message(role="user", content=content)
    assert [m.content for m in without_past_thoughts([asked, said, asked, said])] == [
        content,
        left,
        content,
        content,
    ]


def test_past_thoughts_in_a_prompt() -> None:
    text = "{{ range .Messages }}[{{ .Content }}]{{ end }}"
    messages = (Message(role="assistant", content="<think>a</think>b"), Message(role="user", content="c"))
    for hides, expected in ((True, "[b][c]"), (False, "[<think>a</think>b][c]")):
        template = Template(kind="go", text=text, hides_past_thoughts=hides)
        assert (
            render(ChatPrompt(template=template, messages=messages), bos_token="", eos_token="") == expected
        )


MANY = 20_000
MANY_CALLS = tuple({"id": f"c{number}", "function": {"name": f"f{number}"}} for number in range(MANY))


@pytest.mark.parametrize(
    ("change", "chat", "turns"),
    [
        (late_system_in_user, [Message(role="user", content="x" * 500, images=("i",))] * MANY, 1),
        (
            with_call_ids,
            [
                Message(role="assistant", tool_calls=MANY_CALLS),
                *(Message(role="tool", tool_name=f"f{number}") for number in reversed(range(MANY))),
            ],
            MANY + 1,
        ),
        (
            one_call_a_turn,
            [
                Message(role="assistant", tool_calls=MANY_CALLS),
                *(Message(role="tool", tool_call_id=f"c{number}") for number in reversed(range(MANY))),
            ],
            2 * MANY,
        ),
    ],
    ids=["late system texts", "results by name", "calls apart"],
)
def test_long_chats_take_no_longer_for_each_turn(
    change: Callable[[Sequence[Message]], list[Message]], chat: list[Message], turns: int
) -> None:
    began = time.thread_time()
    assert len(change(chat)) == turns
    assert time.thread_time() - began < 2
