"""Constraints over whole outputs: thoughts, content, calls, and what runs over their borders."""

from __future__ import annotations

import numpy as np
import pytest

from corectl.errors import BadRequest, EngineError, NotSupported
from corectl.messages import Grammar
from corectl.output.dialect import OutputShape
from tests.core.constrain_kit import (
    END,
    JSON,
    PLAIN,
    SPECIAL,
    KitTokenizer,
    codes,
    constrain,
    with_thought,
)


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
