"""Families whose calls are JSON objects, or a name and a JSON object, or written as Gemma does."""

from __future__ import annotations

import re
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corectl.messages import Template
from corectl.output.choose import choose_dialect
from corectl.output.dialect import Dialect, OutputReader, OutputRequest
from corectl_dialects import corectl_dialects, functionary, gemma, json_calls, named_calls
from tests.core.constrain_kit import KitTokenizer, constrain
from tests.plugins.dialect_kit import Grammar, Output, chunked, read, read_alike, tool

WEATHER = tool(
    "get_weather",
    {
        "city": {"type": "string", "maxLength": 12},
        "days": {"type": "integer", "minimum": 1},
        "unit": {"enum": ["celsius", "fahrenheit"]},
        "hours": {"type": "array", "items": {"type": "integer"}, "maxItems": 3},
        "where": {"type": "object", "properties": {"zip": {"type": "string", "pattern": "^[0-9]{5}$"}}},
    },
    ["city"],
    additionalProperties=False,
)
NOW = tool("get_time", {}, additionalProperties=False)
SOONER = tool(
    "get_time_zone",
    {"place": {"$ref": "#/$defs/Place"}},
    ["place"],
    **{"$defs": {"Place": {"type": "string"}}},
)
TOOLS = (WEATHER, NOW, SOONER)
PARAMETERS = {item["function"]["name"]: item["function"]["parameters"] for item in TOOLS}

DIALECTS: dict[str, Dialect] = {
    dialect.name: dialect
    for dialect in (
        *json_calls.DIALECTS,
        *named_calls.DIALECTS,
        *gemma.DIALECTS,
        functionary.FunctionaryDialect(),
    )
}

# A call of the weather and one without arguments, together, as each family's template writes them.
CALLS = {
    "hermes": (
        '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris", "days": 3}}\n</tool_call>\n'
        '<tool_call>\n{"name": "get_time", "arguments": {}}\n</tool_call>'
    ),
    "llama3-json": (
        '{"name": "get_weather", "parameters": {"city": "Paris", "days": 3}}; {"name": "get_time", "parameters": {}}'
    ),
    "mistral": (
        '[TOOL_CALLS] [{"name": "get_weather", "arguments": {"city": "Paris", "days": 3}}, '
        '{"name": "get_time", "arguments": {}}]'
    ),
    "command-r": (
        'Action: ```json\n[\n    {\n        "tool_name": "get_weather",\n'
        '        "parameters": {"city": "Paris", "days": 3}\n    },\n'
        '    {\n        "tool_name": "get_time",\n        "parameters": {}\n    }\n]\n```'
    ),
    "cohere": (
        '<|START_ACTION|>[\n    {"tool_call_id": "0", "tool_name": "get_weather", '
        '"parameters": {"city": "Paris", "days": 3}},\n'
        '    {"tool_call_id": "1", "tool_name": "get_time", "parameters": {}}\n]<|END_ACTION|>'
    ),
    "granite": (
        '<|tool_call|>[{"name": "get_weather", "arguments": {"city": "Paris", "days": 3}}, '
        '{"name": "get_time", "arguments": {}}]'
    ),
    "phi4-mini": (
        '<|tool_call|>[{"name": "get_weather", "arguments": {"city": "Paris", "days": 3}}, '
        '{"name": "get_time", "arguments": {}}]<|/tool_call|>'
    ),
    "minimax-m1": (
        '<tool_calls>\n{"name": "get_weather", "arguments": {"city": "Paris", "days": 3}}\n'
        '{"name": "get_time", "arguments": {}}\n</tool_calls>'
    ),
    "ministral": '[TOOL_CALLS]get_weather[ARGS]{"city": "Paris", "days": 3}[TOOL_CALLS]get_time[ARGS]{}',
    "mistral-call-id": (
        '[TOOL_CALLS]get_weather[CALL_ID]a1B2c3D4e[ARGS]{"city": "Paris", "days": 3}'
        "[TOOL_CALLS]get_time[CALL_ID]a1B2c3D4f[ARGS]{}"
    ),
    "deepseek-v3.1": (
        '<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>get_weather<｜tool▁sep｜>{"city": "Paris", "days": 3}'
        "<｜tool▁call▁end｜><｜tool▁call▁begin｜>get_time<｜tool▁sep｜>{}<｜tool▁call▁end｜><｜tool▁calls▁end｜>"
    ),
    "deepseek-r1": (
        "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>get_weather\n```json\n"
        '{"city": "Paris", "days": 3}\n```<｜tool▁call▁end｜>\n'
        "<｜tool▁call▁begin｜>function<｜tool▁sep｜>get_time\n```json\n{}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>"
    ),
    "kimi-k2": (
        "<|tool_calls_section_begin|><|tool_call_begin|>functions.get_weather:0<|tool_call_argument_begin|>"
        '{"city": "Paris", "days": 3}<|tool_call_end|><|tool_call_begin|>functions.get_time:1'
        "<|tool_call_argument_begin|>{}<|tool_call_end|><|tool_calls_section_end|>"
    ),
    "functionary-v3.1": '<function=get_weather>{"city": "Paris", "days": 3}</function><function=get_time>{}</function>',
    "functionary-v3.2": '>>>get_weather\n{"city": "Paris", "days": 3}>>>get_time\n{}',
    "functiongemma": (
        "<start_function_call>call:get_weather{city:<escape>Paris<escape>,days:3}<end_function_call>"
        "<start_function_call>call:get_time{}<end_function_call>"
    ),
    "gemma4": (
        '<|tool_call>call:get_weather{city:<|"|>Paris<|"|>,days:3}<tool_call|><|tool_call>call:get_time{}<tool_call|>'
    ),
}
CALLS |= {"hermes-thinking": CALLS["hermes"], "command-a": CALLS["cohere"]}
NAMES = sorted(CALLS)
READ: tuple[tuple[str, dict[str, Any]], ...] = (
    ("get_weather", {"city": "Paris", "days": 3}),
    ("get_time", {}),
)

