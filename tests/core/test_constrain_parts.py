"""The parts of constraints: vocabularies, masks, watches, grammars in Lark syntax, tools."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from typing import Any

import llguidance
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from corectl.constrain.build import compiler_of
from corectl.constrain.lark import spelled, with_control_tokens
from corectl.constrain.masking import FEW_WORDS, TokenMask
from corectl.constrain.tools import Enforceable, enforceable
from corectl.constrain.vocabulary import Vocabulary
from corectl.constrain.watch import Mark, Marks, Watch
from corectl.messages import Notice, Template, Tool
from corectl.output.dialect import OutputRequest, OutputShape
from corectl.output.plain import PlainDialect
from tests.core.constrain_kit import END, FIRST, KitTokenizer

TOKENIZER = KitTokenizer(("ab", "abc", "\n", "\n\n", "\n\n\n", "ü"), ("<a>", "<ab>"))
VOCABULARY = Vocabulary(TOKENIZER)
A, AB = TOKENIZER.size - 2, TOKENIZER.size - 1


def names(tokens: Sequence[int]) -> list[bytes]:
    return [TOKENIZER.piece(token, special=True) for token in tokens]


# Vocabularies


def test_tokens_of_a_text_with_control_tokens() -> None:
    assert names(VOCABULARY.tokens("abcab<ab>ü<a>x".encode())) == [
        b"abc",
        b"ab",
        b"<ab>",
        "ü".encode(),
        b"<a>",
        b"x",
    ]
    assert names(VOCABULARY.tokens(b"\xff\xc3")) == [b"\xff", b"\xc3"]
    assert VOCABULARY.tokens(b"") == []


def test_a_text_in_parts() -> None:
    assert VOCABULARY.split("x<ab>y<a") == ["x", AB, "y<a"]
    assert VOCABULARY.split("") == []
    assert (VOCABULARY.control("<a>"), VOCABULARY.control("ab")) == (A, None)


def test_finding_tokens_by_their_bytes() -> None:
    assert {piece for _, piece in VOCABULARY.starting(b"ab")} == {b"ab", b"abc"}
    assert list(VOCABULARY.starting(b"abcd")) == []
    assert [piece for _, piece in VOCABULARY.containing(b"bc")] == [b"abc"]
    assert VOCABULARY.containing(b"<a>") == [(A, b"<a>")]
    assert sorted(names(VOCABULARY.line_breaks.tolist())) == [b"\n", b"\n", b"\n\n"]


def test_the_text_of_tokens() -> None:
    assert (VOCABULARY.text(FIRST + 65), VOCABULARY.text(A), VOCABULARY.text(END)) == (b"A", b"<a>", b"<end>")
    assert VOCABULARY.is_end(END) and not VOCABULARY.is_end(A)


def test_one_compiler_for_each_tokenizer() -> None:
    assert compiler_of(TOKENIZER) is compiler_of(TOKENIZER)
    assert compiler_of(TOKENIZER) is not compiler_of(KitTokenizer())


# Masks


@given(st.integers(1, 20_000), st.integers(0, 2**32), st.sampled_from([0.0, 0.001, 0.5, 1.0]))
def test_masks(size: int, seed: int, share: float) -> None:
    allowed = np.flatnonzero(np.random.default_rng(seed).random(size) < share)
    mask = TokenMask(size)
    mask.allow(allowed)
    assert np.array_equal(mask.tokens(), allowed)
    logits = np.arange(size, dtype=np.float32)
    mask.apply(logits)
    assert np.array_equal(np.flatnonzero(np.isfinite(logits)), allowed)
    assert np.array_equal(logits[allowed], allowed.astype(np.float32))


def test_masks_add_up() -> None:
    size = 32 * FEW_WORDS * 2
    mask, other = TokenMask(size), TokenMask(size)
    mask.allow(np.arange(0, size, 3))
    other.allow(np.array([1, size - 1]))
    mask.add(other)
    assert mask.tokens().size == len({*range(0, size, 3), 1, size - 1})


# Watches


@given(
    st.lists(st.sampled_from(["a", "ab", "<", "<c", "c>", "<call>", " ", "x<"]), max_size=12), st.booleans()
)
def test_a_mark_is_found_wherever_tokens_end(pieces: list[str], first: bool) -> None:
    watch = Watch(Marks(VOCABULARY, [Mark(b"<call>", first=first)]))
    text = "".join(pieces)
    place = text.find("<call>")
    expected = place >= 0 and not (first and text[:place].strip())
    written = ""
    for piece in pieces:
        written += piece
        found = watch.feed(piece.encode())
        if found is not None:
            assert expected and written.endswith(found.decode()) and found.startswith(b"<call>")
            assert written.find("<call>") == len(written) - len(found.decode())
            return
    assert not expected


def test_the_first_of_several_marks_counts() -> None:
    marks = Marks(VOCABULARY, [Mark(b"[x]"), Mark(b"<y>"), Mark(b"{", first=True)])
    assert Watch(marks).feed(b"a <y> [x]") == b"<y> [x]"
    assert Watch(marks).feed(b" \n{ <y>") == b"{ <y>"
    assert Watch(marks).feed(b"a {") is None


# Grammars


def test_a_text_spelled() -> None:
    assert spelled(VOCABULARY, 'x"<ab>\n') == f'start: "x\\"" <[{AB}]> "\\n"'


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ('start: "<a>"', f"start: <[{A}]>"),
        (r'start: "\u003ca\x3e" "<a>x"', f'start: <[{A}]> "<a>x"'),
        ('start: "<a>"i /"<a>"/ // "<a>"\n  "<ab>"', f'start: "<a>"i /"<a>"/ // "<a>"\n  <[{AB}]>'),
        ('start: # "<a>"\n "<a>"', f'start: # "<a>"\n <[{A}]>'),
        ('start: %json {"const": "<a>"} "<a>"', f'start: %json {{"const": "<a>"}} <[{A}]>'),
        (r'start: "\"<a>" "\\" "<a>"', rf'start: "\"<a>" "\\" <[{A}]>'),
        ('%llguidance {"x": "<a>"}\nstart: "b"', '%llguidance {"x": "<a>"}\nstart: "b"'),
    ],
)
def test_control_tokens_in_a_grammar(source: str, expected: str) -> None:
    assert with_control_tokens(source, VOCABULARY) == expected


# Tools


class JsonDialect(PlainDialect):
    """Writes a call as a name and JSON, as many do; `broken` writes no grammar at all."""

    def __init__(self, broken: bool = False) -> None:
        self._broken = broken

    def shape(self, request: OutputRequest) -> OutputShape:
        calls = " | ".join(f"%json {json.dumps(tool['function']['parameters'])}" for tool in request.tools)
        broken = self._broken and any(
            "properties" in tool["function"]["parameters"] for tool in request.tools
        )
        return OutputShape(call_openers=("{",), calls=f"calls: {'none' if broken else calls}")


def tool(parameters: Any, name: str = "f") -> Tool:
    return {"type": "function", "function": {"name": name, "parameters": parameters}}


def relaxed(parameters: Any, *, broken: bool = False) -> tuple[Any, tuple[Notice, ...]]:
    request = OutputRequest(template=Template(kind="jinja", text=""), tools=(tool(parameters),))
    found = enforceable(request, JsonDialect(broken), compiler_of(TOKENIZER))
    request, notices = found.enforced, found.notices
    return request.tools[0]["function"]["parameters"], notices


def test_tools_that_can_be_enforced_are_only_closed() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}
    assert relaxed(schema) == ({**schema, **CLOSED}, ())


CLOSED = {"additionalProperties": False}


def of(part: Any, **more: Any) -> dict[str, Any]:
    """A schema of an object with one property."""
    return {"properties": {"a": part}, **more}


REF = {"$ref": "#/$defs/x"}
OPTIONS = [{"minimum": 1}, {"type": "number"}]
TEXT = {"type": "string"}


@pytest.mark.parametrize(
    ("schema", "left", "dropped"),
    [
        ({"type": "object", "not": {}}, {"type": "object"}, ".not"),
        (of({"type": "array", "uniqueItems": True}), of({"type": "array"}), ".properties.a.uniqueItems"),
        (of({**TEXT, "format": "regex"}), of(TEXT), ".properties.a.format"),
        (of({**TEXT, "pattern": "("}), of(True), ".properties.a"),
        (of({"oneOf": OPTIONS}), of({"anyOf": OPTIONS}), ".properties.a.oneOf"),
        (
            of(REF, **{"$defs": {"x": {**TEXT, "pattern": "("}}}),
            of({"$ref": "#/$defs/0"}, **{"$defs": {"0": True}}),
            ".$defs.x",
        ),
        ({"allOf": [{"type": "string"}, {"type": "object"}]}, {"type": "object"}, ""),
        (of({"$ref": "#"}, type="object", required=["a"]), {"type": "object"}, ""),
        ("nonsense", {"type": "object"}, ""),
        ({"description": "x" * 10**6}, {"type": "object"}, ""),
    ],
)
def test_tools_that_cannot_are_relaxed(schema: Any, left: Any, dropped: str) -> None:
    parameters, (notice,) = relaxed(schema)
    assert parameters == ({**left, **CLOSED} if "properties" in left else left)
    assert (notice.code, notice.message) == (
        "tool_schema_relaxed",
        f"tool 'f': not enforced: parameters{dropped}",
    )


def test_a_notice_does_not_grow_with_the_schema() -> None:
    _, (notice,) = relaxed({"properties": {f"p{number}": {"not": {}} for number in range(1000)}})
    assert len(notice.message) < 1500 and notice.message.endswith("and 995 more")


def test_tools_that_a_dialect_cannot_write_are_free() -> None:
    parameters, (notice,) = relaxed({"type": "object", "properties": {"a": {}}}, broken=True)
    assert parameters == {"type": "object"}
    assert (notice.code, notice.message) == ("tool_schema_relaxed", "tool 'f': not enforced: parameters")


def test_tools_whose_turn_comes_too_late_are_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("corectl.constrain.tools.MAX_SECONDS", -1)
    parameters, (notice,) = relaxed({"type": "object", "properties": {"a": {}}})
    assert parameters == {"type": "object"}
    assert (notice.code, notice.message) == ("tool_schema_relaxed", "tool 'f': not enforced: parameters")


def test_a_tool_without_parameters() -> None:
    plain = {"type": "function", "function": {"name": "f"}}
    request = OutputRequest(template=None, tools=(plain,))
    assert enforceable(request, PlainDialect(), compiler_of(TOKENIZER)) == Enforceable(request, request)


def test_matchers_are_not_shared() -> None:
    compiler = compiler_of(TOKENIZER)
    choose = random.Random(0)
    first, second = (compiler.grammar('start: "ab" | "cd"', "x").deep_copy() for _ in range(2))
    assert isinstance(first, llguidance.LLMatcher)
    assert first.consume_tokens(VOCABULARY.tokens(choose.choice([b"ab", b"cd"])))
    assert first.is_accepting() and not second.is_accepting()
