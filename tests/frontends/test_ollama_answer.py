"""How events become the objects of a reply."""

from __future__ import annotations

import json
from typing import Any

import pytest

from corectl.errors import BadRequest
from corectl.messages import (
    Delta,
    Finish,
    Fit,
    Grammar,
    Logprob,
    Notice,
    TokenLogprob,
    ToolCallDelta,
    ToolChoice,
    Usage,
)
from corectl.server.context import Clock
from corectl.server.fields import read_tool_choice, read_tools
from corectl_ollama.answer import Answer
from corectl_ollama.chat import ChatForm
from corectl_ollama.generate import GenerateForm
from corectl_ollama.schema import read_grammar

LOGPROB = Logprob(TokenLogprob("a", -0.5, b"a"), ())
NOTICE = Notice(code="tool_call_not_parsed", message="m")


def finish(*notices: Notice) -> Finish:
    return Finish(reason="stop", usage=Usage(), fit=Fit(num_ctx=64), notices=notices)


def lines(answer: Answer, *events: Delta | Finish) -> list[dict[str, Any]]:
    text = b"".join(answer.lines(event) for event in events)
    return [json.loads(line) for line in text.splitlines()]


def chat() -> Answer:
    return Answer(ChatForm("m"), Clock())


def test_thought_content_and_calls_come_in_objects_of_their_own() -> None:
    call = ToolCallDelta(0, "call_1", "f", '{"b": 1, "a": {}}', True)
    first, second, third = lines(chat(), Delta("text", (LOGPROB,), "thought", (call,)))
    assert first["message"] == {"role": "assistant", "content": "", "thinking": "thought"}
    assert len(first["logprobs"]) == 1
    assert second["message"] == {"role": "assistant", "content": "text"} and "logprobs" not in second
    assert third["message"]["tool_calls"] == [
        {"id": "call_1", "function": {"index": 0, "name": "f", "arguments": {"b": 1, "a": {}}}}
    ]
    assert list(third["message"]["tool_calls"][0]["function"]["arguments"]) == ["b", "a"]


def test_each_of_several_calls_has_an_object_of_its_own() -> None:
    calls = tuple(ToolCallDelta(index, f"call_{index}", "f", "{}", True) for index in range(3))
    shown = [one["message"]["tool_calls"] for one in lines(chat(), Delta("", (), "", calls))]
    assert [[call["id"] for call in one] for one in shown] == [["call_0"], ["call_1"], ["call_2"]]


def test_pieces_of_a_call_are_shown_when_it_is_complete() -> None:
    answer = chat()
    assert lines(answer, Delta("", (), "", (ToolCallDelta(0, "call_1", "f"),))) == []
    assert lines(answer, Delta("", (), "", (ToolCallDelta(0, arguments='{"a":'),))) == []
    (shown,) = lines(answer, Delta("", (), "", (ToolCallDelta(0, arguments="1}", done=True),)))
    assert shown["message"]["tool_calls"][0]["function"]["arguments"] == {"a": 1}
    assert "warnings" not in lines(answer, finish())[0]


def test_probabilities_are_shown_with_what_shows_nothing() -> None:
    (shown,) = lines(chat(), Delta("", (LOGPROB,), "", (ToolCallDelta(0, "call_1", "f"),)))
    assert shown["message"] == {"role": "assistant", "content": ""} and len(shown["logprobs"]) == 1


def test_arguments_are_what_the_model_wrote_on_one_line() -> None:
    arguments = '{\n  "n": 123456789012345678901234567890,\n  "x": 1e400, "s": "\\ud83d"\n}'
    text = chat().lines(Delta("", (), "", (ToolCallDelta(0, "call_1", "f", arguments, True),)))
    assert text.count(b"\n") == 1
    assert b'"n": 123456789012345678901234567890,   "x": 1e400, "s": "\\ud83d" }' in text


def test_a_call_that_is_cut_off_is_not_shown() -> None:
    answer = chat()
    assert lines(answer, Delta("", (), "", (ToolCallDelta(0, "call_1", "f", '{"a": "half'),))) == []
    text, final = lines(answer, Delta('{"name": "f", "arguments": {"a": "half'), finish(NOTICE))
    assert text["message"]["content"].endswith("half")
    assert [warning["code"] for warning in final["warnings"]] == [NOTICE.code]


def test_a_generation_shows_its_thought() -> None:
    answer = Answer(GenerateForm("m"), Clock())
    thought, text = lines(answer, Delta("text", (), "thought"))
    assert (thought["response"], thought["thinking"]) == ("", "thought")
    assert text["response"] == "text" and "thinking" not in text


@pytest.mark.parametrize(
    ("format", "grammar", "expected"),
    [
        (None, {}, None),
        ("", {}, None),
        ("json", {}, Grammar(kind="json")),
        ({"type": "string"}, {}, Grammar(kind="schema", text='{"type":"string"}')),
        (None, {"regex": "a+"}, Grammar(kind="regex", text="a+")),
        (None, {"gbnf": 'root ::= "a"'}, Grammar(kind="gbnf", text='root ::= "a"')),
    ],
)
def test_a_grammar_is_read(format: Any, grammar: dict[str, str], expected: Grammar | None) -> None:
    assert read_grammar(format, grammar) == expected


@pytest.mark.parametrize(
    ("format", "grammar", "error"),
    [
        ("yaml", {}, r'invalid format: "\"yaml\""; expected "json"'),
        (5, {}, 'invalid format: "5"'),
        (None, {"regex": "a", "lark": "b"}, "grammar must have exactly one of regex, lark, gbnf"),
        (None, {"ebnf": "a"}, "grammar must have exactly one of"),
        ("json", {"regex": "a"}, "format and grammar cannot be used together"),
    ],
)
def test_a_grammar_that_is_none_is_refused(format: Any, grammar: dict[str, str], error: str) -> None:
    with pytest.raises(BadRequest) as caught:
        read_grammar(format, grammar)
    assert error in caught.value.message


def test_a_tool_choice_is_read() -> None:
    tools = [{"function": {"name": "f"}}]
    assert read_tool_choice(None, []) == ToolChoice()
    assert read_tool_choice("none", tools) == ToolChoice(mode="none")
    assert read_tool_choice("required", tools) == ToolChoice(mode="required")
    named = {"type": "function", "function": {"name": "f"}}
    assert read_tool_choice(named, tools) == ToolChoice(mode="required", name="f")


@pytest.mark.parametrize("value", ["some", 1, {"function": {}}, {"function": "f"}, {}, []])
def test_a_tool_choice_that_is_none_is_refused(value: Any) -> None:
    with pytest.raises(BadRequest, match="tool_choice"):
        read_tool_choice(value, [{"function": {"name": "f"}}])


def test_a_call_cannot_be_required_without_tools() -> None:
    with pytest.raises(BadRequest, match="there are no tools to choose from"):
        read_tool_choice("required", [])


@pytest.mark.parametrize(
    "tool", [{}, {"function": {}}, {"function": {"name": ""}}, {"function": {"name": "f", "parameters": [1]}}]
)
def test_a_tool_that_cannot_be_called_is_refused(tool: dict[str, Any]) -> None:
    with pytest.raises(BadRequest, match=r"tools\[1\]"):
        read_tools([{"function": {"name": "ok"}}, tool])