# What leads to content in the one dialect where a name must stand in front of it.
LEAD = {"functionary-v3.2": ">>>all\n"}


def request(**changes: Any) -> OutputRequest:
    return OutputRequest(**{"template": None, "tools": TOOLS, **changes})


def grammar(name: str, **changes: Any) -> Grammar:
    """The grammar of the calls. Walks need the quotes of a family as tokens, to find out of a string."""
    shape = DIALECTS[name].shape(request(**changes))
    return Grammar(shape, [text for text in ("<escape>", '<|"|>') if text in shape.markers])


def first_call(name: str) -> str:
    """The part of the calls up to the end of the first arguments."""
    return re.split(r"(?<=days\": 3\})|(?<=days:3\})", CALLS[name])[0]


def test_every_dialect_is_covered() -> None:
    assert set(DIALECTS) == set(CALLS)
    assert set(DIALECTS) <= {dialect.name for dialect in corectl_dialects()}


@pytest.mark.parametrize("name", NAMES)
def test_calls_are_read(name: str) -> None:
    output = read_alike(lambda: DIALECTS[name].reader(request()), CALLS[name])
    assert output == Output(calls=READ)


@pytest.mark.parametrize("name", NAMES)
def test_a_call_that_lacks_what_ends_the_block_is_a_call(name: str) -> None:
    output = read_alike(lambda: DIALECTS[name].reader(request()), first_call(name))
    assert output == Output(calls=READ[:1])


@pytest.mark.parametrize("name", NAMES)
def test_blanks_around_calls_are_dropped(name: str) -> None:
    output = read(DIALECTS[name].reader(request()), [f"\n  {CALLS[name]}\n\n"])
    if name != "functionary-v3.2":
        assert output == Output(calls=READ)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "llama3-json"])
def test_content_around_calls_stays(name: str) -> None:
    lead = LEAD.get(name, "")
    text = f"{lead}Let me see: <b>\n{CALLS[name]}\n{lead}Done. 🌧 < ["
    output = read_alike(lambda: DIALECTS[name].reader(request()), text)
    assert output.calls == READ
    assert output.content.startswith("Let me see: <b>\n")
    assert output.content.endswith("Done. 🌧 < [")
    assert not output.notices


def test_a_bare_object_is_a_call_only_in_front() -> None:
    def new() -> OutputReader:
        return DIALECTS["llama3-json"].reader(request())

    text = f"Sure: {CALLS['llama3-json']}"
    assert read_alike(new, text) == Output(content=text)
    assert read_alike(new, f"<|python_tag|>{CALLS['llama3-json']}\nDone") == Output(
        content="\nDone", calls=READ
    )


@pytest.mark.parametrize("name", NAMES)
def test_without_tools_calls_are_content(name: str) -> None:
    text = f"Look: {CALLS[name]}"
    output = read(DIALECTS[name].reader(request(tools=())), list(text))
    assert output.calls == ()
    assert "get_weather" in output.content and "Paris" in output.content


@pytest.mark.parametrize("name", NAMES)
def test_a_call_that_is_cut_off_comes_as_text(name: str) -> None:
    cut = first_call(name)[: first_call(name).index("Paris") + 3]
    output = read_alike(lambda: DIALECTS[name].reader(request()), cut)
    assert output == Output(content=cut, notices=("tool_call_not_parsed",))


