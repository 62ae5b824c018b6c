"""What chat templates get to see: messages in the form that each wants, and how much to think."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from corectl.errors import BadRequest
from corectl.messages import Message, Think
from corectl.prompt import budget
from corectl.prompt.jinja import render_chat
from tests.conftest import DATA
from tests.core.families import FAMILIES

SHOW = "{% for m in messages %}{{ m | tojson }}\n{% endfor %}"


def run(text: str, *messages: Message, **options: Any) -> str:
    return render_chat(text, messages, bos_token="<s>", eos_token="</s>", **options)


def shown(*messages: Message) -> list[dict[str, Any]]:
    """Messages as a template sees them that takes any form."""
    return [json.loads(line) for line in run(SHOW, *messages).splitlines()]


def user(text: str) -> Message:
    return Message(role="user", content=text)


def calling(*names: str, ids: tuple[str, ...] = (), **given: Any) -> Message:
    calls = tuple(
        {**({"id": id} if id else {}), "function": {"name": name, "arguments": {"x": 1}}}
        for name, id in zip(names, ids or ("",) * len(names), strict=True)
    )
    return Message(role="assistant", tool_calls=calls, **given)


def result(text: str, name: str = "", id: str = "") -> Message:
    return Message(role="tool", content=text, tool_name=name, tool_call_id=id)


def test_a_message_has_only_what_is_set() -> None:
    assert shown(Message(role="user", content="A", images=("aGk=",))) == [{"role": "user", "content": "A"}]


def test_a_thought_goes_by_all_its_names() -> None:
    names = {"thinking", "reasoning_content", "reasoning", "thought"}
    (said,) = shown(Message(role="assistant", content="A", thinking="T"))
    assert said == {"role": "assistant", "content": "A", **dict.fromkeys(names, "T")}
    (called,) = shown(calling("f", thinking="T"))
    assert called["tool_plan"] == called["thinking"] == "T"


def test_a_call_gets_an_identifier_and_its_result_the_same_one_and_a_name() -> None:
    called, first, second, again, last = shown(
        calling("f", "g"), result("1"), result("2"), calling("f", ids=("mine",)), result("3")
    )
    assert called["tool_calls"] == [
        {"type": "function", "id": id, "function": {"name": name, "arguments": {"x": 1}}}
        for name, id in (("f", "call00000"), ("g", "call00001"))
    ]
    assert (first["name"], first["tool_call_id"]) == ("f", "call00000")
    assert (second["name"], second["tool_call_id"]) == ("g", "call00001")
    assert again["tool_calls"][0]["id"] == "mine"
    assert (last["name"], last["tool_call_id"]) == ("f", "mine")


@pytest.mark.parametrize(
    ("results", "answered"),
    [
        ((result("2", name="g"), result("1", name="f")), ["b", "a"]),
        ((result("2", id="b"), result("1")), ["b", "a"]),
        ((result("?", id="other"), result("1", name="nope")), ["other", None]),
        ((result("1"), result("2"), result("3")), ["a", "b", None]),
    ],
)
def test_a_result_finds_its_call(results: tuple[Message, ...], answered: list[str | None]) -> None:
    messages = shown(calling("f", "g", ids=("a", "b")), *results)
    assert [message.get("tool_call_id") for message in messages[1:]] == answered


@pytest.mark.parametrize("function", [None, "f", [], {}, {"name": None}])
def test_a_broken_call_breaks_nothing(function: Any) -> None:
    call = {"id": 7} if function is None else {"id": 7, "function": function}
    (called,) = shown(Message(role="assistant", tool_calls=(call,)))
    assert called["tool_calls"][0]["id"] == "call00000"
    assert called["tool_calls"][0]["function"]["arguments"] == {}


def test_identifiers_are_shortened_where_a_template_insists() -> None:
    chat = (user("Go"), calling("f", ids=("call_abcdefgh",)), result("1", id="call_abcdefgh"))
    tools = [{"type": "function", "function": {"name": "f", "description": "F", "parameters": {}}}]
    said = run(FAMILIES["mistral-nemo"], *chat, tools=tools)
    short = said.partition('"id": "')[2][:9]
    assert short.isalnum() and f'"call_id": "{short}"' in said
    kept = (user("Go"), calling("f", ids=("abcDEF123",)), result("1"))
    assert run(FAMILIES["mistral-nemo"], *kept).count('"abcDEF123"') == 2


def test_arguments_become_text_where_a_template_adds_them_to_text() -> None:
    said = run(FAMILIES["deepseek-r1"], user("Go"), calling("f"), result("1"))
    assert '```json\n{"x": 1}\n```' in said
    printed = (
        "{% for m in messages %}{{ m.content }}"
        "{% for c in m.tool_calls %}{{ c.function.arguments }}{% endfor %}{% endfor %}"
    )
    assert run(printed, user("Go"), calling("f")) == 'Go{"x": 1}'


def test_turns_with_calls_have_no_content_where_a_template_asks_for_none() -> None:
    """As DeepSeek-R1's first template does, whose calls are text that is put together."""
    text = (
        "{% for m in messages %}"
        "{% if m.role == 'assistant' and m.content is none %}"
        "{% for c in m.tool_calls %}{{ '[' + c.function.name + c.function.arguments + ']' }}{% endfor %}"
        "{% elif m.content %}{{ m.role[0] + ':' + m.content + ';' }}{% endif %}"
        "{% endfor %}"
    )
    assert run(text, user("Go"), calling("f"), result("1")) == 'u:Go;[f{"x": 1}]t:1;'
    said = calling("f", "g", content="I look.")
    assert run(text, user("Go"), said, result("1")) == 'u:Go;a:I look.;[f{"x": 1}][g{"x": 1}]t:1;'


