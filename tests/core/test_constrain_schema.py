"""What of JSON Schema is enforced, and what is refused with its path. `jsonschema` says what is right."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest

from corectl.errors import BadRequest
from corectl.messages import Grammar
from corectl.output.dialect import OutputShape
from tests.core.constrain_kit import KitTokenizer, constrain, walk

TOKENIZER = KitTokenizer()
FREE = {"additionalProperties": True}
CLOSED = {"additionalProperties": False}
TREE = {
    "$defs": {
        "node": {
            "type": "object",
            "properties": {
                "value": {"type": "integer"},
                "children": {"type": "array", "items": {"$ref": "#/$defs/node"}},
            },
            "required": ["value"],
            **CLOSED,
        }
    },
    "$ref": "#/$defs/node",
}
PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 1},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "tags": {"type": "array", "items": {"enum": ["a", "b"]}, "maxItems": 2},
    },
    "required": ["name", "age"],
    **CLOSED,
}

# A schema, JSON that matches, and JSON that does not.
ENFORCED: list[tuple[dict[str, Any], list[str], list[str]]] = [
    (
        {},
        ["1", '"a"', "null", "true", "[1, {}]", '{"a": [false]}'],
        ["", "nul", "tru", '"a', "[1,]", "{a: 1}"],
    ),
    ({"type": "object"}, ["{}", '{"a": {"b": null}}'], ["[]", "1", '"x"']),
    ({"type": "array"}, ["[]", '[1, "a", [null]]'], ["{}", "0"]),
    ({"type": "string"}, ['""', '"ü🦙"', r'"\n\"\\"'], ["1", '"\n"', r'"\x"']),
    ({"type": "integer"}, ["0", "-12", "123456789"], ["1.5", "01", "1e3", "+1", '"1"']),
    ({"type": "number"}, ["0", "-1.5", "2e10", "0.001"], ["1.", ".5", "NaN", "Infinity", "true"]),
    ({"type": "boolean"}, ["true", "false"], ["null", "1", '"true"']),
    ({"type": "null"}, ["null"], ["false", "0", '""']),
    ({"type": ["string", "null"]}, ['"a"', "null"], ["1", "{}"]),
    ({"type": ["integer", "array"], "items": {"type": "null"}}, ["1", "[null]"], ["[1]", "1.5"]),
    # Values
    ({"const": "a\nb"}, [r'"a\nb"'], ['"a"']),
    ({"const": None}, ["null"], ["0"]),
    ({"const": {"a": [1, {"b": False}]}}, ['{"a": [1, {"b": false}]}'], ['{"a": [1, {"b": true}]}', "{}"]),
    ({"const": -2.5}, ["-2.5"], ["2.5", "-2"]),
    ({"enum": ["red", 1, None, [2]]}, ['"red"', "1", "null", "[2]"], ['"blue"', "2", "[]", "true"]),
    ({"enum": ["a", "ab", "abc"]}, ['"a"', '"ab"', '"abc"'], ['"b"', '"abcd"']),
    ({"type": "string", "enum": ["x", 1]}, ['"x"'], ["1"]),
    # Strings
    ({"type": "string", "minLength": 2}, ['"ab"', '"🦙🦙"'], ['"a"', '"🦙"', '""']),
    ({"type": "string", "maxLength": 2}, ['""', '"ab"', '"🦙🦙"'], ['"abc"']),
    ({"type": "string", "minLength": 1, "maxLength": 1}, ['"ü"'], ['""', '"ab"']),
    ({"type": "string", "pattern": "^[a-c]+$"}, ['"abc"'], ['"abd"', '""']),
    ({"type": "string", "pattern": "b"}, ['"abc"', '"b"'], ['"ac"']),
    ({"type": "string", "pattern": "^a"}, ['"ab"', '"a"'], ['"ba"']),
    ({"type": "string", "pattern": r"^\d{3}-\w$"}, ['"123-x"'], ['"12-x"', '"123-"']),
    ({"type": "string", "pattern": "^(foo|ba[rz])?$"}, ['""', '"foo"', '"baz"'], ['"bax"', '"foofoo"']),
    ({"type": "string", "pattern": "^a*$", "maxLength": 3}, ['"aaa"'], ['"aaaa"', '"ab"']),
    ({"type": "string", "allOf": [{"pattern": "a"}, {"pattern": "b"}]}, ['"ab"', '"ba"'], ['"a"', '"b"']),
    ({"type": "string", "format": "date"}, ['"2024-02-29"'], ['"2024-13-01"', '"today"']),
    ({"type": "string", "format": "time"}, ['"08:30:06Z"'], ['"08:30"', '"25:00:00Z"']),
    ({"type": "string", "format": "date-time"}, ['"2024-01-01T00:00:00Z"'], ['"2024-01-01"']),
    ({"type": "string", "format": "uuid"}, ['"2eb8aa08-aa98-11ea-b4aa-73b441d16380"'], ['"2eb8aa08"']),
    ({"type": "string", "format": "ipv4"}, ['"127.0.0.1"'], ['"127.0.0"', '"256.0.0.1"']),
    ({"type": "string", "format": "ipv6"}, ['"::1"'], ['"12345::"']),
    ({"type": "string", "format": "email"}, ['"a@b.de"'], ['"ab.de"']),
    ({"type": "string", "format": "hostname"}, ['"www.example.org"'], ['"-a"']),
    ({"type": "string", "format": "uri"}, ['"https://a.b/c?d#e"'], ['"a b"']),
    ({"type": "string", "format": "duration"}, ['"P1DT2H"'], ['"1D"']),
    # Numbers
    ({"type": "integer", "minimum": 3, "maximum": 12}, ["3", "9", "12"], ["2", "13", "-5", "120"]),
    ({"type": "integer", "exclusiveMinimum": 3, "exclusiveMaximum": 12}, ["4", "11"], ["3", "12"]),
    ({"type": "integer", "minimum": -5}, ["-5", "0", "1000"], ["-6", "-10"]),
    ({"type": "number", "minimum": 0.5, "maximum": 1.5}, ["0.5", "1", "1.5", "1.25"], ["0.4", "1.51", "2"]),
    ({"type": "number", "exclusiveMinimum": 0}, ["0.001", "1"], ["0", "-1"]),
    ({"type": "integer", "multipleOf": 5}, ["0", "-15", "100"], ["3", "101"]),
    ({"type": "number", "multipleOf": 0.01}, ["0.25", "3", "1.1"], ["0.001"]),
    ({"type": "integer", "multipleOf": 7, "minimum": 10, "maximum": 30}, ["14", "28"], ["7", "15", "35"]),
    # Arrays
    ({"type": "array", "items": {"type": "integer"}}, ["[]", "[1, 2]"], ['["a"]', "[1.5]"]),
    ({"type": "array", "minItems": 1, "maxItems": 2}, ["[1]", "[1, 2]"], ["[]", "[1, 2, 3]"]),
    (
        {"type": "array", "prefixItems": [{"type": "integer"}], "items": False},
        ["[]", "[1]"],
        ["[1, 2]", '["a"]'],
    ),
    (
        {"type": "array", "prefixItems": [{"type": "null"}], "items": {"type": "string"}},
        ['[null, "a"]'],
        ["[null, 1]"],
    ),
    (
        {"type": "array", "items": [{"type": "null"}], "additionalItems": False},
        ["[null]"],
        ["[null, null]", "[1]"],
    ),
    (
        {"type": "array", "items": {"type": "array", "items": {"type": "boolean"}, "minItems": 1}},
        ["[[true]]"],
        ["[[]]"],
    ),
    ({"type": "array", "uniqueItems": False, "items": {"type": "null"}}, ["[null, null]"], ["[1]"]),
    # Objects
    (
        PERSON,
        ['{"name": "A", "age": 3}', '{"name": "A", "age": 3, "tags": ["b"]}'],
        ['{"name": "A"}', '{"name": "", "age": 3}'],
    ),
    (
        {"type": "object", "properties": {"a": {"type": "null"}}, **CLOSED},
        ["{}", '{"a": null}'],
        ['{"b": null}', '{"a": 1}'],
    ),
    (
        {"type": "object", "properties": {"a": {"type": "null"}}},
        ['{"a": null}', "{}"],
        # Closed, though JSON Schema leaves it open: see `corectl.constrain.closing`.
        ['{"a": 1}', '{"a": null, "b": 1}'],
    ),
    ({"type": "object", "required": ["a", "b"]}, ['{"a": 1, "b": 2}'], ["{}", '{"a": 1}']),
    (
        {"type": "object", "additionalProperties": {"type": "integer"}},
        ["{}", '{"x": 1, "y": 2}'],
        ['{"x": "1"}'],
    ),
    (
        {"type": "object", "patternProperties": {"^n_": {"type": "integer"}}, **CLOSED},
        ['{"n_a": 1}'],
        ['{"n_a": "x"}', '{"m": 1}'],
    ),
    (
        {
            "type": "object",
            "properties": {"n_x": {"minimum": 3}},
            "patternProperties": {"^n_": {"type": "integer"}},
        },
        ['{"n_x": 3, "n_y": 0}'],
        ['{"n_x": 2}', '{"n_x": 3.5}'],
    ),
    ({"type": "object", "minProperties": 1}, ['{"a": 1}'], ["{}"]),
    ({"type": "object", "maxProperties": 1, **FREE}, ["{}", '{"a": 1}'], ['{"a": 1, "b": 2}']),
    ({"type": "object", "properties": {"a": True, "b": False}}, ['{"a": 1}'], ['{"a": 1, "b": 2}']),
    (
        {"type": "object", "properties": {'"q"': {"const": 1}, "ü": {"const": 2}}, **CLOSED},
        [r'{"\"q\"": 1, "ü": 2}'],
        ['{"q": 1}'],
    ),
    # Combinations
    ({"anyOf": [{"type": "string"}, {"type": "integer", "minimum": 5}]}, ['"a"', "5"], ["4", "null"]),
    ({"oneOf": [{"type": "string"}, {"type": "null"}]}, ['"a"', "null"], ["1"]),
    (
        {
            "oneOf": [
                {
                    "type": "object",
                    "properties": {"k": {"const": "a"}, "x": {"type": "integer"}},
                    "required": ["k", "x"],
                },
                {"type": "object", "properties": {"k": {"const": "b"}}, "required": ["k"]},
            ]
        },
        ['{"k": "a", "x": 1}', '{"k": "b"}'],
        ['{"k": "a"}', '{"k": "c"}'],
    ),
    ({"allOf": [{"type": "integer"}, {"minimum": 3}, {"maximum": 4}]}, ["3", "4"], ["2", "5", "3.5"]),
    (
        {
            "allOf": [
                {"properties": {"a": {"type": "null"}}, "required": ["a"]},
                {"properties": {"b": {"const": 1}}},
            ],
            "type": "object",
        },
        ['{"a": null, "b": 1}', '{"a": null}'],
        ['{"b": 1}', '{"a": null, "b": 2}'],
    ),
    ({"type": "integer", "anyOf": [{"maximum": 2}, {"minimum": 8}]}, ["1", "9"], ["5", '"a"']),
    # References
    (
        TREE,
        ['{"value": 1, "children": [{"value": 2}]}'],
        ['{"value": 1, "children": [{}]}', '{"value": "a"}'],
    ),
    (
        {"properties": {"a": {"$ref": "#"}}, "type": "object", **CLOSED},
        ["{}", '{"a": {"a": {}}}'],
        ['{"a": 1}'],
    ),
    ({"$defs": {"a/b": {"type": "null"}}, "$ref": "#/$defs/a~1b"}, ["null"], ["1"]),
    ({"$defs": {"a%b": {"type": "null"}}, "$ref": "#/$defs/a%25b"}, ["null"], ["1"]),
    ({"$defs": {"x": {"$anchor": "here", "type": "null"}}, "$ref": "#here"}, ["null"], ["1"]),
    ({"components": {"schemas": {"X": {"type": "null"}}}, "$ref": "#/components/schemas/X"}, ["null"], ["1"]),
    (
        {"prefixItems": [{"type": "null"}, {"$ref": "#/prefixItems/0"}], "type": "array", "minItems": 2},
        ["[null, null]"],
        ["[null, 1]"],
    ),
    (
        {"definitions": {"n": {"type": "integer"}}, "$ref": "#/definitions/n", "minimum": 3},
        ["3"],
        ["2", '"a"'],
    ),
    ({"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"type": "null"}}, "$ref": "#/$defs/a"}, ["null"], ["1"]),
    # Drafts and annotations
    ({"$schema": "http://json-schema.org/draft-04/schema#", "const": 5}, ["5"], ["6"]),
    (
        {"$schema": "http://json-schema.org/draft-07/schema#", "$id": "http://a/b", "type": "null"},
        ["null"],
        ["1"],
    ),
    (
        {
            "title": "T",
            "description": "D",
            "default": 1,
            "examples": [1],
            "deprecated": True,
            "x-mine": {"not": 1},
            "type": "null",
        },
        ["null"],
        ["1"],
    ),
    ({"x-guidance": {"lenient": True}, "type": "null"}, ["null"], ["1"]),
    # Keywords that forbid nothing there
    *(
        (
            {"type": "object", keyword: value, "additionalProperties": {"type": "integer"}},
            ['{"a": 1}'],
            ['{"a": ""}'],
        )
        for keyword, values in (
            ("propertyNames", (True, {}, {"type": "string"})),
            ("unevaluatedProperties", (True, {})),
            ("dependentRequired", ({},)),
            ("dependentSchemas", ({},)),
            ("dependencies", ({},)),
            ("not", (False,)),
        )
        for value in values
    ),
    ({"type": "array", "unevaluatedItems": True}, ["[1]"], ["1"]),
    ({"type": "array", "unevaluatedItems": {}}, ["[1]"], ["1"]),
    ({"type": "integer", "format": "int32"}, ["1"], ['"a"', "1.5"]),
    ({"type": ["number", "null"], "format": "double"}, ["1.5", "null"], ['"a"']),
    *(
        ({"type": "string", "format": name}, ['"a b"', '""'], ["1"])
        for name in ("password", "binary", "path", "file-path", "directory-path")
    ),
]

LARGE = 2**53 + 1
REFUSED: list[tuple[Any, str]] = [
    ({"not": {}}, "format.not: not supported"),
    ({"properties": {"a": {"not": {"type": "null"}}}}, "format.properties.a.not: not supported"),
    ({"if": {}, "then": {}}, "format.if: not supported"),
    ({"items": {"uniqueItems": True}}, "format.items.uniqueItems: not supported"),
    ({"items": {"contains": {}}}, "format.items.contains: not supported"),
    ({"propertyNames": {"pattern": "a"}}, "format.propertyNames: not supported"),
    ({"propertyNames": {"type": "integer"}}, "format.propertyNames: not supported"),
    ({"propertyNames": 1}, "format.propertyNames: not supported"),
    ({"uniqueItems": 0}, "format.uniqueItems: not supported"),
    ({"unevaluatedItems": 1}, "format.unevaluatedItems: not supported"),
    ({"dependentRequired": {"a": ["b"]}}, "format.dependentRequired: not supported"),
    ({"dependentSchemas": {"a": {}}}, "format.dependentSchemas: not supported"),
    ({"dependencies": {"a": ["b"]}}, "format.dependencies: not supported"),
    ({"unevaluatedProperties": False}, "format.unevaluatedProperties: not supported"),
    ({"$dynamicRef": "#a"}, "format.$dynamicRef: not supported"),
    ({"anyOf": [{}, {"minContains": 1}]}, "format.anyOf[1].minContains: not supported"),
    ({"$defs": {"a": {"not": {}}}, "$ref": "#/$defs/a"}, "format.$defs.a.not: not supported"),
    ({"$defs": {"a": {"$id": "x"}}, "$ref": "#/$defs/a"}, "format.$defs.a.$id: not supported below"),
    ({"type": "nonsense"}, "format.type: must be one or more of null, boolean"),
    ({"type": []}, "format.type: must be"),
    ({"type": 1}, "format.type: must be"),
    ({"properties": {"a": {"type": ["string", "x"]}}}, "format.properties.a.type: must be"),
    ({"enum": []}, "format.enum: must be a list of values"),
    ({"enum": "a"}, "format.enum: must be a list of values"),
    ({"const": LARGE}, "format.const: whole numbers beyond"),
    ({"enum": [[{"a": -LARGE}]]}, "format.enum: whole numbers beyond"),
    ({"type": "integer", "minimum": LARGE}, "format.minimum: whole numbers beyond"),
    ({"minimum": "3"}, "format.minimum: must be a number"),
    ({"maximum": True}, "format.maximum: must be a number"),
    ({"multipleOf": 0}, "format.multipleOf: must be above 0"),
    ({"multipleOf": -1}, "format.multipleOf: must be above 0"),
    ({"multipleOf": 999983}, "format.multipleOf: more than 4 digits"),
    ({"multipleOf": 1e-30}, "format.multipleOf: more than 4 digits"),
    ({"minLength": -1}, "format.minLength: must be a whole number from 0"),
    ({"minItems": 1.5}, "format.minItems: must be a whole number from 0"),
    ({"maxLength": "9"}, "format.maxLength: must be a whole number from 0"),
    ({"maxItems": 10**18}, "format.maxItems: whole numbers beyond"),
    ({"pattern": 1}, "format.pattern: must be a string"),
    ({"pattern": "a" * 5000}, "format.pattern: patterns longer than 4096"),
    ({"properties": {"a": {"type": "string", "pattern": "("}}}, "format.properties.a: "),
    ({"type": "array", "items": {"type": "string", "pattern": "(?=a)"}}, "format.items: "),
    ({"type": "string", "pattern": r"(a)\1"}, "format: "),
    ({"format": "regex"}, "format.format: 'regex' is not supported, only date-time"),
    ({"type": ["string", "integer"], "format": "int32"}, "format.format: 'int32' is not supported"),
    ({"items": {"format": 3}}, "format.items.format: must be a string"),
    ({"required": "a"}, "format.required: must be a list of strings"),
    ({"required": [1]}, "format.required: must be a list of strings"),
    ({"minProperties": 2}, "format.minProperties: not supported above 1"),
    ({"properties": []}, "format.properties: must be an object of schemas"),
    ({"properties": {"a": 1}}, "format.properties.a: a schema must be an object or a boolean"),
    ({"anyOf": {}}, "format.anyOf: must be a list of schemas"),
    ({"allOf": []}, "format.allOf: must be a list of schemas"),
    ({"items": 3}, "format.items: a schema must be"),
    ({"$ref": "https://a/b"}, "format.$ref: only references into the schema itself"),
    ({"$ref": "other.json#/a"}, "format.$ref: only references into the schema itself"),
    ({"$ref": "#/$defs/none"}, "format.$ref: nothing is at '#/$defs/none'"),
    ({"$ref": "#none"}, "format.$ref: nothing is at '#none'"),
    ({"anyOf": [{"type": "string"}], "$ref": "#/anyOf/" + "9" * 5000}, "format.$ref: nothing is at"),
    ({"$ref": 1}, "format.$ref: must be a string"),
    ({"items": False, "type": "array", "minItems": 1}, "format: "),
    (
        {"type": "object", "properties": {"a": {"oneOf": [{"minimum": 1}, {"type": "number"}]}}},
        "format.properties.a.oneOf: only options",
    ),
    (
        {
            "type": "object",
            "properties": {"a": {"type": "integer", "minimum": 3, "maximum": 2}},
            "required": ["a"],
        },
        "format.properties.a: ",
    ),
    ({"type": "object", "patternProperties": {"a": {}, "b": {}}}, "format: patternProperty regexes"),
    ({"allOf": [{"type": "string"}, {"type": "integer"}]}, "format: Unsatisfiable schema"),
    # Nothing finite can match
    ({"$ref": "#"}, "format: no value can match"),
    (
        {"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"},
        "format: no value can match",
    ),
    ({"anyOf": [{"$ref": "#"}, {"allOf": [{"$ref": "#"}]}]}, "format: no value can match"),
    ({"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]}, "format: no value can match"),
    ({"type": "array", "items": {"$ref": "#"}, "minItems": 1}, "format: no value can match"),
    (
        {"type": "object", "additionalProperties": {"$ref": "#"}, "required": ["x"]},
        "format: no value can match",
    ),
    (
        {"type": "object", "additionalProperties": {"$ref": "#"}, "minProperties": 1},
        "format: no value can match",
    ),
    # No schema
    ([], "format: a schema must be an object"),
    (True, "format: a schema must be an object"),
]

JSON_ERRORS = ["", "{", '{"a": 1,}', '{"a": NaN}', '{"const": 1e999}', "{} {}", '{"a": "\\ud800"}']


def accepts(schema: dict[str, Any], text: str) -> bool:
    writer = constrain(OutputShape(), TOKENIZER, grammar=Grammar(kind="schema", text=json.dumps(schema)))
    return all(writer.take(token) for token in TOKENIZER.spell(text.encode())) and writer.may_end()


def validates(schema: dict[str, Any], text: str) -> bool:
    """Formats are checked here too, as llguidance does; an array of `items` is what `prefixItems` was."""
    if isinstance(schema.get("items"), list):
        schema = {"type": "array", "prefixItems": schema["items"], "items": schema["additionalItems"]}
    checker = jsonschema.Draft202012Validator
    return bool(checker({**schema, "$schema": checker.META_SCHEMA["$id"]}).is_valid(json.loads(text)))


@pytest.mark.parametrize(
    ("schema", "good", "bad"), ENFORCED, ids=[json.dumps(case[0])[:60] for case in ENFORCED]
)
def test_enforced(schema: dict[str, Any], good: list[str], bad: list[str]) -> None:
    for text in good:
        assert accepts(schema, text), text
        assert validates(schema, text), text
    for text in bad:
        assert not accepts(schema, text), text


@pytest.mark.parametrize(
    "schema", [case[0] for case in ENFORCED], ids=[json.dumps(case[0])[:60] for case in ENFORCED]
)
def test_whatever_is_written_validates(schema: dict[str, Any]) -> None:
    for seed in range(4):
        grammar = Grammar(kind="schema", text=json.dumps(schema))
        text = walk(constrain(OutputShape(), TOKENIZER, grammar=grammar), seed)
        assert validates(schema, text), text


@pytest.mark.parametrize(("schema", "message"), REFUSED, ids=[message for _, message in REFUSED])
def test_refused_with_a_path(schema: Any, message: str) -> None:
    with pytest.raises(BadRequest) as refused:
        accepts(schema, "1")
    assert refused.value.message.startswith(message)
    assert len(refused.value.message) < 500 and "\n" not in refused.value.message


@pytest.mark.parametrize("text", JSON_ERRORS)
def test_text_that_is_no_schema(text: str) -> None:
    with pytest.raises(BadRequest, match=r"format: the schema is no JSON"):
        constrain(OutputShape(), TOKENIZER, grammar=Grammar(kind="schema", text=text))


def test_there_are_enough_cases() -> None:
    assert sum(len(good) + len(bad) for _, good, bad in ENFORCED) + len(REFUSED) >= 250


@pytest.mark.parametrize(
    "text",
    ['{"a": 1}', '{"a":1}', '{\n  "a": 1\n}', '{\n\t"a": [\n\t\t1,\n\t\t2\n\t]\n}', '{ "a": [ 1, 2 ] }'],
)
def test_json_may_be_indented(text: str) -> None:
    assert accepts({}, text)


@pytest.mark.parametrize(
    "text", ['{  "a": 1}', '{\n\n"a": 1}', "{" + "\n" + " " * 40 + '"a": 1}', ' {"a": 1}', '{"a": 1}\n']
)
def test_but_blanks_are_bounded(text: str) -> None:
    assert not accepts({}, text)
