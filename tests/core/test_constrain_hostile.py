"""Schemas and grammars that were made to cost much: refused, or compiled, in bounded time, and the next one works."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from corectl.constrain.compile import Compiler
from corectl.constrain.schema import relax_schema
from corectl.constrain.vocabulary import Vocabulary
from corectl.errors import BadRequest
from corectl.messages import Grammar
from tests.core.constrain_kit import KitTokenizer

SECONDS = 10
"""Of processor time. The dearest takes one of them, and two or three where others use the same core's caches."""

WORDS = [f"{letter}{digit}" for letter in "abcdefghijklmnopqrstuvwxyz" for digit in "0123456789"]
DEEP = 100_000


def nested(depth: int, opened: str, closed: str) -> str:
    return opened * depth + "{}" + closed * depth


def chain(length: int, link: Any) -> dict[str, Any]:
    """Definitions each of which refers to the next, as `link` writes it."""
    links = {f"d{number}": link(f"#/$defs/d{number + 1}") for number in range(length)}
    return {"$defs": {**links, f"d{length}": {"type": "object"}}, "$ref": "#/$defs/d0"}


def all_of(count: int, part: Any) -> dict[str, Any]:
    return {"allOf": [part(number) for number in range(count)]}


def contains(number: int) -> dict[str, Any]:
    return {"pattern": f"a.*b{number}.*c"}


def doubled(ref: str) -> dict[str, Any]:
    """A reference with siblings, twice: every link doubles what is copied."""
    return {"type": "object", "properties": {name: {"$ref": ref, "type": "object"} for name in "ab"}}


