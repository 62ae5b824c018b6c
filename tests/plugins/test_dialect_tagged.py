"""Families that write arguments between tags."""

from __future__ import annotations

from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from corectl.messages import Template
from corectl.output.dialect import OutputReader, OutputRequest
from corectl.output.family import FamilyDialect
from corectl_dialects.tagged import TagSyntax
from corectl_dialects.tagged_calls import DIALECTS
from tests.plugins.dialect_kit import Grammar, Output, chunked, read, read_alike, tool

WEATHER = tool(
    "get_weather",
    {
        "city": {"type": "string"},
        "days": {"type": "integer", "minimum": 1},
        "unit": {"enum": ["celsius", "fahrenheit"]},
        "exact": {"type": "boolean"},
        "filter": {
            "type": "object",
            "properties": {"hours": {"type": "array", "items": {"type": "integer"}}},
            "required": ["hours"],
            "additionalProperties": False,
        },
    },
    ["city"],
)
WRITE = tool(
    "write_file", {"path": {"type": "string"}, "text": {"type": ["string", "null"]}}, ["path", "text"]
)
NOW = tool("now", {})
NOWHERE = tool("now_here", {"zip": {"type": "string", "pattern": "^[0-9]{5}$"}}, ["zip"])
BY_REFERENCE = tool(
    "by_reference",
    {"size": {"$ref": "#/$defs/Size"}, "note": {"type": "string", "minLength": 2, "maxLength": 4}},
    ["size"],
    **{"$defs": {"Size": {"anyOf": [{"type": "integer"}, {"const": "all"}]}}},
)
TOOLS = (WEATHER, WRITE, NOW, NOWHERE, BY_REFERENCE)
FAMILIES = {dialect.name: dialect for dialect in DIALECTS}

CODE = 'def f(a):\n    return "<b>" if a else </i>\n'

# One call of the weather, one that writes code, and one without arguments, as each family's template has them.
WEATHER_CALL = {
    "qwen3-coder": (
        "<tool_call>\n<function=get_weather>\n<parameter=city>\nParis\n</parameter>\n<parameter=days>\n3\n</parameter>\n"
        '<parameter=filter>\n{"hours": [6, 18]}\n</parameter>\n</function>\n</tool_call>'
    ),
    "seed-oss": (
        "<seed:tool_call>\n<function=get_weather>\n<parameter=city>Paris</parameter>\n<parameter=days>3</parameter>\n"
        '<parameter=filter>{"hours": [6, 18]}</parameter>\n</function>\n</seed:tool_call>'
    ),
    "glm": (
        "<tool_call>get_weather\n<arg_key>city</arg_key>\n<arg_value>Paris</arg_value>\n<arg_key>days</arg_key>\n"
        '<arg_value>3</arg_value>\n<arg_key>filter</arg_key>\n<arg_value>{"hours": [6, 18]}</arg_value>\n</tool_call>'
    ),
    "minimax-m2": (
        '<minimax:tool_call>\n<invoke name="get_weather">\n<parameter name="city">Paris</parameter>\n'
        '<parameter name="days">3</parameter>\n<parameter name="filter">{"hours": [6, 18]}</parameter>\n</invoke>\n'
        "</minimax:tool_call>"
    ),
}
WRITE_CALL = {
    "qwen3-coder": (
        "<tool_call>\n<function=write_file>\n<parameter=path>\na.py\n</parameter>\n"
        f"<parameter=text>\n{CODE}\n</parameter>\n</function>\n</tool_call>"
    ),
    "seed-oss": (
        "<seed:tool_call>\n<function=write_file>\n<parameter=path>a.py</parameter>\n"
        f"<parameter=text>{CODE}</parameter>\n</function>\n</seed:tool_call>"
    ),
    "glm": (
        "<tool_call>write_file\n<arg_key>path</arg_key>\n<arg_value>a.py</arg_value>\n<arg_key>text</arg_key>\n"
        f"<arg_value>{CODE}</arg_value>\n</tool_call>"
    ),
    "minimax-m2": (
        '<minimax:tool_call>\n<invoke name="write_file">\n<parameter name="path">a.py</parameter>\n'
        f'<parameter name="text">{CODE}</parameter>\n</invoke>\n</minimax:tool_call>'
    ),
}
NOW_CALL = {
    "qwen3-coder": "<tool_call>\n<function=now>\n</function>\n</tool_call>",
    "seed-oss": "<seed:tool_call>\n<function=now>\n</function>\n</seed:tool_call>",
    "glm": "<tool_call>now</tool_call>",
    "minimax-m2": '<minimax:tool_call>\n<invoke name="now">\n</invoke>\n</minimax:tool_call>',
}
WEATHER_READ = ("get_weather", {"city": "Paris", "days": 3, "filter": {"hours": [6, 18]}})
WRITE_READ = ("write_file", {"path": "a.py", "text": CODE})
NOW_READ: tuple[str, Any] = ("now", {})

NAMES = sorted(WEATHER_CALL)
THINKING = Template(kind="jinja", text="{{ '<think>' }}{{ '</think>' }}")


