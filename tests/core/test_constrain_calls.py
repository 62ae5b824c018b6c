"""Constraints on calls: where they begin, what they may be, and what may follow them."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from corectl.errors import BadRequest, NotSupported
from corectl.messages import Grammar, ToolChoice
from corectl.output.dialect import OutputShape
from tests.core.constrain_kit import (
    BARE_TOOLS,
    END,
    JSON,
    ONE_CALL,
    PARIS,
    PLAIN,
    REQUIRED,
    SPECIAL,
    TOOLS,
    KitTokenizer,
    codes,
    constrain,
    with_thought,
)


def tool_text(**arguments: Any) -> str:
    return f"<tool_call>\n{json.dumps(arguments)}\n</tool_call>"


@pytest.mark.parametrize("tokenizer", [PLAIN, SPECIAL], ids=["text", "control tokens"])
def test_the_model_may_call_and_then_obeys_the_schema(tokenizer: KitTokenizer) -> None:
    writer = constrain(TOOLS, tokenizer)
    assert writer.may_end()
    writer.write("Let me see. <tool_ca no. <tool_call>\n")
    assert not writer.may_end() and not writer.may_write("[")
    writer.write('{"city": "')
    writer.write("Paris")
    assert not writer.may_end()
    writer.write('"}\n</tool_call>')
    assert writer.may_end()


@pytest.mark.parametrize("tokenizer", [PLAIN, SPECIAL], ids=["text", "control tokens"])
def test_after_a_call_there_may_be_more_and_it_is_held_to_the_schema(tokenizer: KitTokenizer) -> None:
    for between in ("", "\n", "\n\n", " and then "):
        writer = constrain(TOOLS, tokenizer)
        writer.write(PARIS + between)
        assert writer.may_end() and writer.may_write("x")
        writer.write("<tool_call>")
        assert not writer.may_end() and not writer.may_write("x")
        writer.write(PARIS.removeprefix("<tool_call>"))
        assert writer.may_end()


@pytest.mark.parametrize("tokenizer", [PLAIN, SPECIAL], ids=["text", "control tokens"])
def test_one_call_at_most(tokenizer: KitTokenizer) -> None:
    calls = TOOLS.calls.replace("one (WS one)*", "one")
    shape = msgspec.structs.replace(TOOLS, calls=calls)
    writer = constrain(shape, tokenizer, choice=ONE_CALL)
    writer.write(PARIS + "\nDone. <tool_call")
    assert writer.may_end() and not writer.may_write(">") and not writer.may_write(">\n")
    writer = constrain(shape, tokenizer, choice=ONE_CALL)
    writer.write(PARIS)
    assert not writer.may_write("<tool_call>")


def test_a_token_that_runs_over_an_opener_must_fit_the_call() -> None:
    for rest, fits in (("call>", True), ("call>\n", True), ("call>{", True), ("call>x", False)):
        tokenizer = KitTokenizer(("<tool_", rest))
        writer = constrain(TOOLS, tokenizer)
        writer.write(["<tool_"])
        assert writer.may_write(rest) is fits


def test_what_looks_like_a_call_in_a_thought_is_none() -> None:
    writer = constrain(with_thought(), PLAIN)
    writer.write("<think>I could <tool_call> nothing</think>\n\n")
    assert writer.may_end()
    writer.write("<tool_call>")
    assert not writer.may_end() and not writer.may_write("x")


def test_openers_that_only_count_at_the_beginning() -> None:
    writer = constrain(BARE_TOOLS, PLAIN)
    assert not writer.may_write('["') or writer.may_end()
    writer.write("A brace { is text, \n{")
    assert writer.may_end() and writer.may_write("x")
    writer = constrain(BARE_TOOLS, PLAIN)
    assert not writer.may_write('{"a') and writer.may_write('{"')
    writer.write('\n{"city": "Rome"}')
    assert writer.may_end()
    writer.write(";")
    assert not writer.may_end() and writer.may_write("{") and not writer.may_write("x")


def test_control_tokens_that_no_reader_sees_are_nothing() -> None:
    """Llama 3.1 writes one in front of its calls."""
    tokenizer = KitTokenizer(('{"', '{"a'), ("<|python_tag|>", "<tool_call>", "</tool_call>"))
    writer = constrain(BARE_TOOLS, tokenizer)
    writer.write(["<|python_tag|>"])
    assert writer.may_end() and writer.may_write("x") and not writer.may_write('{"a')
    writer.write('{"city": "Rome"}')
    assert writer.may_end()
    writer.write(["<|python_tag|>", ";", "{"])
    assert not writer.may_end() and not writer.may_write("x")
    writer = constrain(TOOLS, tokenizer)
    writer.write(["<|python_tag|>", "<tool_call>"])
    assert not writer.may_end() and not writer.may_write("x")


def test_one_bare_call_at_most() -> None:
    shape = msgspec.structs.replace(BARE_TOOLS, calls=BARE_TOOLS.calls.replace('(";" call)*', ""))
    writer = constrain(shape, PLAIN, choice=ONE_CALL)
    writer.write('{"city": "Rome"}')
    assert writer.may_end() and not writer.may_write("{")
    writer.write("; ")
    assert writer.may_end() and not writer.may_write("{") and not writer.may_write('{"a')


def test_bare_calls_may_follow_each_other() -> None:
    writer = constrain(BARE_TOOLS, PLAIN)
    writer.write('{"city": "Rome"}\n')
    assert writer.may_end()
    assert not writer.may_write('{"a')
    writer.write('{"city": "Oslo"}')
    assert writer.may_end()


@pytest.mark.parametrize("tokenizer", [PLAIN, SPECIAL], ids=["text", "control tokens"])
def test_a_call_that_is_required(tokenizer: KitTokenizer) -> None:
    writer = constrain(TOOLS, tokenizer, choice=REQUIRED)
    assert writer.allowed() <= {
        token for token in range(tokenizer.size) if tokenizer.piece(token, special=True)[:1] == b"<"
    }
    writer.write(PARIS)
    assert writer.may_end() and not writer.may_write("x") and writer.may_write("<tool_call>")
    writer.write("\n")
    assert writer.may_end() and not writer.may_write("x") and writer.may_write("<tool_call>")


@pytest.mark.parametrize("grammar", [None, JSON])
def test_a_model_that_has_enough_of_calls_is_not_made_to_go_on(grammar: Grammar | None) -> None:
    choice = ToolChoice() if grammar else REQUIRED
    for blanks in ("", "\n"):
        writer = constrain(TOOLS, PLAIN, grammar=grammar, choice=choice)
        assert writer.allowed("x") == writer.allowed("<")
        writer.write(PARIS + blanks)
        assert writer.allowed("x") == {END}
        assert writer.allowed("<tool_call>") == writer.allowed("<") > {END}


def test_a_required_call_may_follow_a_thought() -> None:
    writer = constrain(with_thought(), PLAIN, choice=REQUIRED)
    writer.write("<think>Well, <tool_call>?</think>")
    assert not writer.may_end() and not writer.may_write("x")
    writer.write("\n" + PARIS)
    assert writer.may_end()
    writer = constrain(with_thought(begun=True), PLAIN, choice=REQUIRED, think_budget=2)
    writer.write("ab</think>" + PARIS)
    assert writer.may_end() and codes(writer) == ["thinking_budget"]


def test_a_required_call_is_one_call_if_only_one_may_be() -> None:
    calls = TOOLS.calls.replace("one (WS one)*", "one")
    shape = OutputShape(call_openers=TOOLS.call_openers, calls=calls)
    writer = constrain(shape, SPECIAL, choice=ToolChoice(mode="required", parallel=False))
    writer.write(PARIS)
    assert writer.may_end() and not writer.may_write("<tool_call>") and not writer.may_write("x")
    writer.write("\n" * 8)
    assert writer.must_end()


def test_a_model_that_cannot_be_made_to_call() -> None:
    with pytest.raises(NotSupported, match="tool_choice"):
        constrain(OutputShape(), PLAIN, choice=REQUIRED)


def test_content_and_calls_are_both_held_to_their_grammars() -> None:
    for text in ('{"a": 1}', PARIS):
        writer = constrain(TOOLS, PLAIN, grammar=JSON)
        assert not writer.may_write("x") and not writer.may_end()
        writer.write(text)
        assert writer.may_end() and not writer.may_write("x")


def test_content_and_calls_that_begin_alike() -> None:
    cost = {"type": "object", "properties": {"cost": {"type": "integer"}}, "required": ["cost"]}
    schema = Grammar(kind="schema", text=json.dumps({**cost, "additionalProperties": False}))
    for text in ('{"cost": 3}', '{"city": "Bonn"}'):
        writer = constrain(BARE_TOOLS, KitTokenizer(), grammar=schema)
        writer.write(text)
        assert writer.may_end() and not writer.may_write("x")
    writer = constrain(BARE_TOOLS, KitTokenizer(), grammar=schema)
    writer.write('{"c')
    assert writer.may_write("o") and writer.may_write("i") and not writer.may_write("x")


def test_after_calls_in_place_of_content_blanks_do_not_force_another() -> None:
    writer = constrain(TOOLS, PLAIN, grammar=JSON)
    writer.write(PARIS + "\n")
    assert writer.may_end() and writer.may_write("<tool_call>") and not writer.may_write("x")


def test_a_grammar_of_calls_that_does_not_compile_is_refused() -> None:
    with pytest.raises(BadRequest, match="tools: the grammar cannot be enforced"):
        constrain(OutputShape(call_openers=("x",), calls="calls: nothing"), PLAIN)