@pytest.mark.parametrize("name", NAMES)
def test_a_call_that_is_cut_off_is_never_another_call(name: str) -> None:
    whole = CALLS[name]
    for place in range(len(whole)):
        calls = read(DIALECTS[name].reader(request()), [whole[:place]]).calls
        assert calls == READ[: len(calls)], whole[:place]


@pytest.mark.parametrize("name", [name for name in NAMES if name != "functionary-v3.2"])
def test_an_unknown_tool_comes_as_text(name: str) -> None:
    text = CALLS[name].replace("get_weather", "get_whether")
    output = read_alike(lambda: DIALECTS[name].reader(request()), text)
    assert output.notices[0] == "unknown_tool"
    first = re.split(r"get_time", text)[0]
    assert output.content.startswith(first[: first.rindex("days") + 4])


@pytest.mark.parametrize("name", [name for name in NAMES if "gemma" not in name])
def test_what_is_no_json_comes_as_text(name: str) -> None:
    text = CALLS[name].replace('"days": 3}', '"days": 3]')
    output = read_alike(lambda: DIALECTS[name].reader(request()), text)
    assert output.notices[0] == "tool_call_not_parsed"
    assert output.content.startswith(text.partition("]}")[0].partition("3]")[0])


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=40)
@given(data=st.data())
def test_the_result_does_not_depend_on_chunks(name: str, data: st.DataObject) -> None:
    pieces = st.sampled_from(
        ["<think>", "Hm", "</think>", " ", "\n", "<", "[", "{", '"', "é🌧", *re.split(r"(?<=\W)", CALLS[name])]
    )
    text = data.draw(st.just(CALLS[name]) | st.lists(pieces, max_size=30).map("".join))
    template = Template(kind="jinja", text="{{ '</think>' }}")
    asked = request(template=template)
    chunks = data.draw(chunked(text))
    assert read(DIALECTS[name].reader(asked), chunks) == read(DIALECTS[name].reader(asked), [text])


@pytest.mark.parametrize("name", NAMES)
def test_the_grammar_takes_what_templates_write(name: str) -> None:
    accepts = grammar(name).accepts
    assert accepts(CALLS[name])
    assert not accepts(CALLS[name].replace("get_weather", "get_whether"))
    assert not accepts(CALLS[name].replace("days", "daze"))
    assert not accepts(re.sub(r"(days\W+)3", r"\1true", CALLS[name]))
    assert not accepts(re.sub(r"(days\W+)3", r"\g<1>0", CALLS[name]))


@pytest.mark.parametrize("name", NAMES)
def test_one_call_only_where_parallel_calls_are_not_wanted(name: str) -> None:
    single = grammar(name, parallel=False)
    assert not single.accepts(CALLS[name])
    assert len(read(DIALECTS[name].reader(request()), [single.walk(1)]).calls) == 1


@pytest.mark.parametrize("name", NAMES)
def test_what_the_grammar_allows_is_read_as_calls_that_are_valid(name: str) -> None:
    dialect = DIALECTS[name]
    calls = grammar(name)
    for seed in range(15):
        text = calls.walk(seed)
        output = read(dialect.reader(request()), [text])
        assert output.calls and not output.content and not output.notices, text
        assert output == read(dialect.reader(request()), list(text))
        for called, arguments in output.calls:
            jsonschema.validate(arguments, PARAMETERS[called])


@pytest.mark.parametrize("name", NAMES)
def test_openers_begin_what_the_grammar_allows(name: str) -> None:
    shape = DIALECTS[name].shape(request())
    openers = (*shape.call_openers, *shape.first_openers)
    assert CALLS[name].startswith(openers)
    assert grammar(name).walk(7).startswith(openers)


def test_arguments_come_as_they_are_written() -> None:
    reader = DIALECTS["hermes"].reader(request())
    chunks = ('<tool_call>{"name": "get_weather", "arg', 'uments": {"ci', 'ty": "Pa', 'ris"', "}")
    parts = [[part.call.arguments for part in reader.push(chunk) if part.call] for chunk in chunks]
    assert [len(part) > 0 for part in parts] == [False, True, True, True, True]
    assert "".join(piece for part in parts for piece in part) == '{"city": "Paris"}'