def request(**changes: Any) -> OutputRequest:
    return OutputRequest(**{"template": None, "tools": TOOLS, **changes})


def reader(name: str, **changes: Any) -> OutputReader:
    return FAMILIES[name].reader(request(**changes))


def syntax(name: str) -> TagSyntax:
    dialect = FAMILIES[name]
    assert isinstance(dialect, FamilyDialect)
    assert isinstance(dialect.calls, TagSyntax)
    return dialect.calls


def grammar(name: str, **changes: Any) -> Grammar:
    tags = syntax(name)
    return Grammar(FAMILIES[name].shape(request(**changes)), [tags.padding + tags.value.close])


@pytest.mark.parametrize("name", NAMES)
def test_calls_are_read(name: str) -> None:
    assert read_alike(lambda: reader(name), WEATHER_CALL[name]) == Output(calls=(WEATHER_READ,))
    assert read_alike(lambda: reader(name), WRITE_CALL[name]) == Output(calls=(WRITE_READ,))
    assert read_alike(lambda: reader(name), NOW_CALL[name]) == Output(calls=(NOW_READ,))


@pytest.mark.parametrize("name", NAMES)
@given(data=st.data())
def test_chunks_make_no_difference(name: str, data: st.DataObject) -> None:
    text = f"<think>A <b>thought</b>.</think>Let me see.\n{WEATHER_CALL[name]}\n{WRITE_CALL[name]}\nDone \U0001f600."
    assert read(reader(name, template=THINKING), data.draw(chunked(text))) == Output(
        thinking="A <b>thought</b>.",
        content="Let me see.\n\nDone \U0001f600.",
        calls=(WEATHER_READ, WRITE_READ),
    )


@pytest.mark.parametrize("name", NAMES)
def test_what_is_no_call_stays_in_the_content(name: str) -> None:
    call = WEATHER_CALL[name]
    unknown = call.replace("get_weather", "get_wether")
    assert read_alike(lambda: reader(name), unknown) == Output(content=unknown, notices=("unknown_tool",))
    twice = call.replace("days", "city")
    assert read_alike(lambda: reader(name), twice) == Output(content=twice, notices=("tool_call_not_parsed",))
    cut = call[: call.index("Paris") + 3]
    assert read_alike(lambda: reader(name), cut) == Output(content=cut, notices=("tool_call_not_parsed",))
    mention = f"I write {syntax(name).block.open} for calls."
    assert read_alike(lambda: reader(name), mention).content == mention


@pytest.mark.parametrize("name", NAMES)
def test_a_broken_call_does_not_take_the_others_along(name: str) -> None:
    broken = WEATHER_CALL[name].replace("days", "city")
    output = read_alike(lambda: reader(name), NOW_CALL[name] + broken + NOW_CALL[name])
    assert output == Output(content=broken, calls=(NOW_READ, NOW_READ), notices=("tool_call_not_parsed",))


@pytest.mark.parametrize("name", NAMES)
def test_without_tools_calls_are_content(name: str) -> None:
    assert read_alike(lambda: reader(name, tools=()), NOW_CALL[name]) == Output(content=NOW_CALL[name])


@pytest.mark.parametrize("name", NAMES)
def test_arguments_come_as_they_are_written(name: str) -> None:
    parts = reader(name).push(WRITE_CALL[name].split("return")[0])
    pieces = "".join(part.call.arguments for part in parts if part.call is not None)
    assert pieces.startswith('{"path": "a.py", "text": ')
    assert (
        syntax(name).padding or name != "seed-oss" or "def f" not in pieces
    )  # null is allowed: the value waits


def test_a_string_is_not_held_back() -> None:
    only_text = tool("say", {"text": {"type": "string"}}, ["text"])
    parts = reader("qwen3-coder", tools=(only_text,)).push(
        "<tool_call>\n<function=say>\n<parameter=text>\nOne <b>two"
    )
    assert "".join(part.call.arguments for part in parts if part.call) == '{"text": "One <b>two'


def test_qwen_may_leave_out_the_opening_tag_and_lines() -> None:
    bare = WEATHER_CALL["qwen3-coder"].removeprefix("<tool_call>\n")
    assert read_alike(lambda: reader("qwen3-coder"), bare) == Output(calls=(WEATHER_READ,))
    close = "<tool_call><function=get_weather><parameter=city>Paris</parameter></function></tool_call>"
    assert read_alike(lambda: reader("qwen3-coder"), close) == Output(
        calls=(("get_weather", {"city": "Paris"}),)
    )


def test_thinking_models_of_these_families_need_no_template_to_begin_in_a_thought() -> None:
    text = f"Hm.</think>\n\n{WEATHER_CALL['qwen3-coder']}"
    output = read_alike(lambda: reader("qwen3.5", prompt="<|im_start|>assistant\n<think>\n"), text)
    assert output == Output(thinking="Hm.", calls=(WEATHER_READ,))
    text = f"<seed:think>Hm.</seed:think>{WEATHER_CALL['seed-oss']}"
    assert read_alike(lambda: reader("seed-oss"), text) == Output(thinking="Hm.", calls=(WEATHER_READ,))


