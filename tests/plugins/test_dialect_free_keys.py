"""Tools whose schemas do not name all keys, in the dialects that write arguments one by one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import jsonschema
import pytest

from corectl.errors import BadRequest
from corectl.messages import Tool
from corectl.output.dialect import OutputRequest
from corectl.output.family import FamilyDialect
from corectl_dialects import gemma, pythonic_calls, tagged_calls
from corectl_dialects.gemma import GemmaSyntax
from corectl_dialects.schemas import members
from corectl_dialects.tagged import TagSyntax
from tests.plugins.dialect_kit import Grammar, Output, read

FAMILIES = {
    dialect.name: dialect
    for dialect in (*tagged_calls.DIALECTS, *pythonic_calls.DIALECTS, *gemma.DIALECTS)
    if isinstance(dialect, FamilyDialect)
}
NAMES = sorted(FAMILIES)

FREE = {"type": "object", "additionalProperties": {"type": "integer"}}
MIXED = {"type": "object", "additionalProperties": {"type": ["string", "boolean"]}}
NAMED = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
    "required": ["city"],
    "additionalProperties": {"type": "boolean"},
}
OPTIONS = {
    "anyOf": [
        {"type": "object", "properties": {"kind": {"const": "disc"}, "radius": {"type": "integer"}}},
        {"type": "object", "properties": {"kind": {"const": "text"}, "label": {"type": "string"}}},
    ],
    "required": ["kind"],
}


def asked(schema: Mapping[str, Any]) -> OutputRequest:
    function = {"name": "f", "description": "", "parameters": schema}
    tools: tuple[Tool, ...] = ({"type": "function", "function": function},)
    return OutputRequest(template=None, tools=tools)


def grammar(name: str, schema: Mapping[str, Any]) -> Grammar:
    calls = FAMILIES[name].calls
    closes = [calls.padding + calls.value.close] if isinstance(calls, TagSyntax) else []
    closes += [calls.quote] if isinstance(calls, GemmaSyntax) else []
    return Grammar(FAMILIES[name].shape(asked(schema)), closes)


def call(name: str, **arguments: Any) -> str:
    """A call of `f` as the family writes it."""
    syntax: Any = FAMILIES[name].calls
    if isinstance(syntax, TagSyntax):
        given = "".join(
            f"{syntax.key.open}{key}{syntax.key.close}{syntax.value.open}{syntax.padding}"
            f"{value if isinstance(value, str) else json.dumps(value)}{syntax.padding}{syntax.value.close}"
            for key, value in arguments.items()
        )
        inner = f"{syntax.call}f{syntax.name_end}{given}{syntax.call_end}"
        return f"{syntax.block.open}{inner}{syntax.block.close}"
    if isinstance(syntax, GemmaSyntax):
        pairs = (
            f"{key}:{syntax.quote + value + syntax.quote if isinstance(value, str) else json.dumps(value)}"
            for key, value in arguments.items()
        )
        return f"{syntax.tags.open}call:f{{{','.join(pairs)}}}{syntax.tags.close}"
    given = ", ".join(f"{key}={value!r}" for key, value in arguments.items())
    text = f"[f({given})]" if syntax.listed else f"f({given})"
    return f"{syntax.block.open}{text}{syntax.block.close}"


@pytest.mark.parametrize("name", NAMES)
def test_any_keys(name: str) -> None:
    calls = grammar(name, FREE)
    for arguments in ({}, {"a": 1}, {"a": 1, "b-c": 22, "Ünï": 3}):
        text = call(name, **arguments)
        assert calls.accepts(text)
        assert read(FAMILIES[name].reader(asked(FREE)), [text]) == Output(calls=(("f", arguments),))
    assert not calls.accepts(call(name, a="one"))


@pytest.mark.parametrize("name", NAMES)
def test_further_keys(name: str) -> None:
    calls = grammar(name, NAMED)
    for arguments in (
        {"city": "Rome"},
        {"city": "Rome", "cit": True, "days": 3, "city2": False},
        {"exact": True, "city": "Rome"},
    ):
        text = call(name, **arguments)
        assert calls.accepts(text)
        assert read(FAMILIES[name].reader(asked(NAMED)), [text]) == Output(calls=(("f", arguments),))
    assert not calls.accepts(call(name, exact=True))
    assert not calls.accepts(call(name, city="Rome", days=True))
    assert not calls.accepts(call(name, city="Rome", exact=3))


@pytest.mark.parametrize("name", NAMES)
def test_options(name: str) -> None:
    calls = grammar(name, OPTIONS)
    for arguments in ({"kind": "disc", "radius": 3}, {"kind": "text", "label": "x"}):
        text = call(name, **arguments)
        assert calls.accepts(text)
        assert read(FAMILIES[name].reader(asked(OPTIONS)), [text]) == Output(calls=(("f", arguments),))
    assert not calls.accepts(call(name, kind="cube"))
    assert not calls.accepts(call(name, kind="disc", radius="wide"))
    assert not calls.accepts(call(name, kind="disc", weight=3))
    assert not calls.accepts(call(name, radius=3))


@pytest.mark.parametrize("name", NAMES)
def test_patterns_of_keys_say_what_their_values_are(name: str) -> None:
    schema = {"patternProperties": {"^x": {"type": "integer"}}, "additionalProperties": False}
    text = call(name, x1=3)
    calls = grammar(name, schema)
    assert calls.accepts(text) and not calls.accepts(call(name, x1="three"))
    assert read(FAMILIES[name].reader(asked(schema)), [text]) == Output(calls=(("f", {"x1": 3}),))


@pytest.mark.parametrize("name", NAMES)
def test_of_a_free_key_that_comes_twice_the_last_value_counts(name: str) -> None:
    """No grammar can count keys that it does not know."""
    twice = call(name, KEY=1, YEK=2).replace("YEK", "KEY")
    assert grammar(name, FREE).accepts(twice)
    assert read(FAMILIES[name].reader(asked(FREE)), [twice]) == Output(calls=(("f", {"KEY": 2}),))


@pytest.mark.parametrize("name", NAMES)
def test_many_named_keys_and_others(name: str) -> None:
    many = {
        "properties": {f"a{number}": {"type": "integer"} for number in range(70)},
        "additionalProperties": {"type": "boolean"},
    }
    calls = grammar(name, many)
    assert calls.accepts(call(name, a0=1, a69=2, b=True, c=False))
    assert calls.accepts(call(name, b=True))
    assert not calls.accepts(call(name, a0=True))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("schema", [FREE, {**NAMED, "required": []}, MIXED], ids=["free", "named", "mixed"])
def test_whatever_the_grammar_accepts_is_read(name: str, schema: dict[str, Any]) -> None:
    read_once = 0
    for seed in range(8):
        text = grammar(name, schema).walk(seed)
        output = read(FAMILIES[name].reader(asked(schema)), [text])
        # Only a key that comes twice makes a call one that is none.
        if output.calls:
            assert output == Output(calls=output.calls)
            read_once += 1
            for _, arguments in output.calls:
                jsonschema.validate(arguments, schema)
    assert read_once


def test_what_an_object_may_have() -> None:
    assert members({"type": "object"}).others == {}
    assert members({"properties": {}}).others is None
    assert members({"additionalProperties": False}).others is None
    assert members({"properties": {}, "additionalProperties": True}).others == {}
    assert members({"allOf": [FREE, {"additionalProperties": False}]}).others is None
    assert members({"anyOf": [{"properties": {"a": {}}}, FREE]}).others == {"type": "integer"}
    assert members({"properties": {"a": 1}, "anyOf": [{"properties": {"a": 2}}]}).properties == {"a": 1}
    tree = {"properties": {f"p{number}": {} for number in range(9)}, "anyOf": [{"$ref": "#"}, {"$ref": "#"}]}
    assert members(tree).properties == tree["properties"]
    for odd in ({"properties": [1], "required": {}}, {"required": [[], 1], "allOf": 3}, {"anyOf": [None, 3]}):
        assert members(odd).properties == {}


def test_constants_are_not_written_out_again_for_each_option() -> None:
    options = {"anyOf": [{"$ref": "#/$defs/e"}] * 250}
    schema = {"properties": {"a": options}, "$defs": {"e": {"enum": [*range(2000)]}}}
    for name in NAMES:
        with pytest.raises(BadRequest, match="too many together"):
            grammar(name, schema)