@pytest.mark.parametrize(
    "call",
    [
        '{"arguments": {"city": "Paris", "days": 3}, "name": "get_weather"}',
        '{"id": 7, "type": "function", "function": {"name": "get_weather", "arguments": {"city": "Paris", "days": 3}}}',
        r'{"name": "get_weather", "arguments": "{\"city\": \"Paris\", \"days\": 3}"}',
        '{"type": "function", "function": "get_weather", "parameters": {"city": "Paris", "days": 3}}',
        '{"tool": "get_weather", "args": {"city": "Paris", "days": 3}}',
        '[{"name": "get_weather", "arguments": {"city": "Paris", "days": 3}}]',
        '{"name": "get_weather", "arguments": {"city": "Paris", "days": 3}',
    ],
)
def test_objects_in_other_forms(call: str) -> None:
    text = f"<tool_call>\n{call}\n</tool_call>"
    assert read_alike(lambda: DIALECTS["hermes"].reader(request()), text) == Output(calls=READ[:1])


@pytest.mark.parametrize("arguments", ["", ', "arguments": null', ', "arguments": ""', ', "arguments": "{}"'])
def test_no_arguments_are_an_empty_object(arguments: str) -> None:
    text = f'<tool_call>{{"name": "get_time"{arguments}}}</tool_call>'
    assert read_alike(lambda: DIALECTS["hermes"].reader(request()), text) == Output(calls=READ[1:])


@pytest.mark.parametrize(
    "arguments", ["[1]", "7", '"x"', '{"city": NaN}', "{'city': 1}", "[" * 2000, '{"a":' * 2000]
)
def test_arguments_that_are_no_object_come_as_text(arguments: str) -> None:
    text = f'<tool_call>{{"name": "get_weather", "arguments": {arguments}}}</tool_call> So.'
    output = read(DIALECTS["hermes"].reader(request()), [text])
    assert output == read(DIALECTS["hermes"].reader(request()), list(text))
    assert output == Output(content=text, notices=("tool_call_not_parsed",))


def ids(name: str, text: str) -> list[str]:
    return [
        part.call.id for part in DIALECTS[name].reader(request()).push(text) if part.call and part.call.id
    ]


def test_ids() -> None:
    usual, other = ids("hermes", CALLS["hermes"])
    assert re.fullmatch(r"call_[a-z0-9]{8}", usual) and usual != other
    assert all(re.fullmatch(r"[a-z0-9]{9}", id) for id in ids("mistral", CALLS["mistral"]))
    assert ids("mistral-call-id", CALLS["mistral-call-id"]) == ["a1B2c3D4e", "a1B2c3D4f"]
    assert ids("kimi-k2", CALLS["kimi-k2"]) == ["functions.get_weather:0", "functions.get_time:1"]


def test_kimi_names_that_hold_a_colon_or_no_number() -> None:
    dialect = DIALECTS["kimi-k2"]
    tools = (tool("server:get_time", {}),)
    for written in ("functions.server:get_time:12", "server:get_time"):
        text = (
            CALLS["kimi-k2"]
            .replace("functions.get_weather:0", written)
            .replace("functions.get_time:1", written)
        )
        output = read(dialect.reader(request(tools=tools)), [text])
        assert [name for name, _ in output.calls] == ["server:get_time"] * 2


@pytest.mark.parametrize("name", ["cohere", "command-a"])
def test_cohere_response_tags_are_no_content(name: str) -> None:
    text = "<|START_THINKING|>Hm.<|END_THINKING|><|START_RESPONSE|>Rain.<|END_RESPONSE|>"
    output = read_alike(lambda: DIALECTS[name].reader(request()), text)
    assert output == Output(content="Rain.", thinking="Hm.")


def test_cohere_content_begins_as_the_template_says() -> None:
    assert DIALECTS["cohere"].shape(request()).content_open == "<|START_TEXT|>"
    assert DIALECTS["command-a"].shape(request()).content_open == "<|START_RESPONSE|>"