def test_a_block_may_hold_several_calls() -> None:
    text = (
        '<minimax:tool_call>\n<invoke name="now">\n</invoke>\n<invoke name="get_weather">\n'
        '<parameter name="city">Rome</parameter>\n</invoke>\n</minimax:tool_call>'
    )
    output = read_alike(lambda: reader("minimax-m2"), text)
    assert output == Output(calls=(NOW_READ, ("get_weather", {"city": "Rome"})))


@pytest.mark.parametrize("name", NAMES)
def test_the_grammar_takes_what_the_family_writes(name: str) -> None:
    calls = grammar(name)
    for text in (
        WEATHER_CALL[name],
        WRITE_CALL[name],
        NOW_CALL[name],
        f"{WEATHER_CALL[name]}\n{NOW_CALL[name]}",
    ):
        assert calls.accepts(text)
    assert not grammar(name, parallel=False).accepts(f"{NOW_CALL[name]}\n{NOW_CALL[name]}")


@pytest.mark.parametrize("name", NAMES)
def test_the_grammar_refuses_what_the_schema_does(name: str) -> None:
    calls = grammar(name)
    weather = WEATHER_CALL[name]
    assert not calls.accepts(weather.replace("get_weather", "get_wether"))
    assert not calls.accepts(weather.replace("3", "three"))
    assert not calls.accepts(weather.replace("3", "0"))
    assert not calls.accepts(weather.replace("18]", '"18"]'))
    assert not calls.accepts(weather.replace("days", "weeks"))
    assert not calls.accepts(weather.replace("days", "city"))
    assert not calls.accepts(WRITE_CALL[name].replace("path", "text"))
    assert not calls.accepts(NOW_CALL[name].replace("now", "now_here"))


@pytest.mark.parametrize("name", NAMES)
def test_arguments_may_come_in_any_order(name: str) -> None:
    weather = WEATHER_CALL[name].replace("city", "?").replace("days", "city").replace("?", "days")
    assert grammar(name).accepts(weather.replace("Paris", "?").replace("3", "Paris").replace("?", "3"))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("seed", range(15))
def test_whatever_the_grammar_accepts_is_read_as_valid_calls(name: str, seed: int) -> None:
    schemas = {item["function"]["name"]: item["function"]["parameters"] for item in TOOLS}
    text = grammar(name).walk(seed)
    output = read(reader(name), [text])
    assert output.calls
    assert output == Output(calls=output.calls)
    for called, arguments in output.calls:
        jsonschema.validate(arguments, schemas[called])


def test_many_arguments_come_in_the_order_of_the_schema() -> None:
    properties = {f"a{number}": {"type": "integer"} for number in range(100)}
    wide = (tool("wide", properties, ["a7"]),)

    def call(*keys: str) -> str:
        lines = "".join(f"<arg_key>{key}</arg_key><arg_value>1</arg_value>" for key in keys)
        return f"<tool_call>wide{lines}</tool_call>"

    calls = grammar("glm", tools=wide)
    assert calls.accepts(call(*properties))
    assert calls.accepts(call("a7"))
    assert calls.accepts(call("a0", "a7", "a99"))
    assert not calls.accepts(call("a99", "a7"))
    assert not calls.accepts(call("a0"))


def test_a_tool_whose_parameters_stand_elsewhere_in_its_schema() -> None:
    there = {"properties": {"days": {"type": "integer"}}, "required": ["days"]}
    whole = {
        "$ref": "#/$defs/W",
        "allOf": [{"properties": {"city": {"type": "string"}}}],
        "$defs": {"W": there},
    }
    referring = {"type": "function", "function": {"name": "weather", "description": "", "parameters": whole}}
    asked = request(tools=(referring,))
    calls = Grammar(FAMILIES["qwen3-coder"].shape(asked))

    def call(**arguments: str) -> str:
        given = "".join(f"<parameter={key}>\n{value}\n</parameter>\n" for key, value in arguments.items())
        return f"<tool_call>\n<function=weather>\n{given}</function>\n</tool_call>"

    assert calls.accepts(call(city="Paris", days="3")) and not calls.accepts(call(days="three"))
    assert not calls.accepts(call(city="Paris")) and not calls.accepts(call())
    output = read(FAMILIES["qwen3-coder"].reader(asked), [call(city="3", days="3")])
    assert output == Output(calls=(("weather", {"city": "3", "days": 3}),))


def test_tools_that_cannot_be_written_are_left_out() -> None:
    odd = (tool('<"odd">', {}), tool("fine", {"a\nb": {"type": "string"}}), tool("never", {"<": {}}, ["<"]))
    shape = FAMILIES["qwen3-coder"].shape(request(tools=odd))
    assert Grammar(shape).accepts("<tool_call>\n<function=fine>\n</function>\n</tool_call>")
    assert not Grammar(shape).accepts("<tool_call>\n<function=never>\n</function>\n</tool_call>")
    assert FAMILIES["qwen3-coder"].shape(request(tools=odd[:1])).calls == ""