REFUSED: dict[str, Any] = {
    "deep objects": nested(DEEP, '{"a":', "}"),
    "deep lists": '{"items":' + nested(DEEP, "[", "]") + "}",
    "deep items, but small": nested(200, '{"items":', "}"),
    "a cycle": {"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"},
    "a cycle with siblings": {
        "$defs": {"a": {"properties": {"x": {"$ref": "#/$defs/a", "minProperties": 1}}}},
        "$ref": "#/$defs/a",
    },
    "a huge enum": {"enum": [f"v{number}" for number in range(200_000)]},
    "a large enum": {"enum": list(range(21_000))},
    "optional properties": {"properties": {f"p{number}": {} for number in range(5000)}, "type": "object"},
    "a few optional properties too many": {
        "properties": {f"p{number}": {} for number in range(600)},
        "type": "object",
    },
    "patterns that meet": {"type": "string", **all_of(24, contains)},
    "patterns that meet in a property": all_of(24, lambda number: {"properties": {"x": contains(number)}}),
    "patterns that meet in any property": all_of(
        24, lambda number: {"additionalProperties": contains(number)}
    ),
    "patterns that meet by reference": {
        "$defs": {f"p{number}": contains(number) for number in range(24)},
        **all_of(24, lambda number: {"$ref": f"#/$defs/p{number}"}),
    },
    "patterns compared with each other": {
        "patternProperties": {f"^a{number}$": {} for number in range(1000)}
    },
    "a long pattern": {"pattern": "a" * 100_000},
    "many patterns that are": {
        "properties": {f"p{number}": {"pattern": "a?" * 900 + "a" * 900} for number in range(100)}
    },
    "products of options": all_of(
        12, lambda number: {"anyOf": [{"properties": {f"a{number}": {"const": side}}} for side in (0, 1)]}
    ),
    "products of enums": all_of(2, lambda number: {"enum": [f"v{value}" for value in range(9000)]}),
    "doubled by references": chain(40, doubled),
    "doubled by allOf": chain(40, lambda ref: {"allOf": [{"$ref": ref}, {"$ref": ref}]}),
    "a longer chain of nothing else": chain(9000, lambda ref: {"$ref": ref}),
    "a long chain with siblings": chain(3000, lambda ref: {"$ref": ref, "type": "object"}),
    "options that exclude each other": {"oneOf": [{"const": f"k{number}"} for number in range(3000)]},
    "a step with many digits": {"type": "integer", "multipleOf": 999_983},
    "steps that meet": {"allOf": [{"multipleOf": 97}, {"multipleOf": 89}, {"multipleOf": 101}]},
    "a schema of 5 MB": {"description": "x" * 5_000_000},
    "a length of 10^18": {"minLength": 10**18},
    "endless": {"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]},
}

HARMLESS: dict[str, Any] = {
    "required properties": {"properties": {name: {} for name in WORDS}, "required": WORDS, "type": "object"},
    "an enum": {"enum": [f"v{number}" for number in range(10_000)]},
    "options": {
        "anyOf": [{"type": "object", "properties": {word: {}}, "required": [word]} for word in WORDS]
    },
    "a long string": {"type": "string", "maxLength": 10**9},
    "a long list": {"type": "array", "maxItems": 10**9, "items": {"type": "integer"}},
    "catastrophic elsewhere": {"type": "string", "pattern": "^(a+)+$"},
    "catastrophic elsewhere too": {"type": "string", "pattern": "^((a{0,100}){0,100}){0,100}$"},
    "a long chain": chain(3000, lambda ref: {"type": "object", "properties": {"a": {"$ref": ref}}}),
    "a long chain of nothing else": chain(1500, lambda ref: {"$ref": ref}),
    "a pattern that is dear": {"type": "string", "pattern": "a?" * 1300 + "a" * 1300},
    "lengths of many kinds": {
        "anyOf": [
            {"type": "string", "minLength": number, "maxLength": 10**6 + number} for number in range(200)
        ]
    },
    "everything refers to everything": {
        "$defs": {
            f"d{number}": {
                "type": "object",
                "properties": {f"q{other}": {"$ref": f"#/$defs/d{other}"} for other in range(30)},
            }
            for number in range(30)
        },
        "$ref": "#/$defs/d0",
    },
    "fanned out": chain(
        40, lambda ref: {"type": "object", "properties": {"a": {"$ref": ref}, "b": {"$ref": ref}}}
    ),
}

DOUBLED = "start: A0\n" + "\n".join(f"A{n}: A{n + 1} A{n + 1}" for n in range(190)) + '\nA190: "x"'
GRAMMARS: dict[str, tuple[str, str]] = {
    "a regular expression that is dear": ("regex", "a?" * 1300 + "a" * 1300),
    "a long regular expression": ("regex", "a" * 5000),
    "a look ahead": ("regex", "(?=a)b"),
    "an open group": ("regex", "(a"),
    "nothing": ("regex", ""),
    "a long grammar": ("lark", "start: " + " | ".join(f'"a{number}"' for number in range(5000))),
    "many rules": ("lark", "start: a0\n" + "\n".join(f'a{number}: "a" a{number + 1}' for number in range(5000))),
    "doubled terminals": ("lark", DOUBLED),
    "intersections": ("lark", "start: A\nA: " + " & ".join(f"/[a-z]*{n}[a-z]*{n}.*/" for n in range(300))),
    "a schema inside": ("lark", "start: %json " + json.dumps(all_of(24, contains))),
    "a schema inside that is refused": ("lark", 'start: %json {"not": {}}'),
    "no JSON inside": ("lark", "start: %json {"),
    "deep JSON inside": ("lark", "start: %json " + "[" * 8000),
    "itself": ("lark", "start: start"),
    "a rule that is missing": ("lark", "start: other"),
    "deep groups": ("lark", "start: " + "(" * 7000 + '"a"' + ")" * 7000),
    "deep groups in GBNF": ("gbnf", "root ::= " + "(" * 7000 + '"a"' + ")" * 7000),
    "no GBNF": ("gbnf", "root = 1"),
    "no root": ("gbnf", 'a ::= "b"'),
    "another kind": ("yaml", "a"),
}  # fmt: skip


@pytest.fixture(scope="module")
def compiler() -> Compiler:
    return Compiler(Vocabulary(KitTokenizer(WORDS)))


@pytest.mark.parametrize(
    ("grammar", "reason"),
    [
        (
            Grammar(kind="regex", text="(?=a)b"),
            "grammar.regex: the grammar cannot be enforced: {}look-around",
        ),
        (Grammar(kind="regex", text="(a"), "grammar.regex: the grammar cannot be enforced: {}unclosed group"),
        (
            Grammar(kind="schema", text='{"properties": {"a": {"items": {"pattern": "a)"}}}}'),
            "format.properties.a.items: {}unopened group",
        ),
        (Grammar(kind="schema", text='{"pattern": "' + "(" * 300 + "a" + ")" * 300 + '"}'), "format: {}"),
    ],
)
def test_what_is_wrong_with_a_pattern_is_said(compiler: Compiler, grammar: Grammar, reason: str) -> None:
    with pytest.raises(BadRequest) as refused:
        compiler.content(grammar)
    assert refused.value.message.startswith(reason.format("the regular expression cannot be read: "))


def text_of(schema: Any) -> str:
    return schema if isinstance(schema, str) else json.dumps(schema)


@pytest.mark.parametrize("schema", REFUSED.values(), ids=REFUSED)
def test_refused(schema: Any, compiler: Compiler) -> None:
    text = text_of(schema)
    began = time.process_time()
    with pytest.raises(BadRequest, match=r"^format[:.]") as refused:
        compiler.content(Grammar(kind="schema", text=text))
    assert time.process_time() - began < SECONDS
    assert len(refused.value.message) < 600


@pytest.mark.parametrize("schema", HARMLESS.values(), ids=HARMLESS)
def test_large_but_fine(schema: Any, compiler: Compiler) -> None:
    began = time.process_time()
    compiler.content(Grammar(kind="schema", text=text_of(schema)))
    assert time.process_time() - began < SECONDS


@pytest.mark.parametrize("name", ["a", "elsewhere"])
def test_many_anchors(name: str) -> None:
    anchored = {f"d{number}": {"$anchor": f"a{number}", "type": "null"} for number in range(3000)}
    properties = {f"p{number}": {"$ref": f"#{name}{number}"} for number in range(3000)}
    began = time.process_time()
    relax_schema({"$defs": anchored, "properties": properties}, "parameters")
    assert time.process_time() - began < SECONDS


@pytest.mark.parametrize(("kind", "text"), GRAMMARS.values(), ids=GRAMMARS)
def test_grammars(kind: str, text: str, compiler: Compiler) -> None:
    began = time.process_time()
    with pytest.raises(BadRequest, match=rf"^grammar\.{kind}[:.]|^unknown kind"):
        compiler.content(Grammar(kind=kind, text=text))
    assert time.process_time() - began < SECONDS


def test_a_refusal_is_remembered(compiler: Compiler) -> None:
    grammar = Grammar(kind="schema", text='{"type": "string", "pattern": "("}')
    messages = []
    for _ in range(2):
        with pytest.raises(BadRequest) as refused:
            compiler.content(grammar)
        messages.append(refused.value)
    assert messages[0] is not messages[1] and messages[0].message == messages[1].message
