"""Constraints over whole outputs: thoughts, content, calls, and what runs over their borders."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import numpy as np
import pytest

from corectl.errors import BadRequest, EngineError, NotSupported
from corectl.messages import Grammar, ToolChoice
from corectl.output.dialect import OutputShape, Tags
from tests.core.constrain_kit import END, KitTokenizer, Writer, constrain

THINK = Tags("<think>", "</think>")
JSON = Grammar(kind="json")
REQUIRED = ToolChoice(mode="required")
ONE_CALL = ToolChoice(parallel=False)
WORDS = (
    *(
        "<think>",
        "</think>",
        "</",
        "think",
        ">\n",
        ">\n\n",
        ">no",
        "\n\n",
        '{"',
        '{"a',
        "<tool_call>",
        "call>{",
    ),
    *("call>\n", "call>x", '"}', "ü", '["'),
)
PLAIN = KitTokenizer(WORDS)
SPECIAL = KitTokenizer(
    ("\n\n", '{"'), ("<think>", "</think>", "<tool_call>", "</tool_call>", "<|channel|>", "<|message|>")
)
CALL = 'call: "{\\"city\\": " %json {"type": "string", "maxLength": 8} "}"\n'
TOOLS = OutputShape(
    call_openers=("<tool_call>",),
    calls=f'calls: one (WS one)*\none: "<tool_call>" WS call WS "</tool_call>"\nWS: /\\n?/\n{CALL}',
    markers=("<tool_call>", "</tool_call>"),
)
BARE_TOOLS = OutputShape(first_openers=("{",), calls=f'calls: call (";" call)*\n{CALL}')
PARIS = '<tool_call>\n{"city": "Paris"}\n</tool_call>'


def with_thought(shape: OutputShape = TOOLS, *, begun: bool = False) -> OutputShape:
    fields = {name: getattr(shape, name) for name in shape.__struct_fields__}
    markers = (*shape.markers, THINK.open, THINK.close)
    return OutputShape(**{**fields, "thought": THINK, "in_thought": begun, "markers": markers})


def codes(writer: Writer) -> list[str]:
    assert writer.constraint is not None
    return [notice.code for notice in writer.constraint.notices]


@pytest.mark.parametrize(
    "shape", [OutputShape(), with_thought(OutputShape()), with_thought(OutputShape(), begun=True)]
)
def test_nothing_to_enforce(shape: OutputShape) -> None:
    assert constrain(shape, PLAIN).constraint is None


# Content


def test_content_follows_the_grammar_and_then_ends() -> None:
    writer = constrain(OutputShape(), PLAIN, grammar=JSON)
    assert not writer.may_end() and not writer.may_write("\n") and not writer.may_write("[")
    writer.write('{"a": [1, true, {"b": "ü"}]')
    assert not writer.may_end()
    writer.write("}")
    assert writer.must_end()
    assert writer.take(END)


def test_what_stands_in_front_of_content() -> None:
    shape = OutputShape(content_open="<|channel|>final<|message|>")
    writer = constrain(shape, SPECIAL, grammar=JSON)
    assert not writer.may_write("{")
    writer.write(["<|channel|>", *"final", "<|message|>", '{"'])
    writer.write('x": 1}')
    assert writer.must_end()


def test_a_token_that_is_not_allowed_fails_the_sequence() -> None:
    writer = constrain(OutputShape(), PLAIN, grammar=JSON)
    assert writer.constraint is not None
    with pytest.raises(EngineError, match="left its grammar"):
        writer.constraint.accept(PLAIN.spell(b"[")[0])


def test_an_end_before_the_grammar_is_complete_fails_the_sequence() -> None:
    writer = constrain(OutputShape(), PLAIN, grammar=JSON)
    writer.write("{")
    assert writer.constraint is not None
    with pytest.raises(EngineError):
        writer.constraint.accept(END)


def test_a_grammar_that_breaks_down_later_fails_closed() -> None:
    recursive = Grammar(kind="lark", text='start: a\na: "x" a "y" | "x" a | "x"')
    writer = constrain(OutputShape(), PLAIN, grammar=recursive)
    with pytest.raises(
        BadRequest, match=r"enforced any further: too complex \(Parser Error: Current row has"
    ):
        writer.write("x" * 5000)
    assert 100 < len(writer.text) < 5000


@pytest.mark.parametrize(
    ("kind", "text", "good", "bad"),
    [
        ("regex", r"[a-z]{2}/\d+", "ab/12", "abc"),
        ("regex", "ja|nein", "nein", "neun"),
        ("lark", 'start: "a" B+\nB: /[0-9]/', "a12", "ab"),
        ("lark", 'start: "x" %json {"type": "integer"}', "x-5", 'x"'),
        ("gbnf", 'root ::= ("yes" | "no") mark\nmark ::= [.!]', "yes!", "yes?"),
    ],
)
def test_other_kinds_of_grammars(kind: str, text: str, good: str, bad: str) -> None:
    grammar = Grammar(kind=kind, text=text)
    writer = constrain(OutputShape(), PLAIN, grammar=grammar)
    writer.write(good)
    assert writer.may_end()
    writer = constrain(OutputShape(), PLAIN, grammar=grammar)
    with pytest.raises(AssertionError, match="is refused"):
        writer.write(bad)


# Thoughts


def test_a_thought_is_free_and_the_grammar_follows_it() -> None:
    writer = constrain(with_thought(OutputShape(), begun=True), PLAIN, grammar=JSON)
    writer.write('Hm, {"no json": <b> </thin </think')
    assert not writer.may_end()
    writer.write(">")
    assert not writer.may_write("a") and not writer.may_end()
    writer.write('{"a":1}')
    assert writer.must_end()


def test_whether_there_is_a_thought_is_up_to_the_model() -> None:
    shape = with_thought(OutputShape())
    writer = constrain(shape, PLAIN, grammar=JSON)
    assert writer.may_write("<") and writer.may_write("{") and not writer.may_write("a")
    writer.write("<think>so</think>{}")
    assert writer.must_end()
    writer = constrain(shape, PLAIN, grammar=JSON)
    writer.write("{")
    assert not writer.may_write("<")
    writer.write("}")
    assert writer.must_end()


def test_tags_that_are_control_tokens() -> None:
    writer = constrain(with_thought(OutputShape()), SPECIAL, grammar=JSON)
    assert not writer.may_write("<")
    writer.write(["<think>", "a", "</think>", "{", "}"])
    assert writer.must_end()


def test_a_few_line_breaks_may_stand_after_a_thought() -> None:
    writer = constrain(with_thought(OutputShape(), begun=True), PLAIN, grammar=JSON)
    writer.write(["</think>", "\n\n", "\n"])
    assert not writer.may_write("\n") and not writer.may_write(" ") and writer.may_write("{")


def test_a_token_that_runs_over_the_end_of_a_thought() -> None:
    writer = constrain(with_thought(OutputShape(), begun=True), PLAIN, grammar=JSON)
    writer.write(["a", "</", "think"])
    assert writer.may_write(">\n") and not writer.may_write(">no")
    writer.write([">\n", "{", "}"])
    assert writer.must_end()
    free = constrain(with_thought(OutputShape(), begun=True), PLAIN, think_budget=9)
    free.write(["</", "think", ">no"])
    assert free.may_end() and free.may_write("x")


def test_a_thought_ends_when_its_budget_is_used_up() -> None:
    writer = constrain(with_thought(OutputShape(), begun=True), PLAIN, grammar=JSON, think_budget=3)
    writer.write("abc")
    assert codes(writer) == ["thinking_budget"]
    assert not writer.may_write("d") and writer.may_write("</think>") and writer.may_write("<")
    writer.write("</think>{}")
    assert writer.must_end() and codes(writer) == ["thinking_budget"]


def test_a_thought_that_ends_in_time_has_no_notice() -> None:
    writer = constrain(with_thought(OutputShape()), PLAIN, think_budget=3)
    writer.write(["<think>", "a", "b", "</think>"])
    writer.write("and free text, with </think> in it")
    assert writer.may_end() and codes(writer) == []


def test_a_budget_never_splits_a_character() -> None:
    bytes_only = KitTokenizer()
    writer = constrain(with_thought(OutputShape(), begun=True), bytes_only, think_budget=2)
    assert writer.take(bytes_only.spell(b"a")[0])
    for byte in "🦙".encode():
        assert codes(writer) == []
        assert writer.take(bytes_only.spell(bytes([byte]))[0])
    assert codes(writer) == ["thinking_budget"]
    assert writer.allowed() == set(bytes_only.spell(b"<"))


def test_no_budget_at_all() -> None:
    writer = constrain(with_thought(OutputShape(), begun=True), SPECIAL, think_budget=0)
    assert writer.allowed() == set(SPECIAL.spell(b"</think>"))
    writer = constrain(with_thought(OutputShape()), SPECIAL, think_budget=0)
    writer.write(["<think>"])
    assert writer.allowed() == set(SPECIAL.spell(b"</think>"))
    writer.write(["</think>", "x"])
    assert writer.may_end()


def test_no_budget_for_a_thought_whose_tag_is_spelled() -> None:
    """The line break that comes with the tag's last token is no part of what must come next."""
    writer = constrain(with_thought(OutputShape()), PLAIN, think_budget=0)
    writer.write(["<", "think", ">\n"])
    assert writer.allowed() == {token for token in writer.allowed() if PLAIN.piece(token).startswith(b"<")}
    writer.write("</think>x")
    assert writer.may_end()


