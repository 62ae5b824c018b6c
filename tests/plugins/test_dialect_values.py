"""Values in Python's and JSON's syntax, and what a schema makes of text without quotes."""

from __future__ import annotations

import ast
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corectl.output.reading import MAX_DEPTH, NotACall
from corectl_dialects.argument_grammar import alternatives
from corectl_dialects.schemas import allowed_types
from corectl_dialects.values import to_json, typed_value

SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20
)


@given(VALUES)
def test_python_literals_are_read_as_python_reads_them(value: Any) -> None:
    assert json.loads(to_json(repr(value))) == value


@given(VALUES)
def test_json_is_read_as_json(value: Any) -> None:
    assert json.loads(to_json(json.dumps(value))) == value


@pytest.mark.parametrize(
    "text",
    [
        r"'it\'s'",
        r'"\x41\u00e9\U0001F600\\ \q \a\v\0"',
        "'''a'b\"c\n'''",
        '"""x""y"""',
        "''",
        "1_000",
        "0x1f",
        ".5",
        "-5.",
        "[1, 'a', (2, 3,), {'k': [None, True]},]",
        " {} ",
    ],
)
def test_what_python_allows(text: str) -> None:
    expected = json.loads(json.dumps(ast.literal_eval(text.replace(r"\q", r"\\q").strip())))
    assert json.loads(to_json(text)) == expected


def test_escapes_of_json_that_python_lacks() -> None:
    assert json.loads(to_json(r'"\/ \ud83d\ude00"')) == "/ \U0001f600"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nan",
        "-inf",
        "[1",
        "{1: 2}",
        "{'a'}",
        "'open",
        "yes",
        "1 2",
        "f(1)",
        "[,]",
        "__import__('os')",
        "'a' 'b'",
    ],
)
def test_what_is_no_value(text: str) -> None:
    with pytest.raises(NotACall):
        to_json(text)


def test_depth_and_length_are_bounded() -> None:
    deep = "[" * MAX_DEPTH + "]" * MAX_DEPTH
    assert json.loads(to_json(deep)) is not None
    for text in (f"[{deep}]" * 2, "[" * 100_000, "{'a':" * 100_000, "9" * 100_000 + "x"):
        with pytest.raises(NotACall):
            to_json(text)


@pytest.mark.parametrize(
    ("text", "schema", "value"),
    [
        ("5", {"type": "integer"}, 5),
        (" 5 ", {"type": "integer"}, 5),
        ("5.5", {"type": "integer"}, "5.5"),
        ("5", {"type": "number"}, 5),
        ("five", {"type": "integer"}, "five"),
        ("True", {"type": "boolean"}, True),
        ("false", {"type": "boolean"}, False),
        ("None", {"type": "null"}, None),
        ("null", {"type": ["string", "null"]}, None),
        ("nothing", {"type": ["string", "null"]}, "nothing"),
        ("5", {"type": "string"}, "5"),
        ("5", {}, "5"),
        ("5", None, "5"),
        (' "quoted" ', {"type": "string"}, ' "quoted" '),
        ('"quoted"', {"type": ["string", "integer"]}, '"quoted"'),
        ("[1, true]", {"type": "array"}, [1, True]),
        ("{'a': None}", {"type": "object"}, {"a": None}),
        ("{'a': None", {"type": "object"}, "{'a': None"),
        ("5", {"anyOf": [{"type": "integer"}, {"type": "null"}]}, 5),
        ("2", {"enum": [1, 2]}, 2),
        ("2", {"enum": ["1", "2"]}, "2"),
        ("7", {"$ref": "#/$defs/Number"}, 7),
        ("7", {"$ref": "#/$defs/Loop"}, "7"),
        ("7", {"allOf": [{"$ref": "#/$defs/Number"}]}, 7),
    ],
)
def test_the_schema_decides_what_text_is(text: str, schema: Any, value: Any) -> None:
    root = {"$defs": {"Number": {"type": "integer"}, "Loop": {"$ref": "#/$defs/Loop"}}}
    assert json.loads(typed_value(text, allowed_types(schema, root))) == value


def test_endless_references_say_nothing_soon() -> None:
    twice = {"anyOf": [{"$ref": "#/$defs/Twice"}, {"$ref": "#/$defs/Twice"}]}
    root = {"$defs": {"Twice": twice}}
    assert allowed_types(twice, root) == frozenset()
    assert len(alternatives(twice, root)) < 1000