def test_content_becomes_parts_where_a_template_wants_only_those() -> None:
    text = (
        "{% for m in messages %}{% for part in m.content %}"
        "{% if part.type == 'text' %}<{{ part.text }}>{% endif %}{% endfor %}{% endfor %}"
    )
    assert run(text, user("Hi"), user("you")) == "<Hi><you>"
    mixed = "{{ messages[0].content[0].text }}|{{ messages[1].content[0].text or messages[1].content }}"
    assert run(mixed, Message(role="system", content="S"), user("Hi")) == "S|Hi"


@pytest.mark.parametrize("family", ["gemma2", "mistral-v1"])
def test_the_system_text_goes_into_the_users_turn_where_there_is_no_other_place(family: str) -> None:
    said = run(FAMILIES[family], Message(role="system", content="Be kind."), user("Hi"))
    assert "Be kind.\n\nHi" in said
    assert "Be kind." in run(FAMILIES[family], Message(role="system", content="Be kind."))


def test_a_template_that_drops_system_texts_gets_them_in_the_users_turn() -> None:
    text = "{% for m in messages if m.role != 'system' %}{{ m.content }}{% endfor %}"
    told = (Message(role="system", content="A"), Message(role="system", content="B"))
    assert run(text, *told, user("Hi")) == "A\n\nB\n\nHi"


def test_calls_become_turns_of_their_own_where_one_is_all_that_a_turn_can_have() -> None:
    chat = (
        user("Go"),
        calling("f", "g", ids=("a", "b"), content="So"),
        result("2", id="b"),
        result("1", id="a"),
    )
    said = run(FAMILIES["llama3.1"], *chat)
    places = [said.index(part) for part in ('{"name": "f"', '"1"', '{"name": "g"', '"2"')]
    assert places == sorted(places)
    # One that shows only the first call would lose the others.
    shows_first = (
        "{% for m in messages %}{{ m.content }}{% if m.tool_calls %}({{ m.tool_calls[0].function.name }}"
        "{{ m.tool_calls[0].function.arguments | tojson }}){% endif %}{% endfor %}"
    )
    assert run(shows_first, *chat) == 'GoSo(f{"x": 1})1(g{"x": 1})2'


def test_content_joins_the_thought_where_a_call_can_have_only_one_of_them() -> None:
    chat = (user("Go"), calling("f", thinking="Hm.", content="Let me look."), result("1"))
    assert "<|channel|>analysis<|message|>Hm.\n\nLet me look.<|end|>" in run(FAMILIES["gpt-oss"], *chat)
    said = run(FAMILIES["qwen3"], *chat)
    assert "<think>\nHm.\n</think>\n\nLet me look." in said


@pytest.mark.parametrize(
    ("text", "think", "output"),
    [
        ("{{ enable_thinking is defined }}{{ thinking is defined }}", None, "FalseFalse"),
        ("{{ enable_thinking }}{{ thinking }}{{ reasoning }}", True, "TrueTrueTrue"),
        ("{{ enable_thinking }}{{ thinking }}{{ thinking_budget }}", False, "FalseFalse0"),
        ("{{ enable_thinking }}{{ reasoning_effort }}", "low", "Truelow"),
        ("{{ reasoning_effort | default('medium') }}", True, "medium"),
        ("{{ reasoning_effort | default('medium') }}", "max", "high"),
        (
            "{% if reasoning_effort in ('xhigh', 'medium', 'low') %}{{ reasoning_effort }}{% endif %}",
            "high",
            "xhigh",
        ),
        (
            "{% if reasoning_effort in ('xhigh', 'medium', 'low') %}{{ reasoning_effort }}{% endif %}",
            "max",
            "xhigh",
        ),
        ("{% if reasoning_effort in ('high', 'max') %}{{ reasoning_effort }}{% endif %}", "max", "max"),
        ("{% if reasoning_effort in ('high', 'max') %}{{ reasoning_effort }}{% endif %}", "low", "high"),
        ("{{ reasoning_strength }}", "medium", "medium"),
    ],
)
def test_how_much_to_think(text: str, think: Think, output: str) -> None:
    assert run(text, think=think) == output


def test_finding_out_the_form_is_within_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "MAX_SECONDS", 0.2)
    slow = "{% for x in range(99999) %}{% for y in range(99999) %}{% endfor %}{% endfor %}{{ messages[0].content }}"
    with pytest.raises(BadRequest, match="takes too much time"):
        run(slow, user("Hi"), calling("f"), result("1"))


@pytest.mark.parametrize("path", sorted((DATA / "templates").glob("*.jinja")), ids=lambda path: path.stem)
def test_a_system_turn_later_than_in_front_is_seen_by_every_family(path: Path) -> None:
    late = Message(role="system", content="Mind the gap.")
    text = path.read_text("utf-8")
    said = run(text, user("Go"), late, Message(role="assistant", content="Gone"), user("Again"))
    assert said.index("Mind the gap.") < said.index("Gone") < said.index("Again")
    assert "Mind the gap." in run(text, user("Go"), late)