def test_functionary_begins_where_its_prompt_ends() -> None:
    dialect = DIALECTS["functionary-v3.2"]
    asked = request(prompt="<|start_header_id|>assistant<|end_header_id|>\n\n>>>")

    def new() -> OutputReader:
        return dialect.reader(asked)

    assert read_alike(new, "all\nSee >>> below.\n>>>get_time\n{}") == Output(
        content="See >>> below.\n", calls=READ[1:]
    )
    assert read_alike(new, 'get_weather\n{"city": "Paris", "days": 3}') == Output(calls=READ[:1])
    assert read_alike(new, "Rain.") == Output(content="Rain.")
    shape = dialect.shape(asked)
    assert shape.content_open == "all\n"
    for opener in ("", ">>>"):
        assert Grammar(shape).accepts(opener + CALLS["functionary-v3.2"].removeprefix(">>>"))
    assert read_alike(new, " get_time\n{}") == Output(calls=READ[1:])
    writer = constrain(shape, KitTokenizer())
    writer.write("get_time\n{}\nget_weather\n")
    assert writer.may_end() and writer.may_write("x")
    for begun in ("", "all\nA line with get_time\n and another.\n>>>"):
        writer = constrain(shape, KitTokenizer())
        writer.write(f"{begun}get_weather\n")
        assert not writer.may_end() and writer.may_write("{") and not writer.may_write("x")


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ('<|"|>say "hi", {then} [go]\n\\n<|"|>', 'say "hi", {then} [go]\n\\n'),
        ('"say \\"hi\\""', 'say "hi"'),
        ("-1.5e3", -1500.0),
        ("true", True),
        ("null", None),
        ("plain words", "plain words"),
        ('[<|"|>a<|"|>, {b: 1 ,c:[]}]', ["a", {"b": 1, "c": []}]),
        ('{<|"|>odd key<|"|>:{}}', {"odd key": {}}),
    ],
)
def test_gemma_values(written: str, value: Any) -> None:
    text = f"<|tool_call>call:get_weather{{city:{written}}}<tool_call|>"
    output = read_alike(lambda: DIALECTS["gemma4"].reader(request()), text)
    assert output == Output(calls=(("get_weather", {"city": value}),))


@pytest.mark.parametrize("arguments", ["city:", "city", ":1", "city:[1", "city:{", "a:[" * 300])
def test_gemma_values_that_are_none(arguments: str) -> None:
    text = f"<|tool_call>call:get_weather{{{arguments}"
    output = read(DIALECTS["gemma4"].reader(request()), [text])
    assert output == read(DIALECTS["gemma4"].reader(request()), list(text))
    assert output == Output(content=text, notices=("tool_call_not_parsed",))


def test_gemma_grammar_of_a_schema_that_refers_to_itself() -> None:
    tree = {
        "type": "object",
        "properties": {"left": {"$ref": "#/$defs/Tree"}, "right": {"$ref": "#/$defs/Tree"}},
    }
    tools = (tool("grow", {"tree": {"$ref": "#/$defs/Tree"}}, ["tree"], **{"$defs": {"Tree": tree}}),)
    accepts = grammar("gemma4", tools=tools).accepts
    assert accepts("<|tool_call>call:grow{tree:{left:{right:{}}}}<tool_call|>")
    assert not accepts("<|tool_call>call:grow{tree:7}<tool_call|>")


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("""{{ '<tool_call>\\n{"name": "' }}{{ '", "arguments": ' }}""", "hermes"),
        ('Respond in the format {"name": function name, "parameters": dictionary of argument name and its value}.',
         "llama3-json"),
        ("{{ '[TOOL_CALLS] [' }}", "mistral"),
        ("{{ '[TOOL_CALLS]' + name + '[ARGS]' }}", "ministral"),
        ("{{ '[TOOL_CALLS]' + name + '[CALL_ID]' + id + '[ARGS]' }}", "mistral-call-id"),
        ("{{ '<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>' + name + '<｜tool▁sep｜>' }}", "deepseek-v3.1"),
        ("{{ '<｜tool▁calls▁begin｜>' + '<｜tool▁sep｜>' + '\\n```json\\n' }}", "deepseek-r1"),
        ("<|tool_calls_section_begin|>", "kimi-k2"),
        ("<start_function_call>", "functiongemma"),
        ("<|tool_call>call:", "gemma4"),
        ("{{ '>>>all\\n' }}", "functionary-v3.2"),
        ("{{ '<function=' + name + '>' }}</function>", "functionary-v3.1"),
        ("<|START_ACTION|> <|START_RESPONSE|>", "command-a"),
        ("<|START_ACTION|> <|START_TEXT|>", "cohere"),
        ('Action: ```json "tool_name"', "command-r"),
        ("{{ message.content }}", "learned"),
    ],
)  # fmt: skip
def test_templates_are_claimed(text: str, name: str) -> None:
    known = {dialect.name: dialect for dialect in corectl_dialects()}
    for kind in ("jinja", "go"):
        assert choose_dialect(known, "", Template(kind=kind, text=text))[0].name == name


@pytest.mark.parametrize(
    "parser",
    ["qwen3", "qwen3-thinking", "qwen3-vl-instruct", "qwen3-vl-thinking", "ministral", "cogito", "deepseek3", "gemma4",
     "functiongemma", "gemma4-no-thinking", "cohere", "passthrough"],
)  # fmt: skip
def test_parser_names(parser: str) -> None:
    known = {dialect.name: dialect for dialect in corectl_dialects()}
    dialect, _ = choose_dialect(known, parser, None)
    assert parser == dialect.name or parser in dialect.aliases