def test_text_that_only_looks_like_a_thought_at_first() -> None:
    writer = constrain(with_thought(OutputShape()), PLAIN, think_budget=1)
    writer.write("<thing> and <think> later")
    assert writer.may_end() and codes(writer) == []


# Calls


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


def test_a_vocabulary_without_an_end() -> None:
    class Endless(KitTokenizer):
        def is_end(self, token: int) -> bool:
            return False

    with pytest.raises(NotSupported, match="no end token"):
        constrain(OutputShape(), Endless(), grammar=JSON)


def test_an_end_token_with_text_is_not_allowed_in_a_string() -> None:
    class Odd(KitTokenizer):
        def is_end(self, token: int) -> bool:
            return token == END or self._pieces[token] == b"</s>"

    tokenizer = Odd(("</s>",))
    writer = constrain(OutputShape(), tokenizer, grammar=JSON)
    writer.write('{"a": "')
    assert not writer.may_write("</s>")
    writer.write('"}')
    assert writer.allowed() == {END, tokenizer.size - 1}


def test_masks_leave_other_logits_alone() -> None:
    writer = constrain(OutputShape(), PLAIN, grammar=JSON)
    assert writer.constraint is not None
    logits = np.arange(PLAIN.size, dtype=np.float32)
    writer.constraint.mask(logits)
    kept = np.isfinite(logits)
    assert kept.any() and np.array_equal(logits[kept], np.arange(PLAIN.size, dtype=np.float32)[kept])
    assert (logits[~kept] == -np.inf).all()
