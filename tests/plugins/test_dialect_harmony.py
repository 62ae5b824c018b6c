"""gpt-oss: messages in channels."""

from __future__ import annotations

import os
import time
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from corectl.messages import Template
from corectl.output.dialect import OutputReader, OutputRequest, Tags
from corectl_dialects.harmony import (
    CALL,
    CHANNEL,
    CONSTRAIN,
    END,
    MARKERS,
    MESSAGE,
    RETURN,
    START,
    HarmonyDialect,
    Header,
    prompt_header,
    written_names,
)
from tests.core.constrain_kit import KitTokenizer, constrain
from tests.plugins.dialect_kit import Grammar, Output, chunked, read, read_alike, tool

WEATHER = tool("get_weather", {"city": {"type": "string"}, "days": {"type": "integer"}}, ["city"])
SEARCH = tool("web-search.v2", {"query": {"type": "string"}}, ["query"])
NOW = tool("now", {})
TOOLS = (WEATHER, SEARCH, NOW)
PROMPT = f"{START}user{MESSAGE}Hi{END}{START}assistant"
NEXT = f"{END}{START}assistant"
PARIS = ("get_weather", {"city": "Paris"})


def reader(**changes: Any) -> OutputReader:
    return HarmonyDialect().reader(
        OutputRequest(**{"template": None, "prompt": PROMPT, "tools": TOOLS, **changes})
    )


def thought(text: str) -> str:
    return f"{CHANNEL}analysis{MESSAGE}{text}{NEXT}"


def final(text: str) -> str:
    return f"{CHANNEL}final{MESSAGE}{text}"


def call(name: str = "get_weather", arguments: str = '{"city": "Paris"}') -> str:
    return f"{CHANNEL}commentary to=functions.{name} {CONSTRAIN}json{MESSAGE}{arguments}"


WELL_FORMED = {
    final("2 < 4 | <b>.") + RETURN: Output(content="2 < 4 | <b>."),
    thought("Hm.") + final("Yes \U0001f600."): Output(thinking="Hm.", content="Yes \U0001f600."),
    thought("One.") + thought("Two.") + final("Yes."): Output(thinking="One.\nTwo.", content="Yes."),
    thought("") + final(""): Output(),
    thought("Hm.") + call() + CALL: Output(thinking="Hm.", calls=(PARIS,)),
    f"{CHANNEL}commentary{MESSAGE}I look it up.{NEXT}{call()}": Output(
        content="I look it up.", calls=(PARIS,)
    ),
    f"{CHANNEL}commentary{MESSAGE}I know.{NEXT}{final('Yes.')}": Output(content="I know.\nYes."),
    # The recipient in the role section, as the template itself writes it, and other forms of the header.
    f' to=functions.get_weather{CHANNEL}commentary json{MESSAGE}{{"city": "Paris"}}{CALL}': Output(
        calls=(PARIS,)
    ),
    thought("Hm.")
    + f' to=functions.get_weather{CHANNEL}commentary {CONSTRAIN}json{MESSAGE}{{"city": "Paris"}}': (
        Output(thinking="Hm.", calls=(PARIS,))
    ),
    f'{CHANNEL}commentary to=functions.get_weather{CONSTRAIN}json{MESSAGE}{{"city": "Paris"}}': Output(
        calls=(PARIS,)
    ),
    f'{CHANNEL}commentary to=functions.get_weather{MESSAGE}{{"city": "Paris"}}': Output(calls=(PARIS,)),
    f'{CHANNEL}analysis to=functions.get_weather code{MESSAGE}\n{{"city": "Paris"}}\n': Output(
        calls=(PARIS,)
    ),
    f'{CHANNEL}commentary to=get_weather{MESSAGE}{{"city": "Paris"}}': Output(calls=(PARIS,)),
    f"{CHANNEL}commentary to=functions.now{MESSAGE}{CALL}": Output(calls=(("now", {}),)),
    call() + CALL + START + "assistant" + call("now", "{}"): Output(calls=(PARIS, ("now", {}))),
    # Names with characters that no identifier has.
    call("web-search.v2", '{"query": "a"}'): Output(calls=(("web-search.v2", {"query": "a"}),)),
    call("web_search_v2", '{"query": "a"}'): Output(calls=(("web-search.v2", {"query": "a"}),)),
}
MALFORMED = {
    "Hello, <b>you</b>!": Output(content="Hello, <b>you</b>!"),
    "  Hello": Output(content="  Hello"),
    f"{CHANNEL}final All is well.": Output(
        content=f"{CHANNEL}final All is well.", notices=("output_not_parsed",)
    ),
    f"{CHANNEL}analysis{MESSAGE}Hm.{final('Yes.')}": Output(thinking="Hm.", content="Yes."),
    thought("Hm.") + "Yes." + RETURN: (
        Output(thinking="Hm.", content=f"{START}assistantYes.", notices=("output_not_parsed",))
    ),
    f"{START}assistant{final('Yes.')}": Output(content="Yes."),
    f"{final('Yes.')}{END}{END}No.": Output(content="Yes.\nNo."),
    call("get_wether"): Output(content=call("get_wether"), notices=("unknown_tool",)),
    f"{CHANNEL}analysis to=python code{MESSAGE}1 + 1{CALL}": (
        Output(content=f"{CHANNEL}analysis to=python code{MESSAGE}1 + 1", notices=("unknown_tool",))
    ),
    call(arguments='{"city": Paris}'): (
        Output(content=call(arguments='{"city": Paris}'), notices=("tool_call_not_parsed",))
    ),
    call(arguments='{"city": "Par'): Output(
        content=call(arguments='{"city": "Par'), notices=("tool_call_not_parsed",)
    ),
    f"{CHANNEL}commentary to=functions.now what is this{MESSAGE}{{}}": (
        Output(
            content=f"{CHANNEL}commentary to=functions.now what is this{MESSAGE}{{}}".replace(
                MESSAGE, MESSAGE
            ),
            notices=("tool_call_not_parsed",),
        )
    ),
}
CASES = {**WELL_FORMED, **MALFORMED}


@pytest.mark.parametrize("text", CASES)
def test_outputs_are_read(text: str) -> None:
    assert read_alike(reader, text) == CASES[text]


@given(data=st.data(), text=st.sampled_from(sorted(CASES)))
def test_chunks_make_no_difference(data: st.DataObject, text: str) -> None:
    assert read(reader(), data.draw(chunked(text))) == CASES[text]


@given(
    st.lists(
        st.sampled_from((*MARKERS, "analysis", "final", " to=", "functions.now", " ", "{}", "json", "a"))
    )
)
def test_no_text_is_lost(pieces: list[str]) -> None:
    output = read(reader(), ["".join(pieces)])
    assert read(reader(), pieces) == output
    said = output.content + output.thinking
    if not output.calls:
        assert said.count("{}") == pieces.count("{}")


def test_a_header_that_is_cut_off_is_dropped() -> None:
    whole = thought("Hm.") + call()
    body = whole.index(MESSAGE, whole.index("to="))
    for end in range(whole.index(END), body + len(MESSAGE)):
        output = read(reader(), [whole[:end]])
        assert output.thinking.startswith("Hm.")
        assert not output.calls


def test_without_tools_calls_are_content() -> None:
    assert read_alike(lambda: reader(tools=()), call()) == Output(content=call())
    assert read_alike(lambda: reader(tools=()), thought("Hm.") + final("Yes.")) == Output(
        thinking="Hm.", content="Yes."
    )


def test_arguments_come_as_they_are_written() -> None:
    parts = reader().push(call(arguments='{"city": "Par'))
    assert "".join(part.call.arguments for part in parts if part.call) == '{"city": "Par'


@pytest.mark.parametrize(
    ("prompt", "header"),
    [
        (PROMPT, None),
        ("", None),
        ("no messages", None),
        (f"{PROMPT}{final('')}", Header("final")),
        (f"{PROMPT}{final('The answer')}", Header("final")),
        (f"{PROMPT}{CHANNEL}analysis{MESSAGE}Well, ", Header("analysis")),
        (f"{PROMPT}{final('Done')}{END}", None),
        (f"{PROMPT}{CHANNEL}final and more{MESSAGE}", None),
    ],
)
def test_what_a_prompt_ends_in(prompt: str, header: Header | None) -> None:
    assert prompt_header(prompt) == header


def test_an_output_goes_on_where_the_prompt_ends() -> None:
    text = f"so.{NEXT}{final('Yes.')}"
    inside = f"{PROMPT}{CHANNEL}analysis{MESSAGE}And "
    assert read_alike(lambda: reader(prompt=inside), text) == Output(thinking="so.", content="Yes.")
    prefilled = f"{PROMPT}{final('The answer is')}"
    assert read_alike(lambda: reader(prompt=prefilled), " 4." + RETURN) == Output(content=" 4.")


def test_shape() -> None:
    def shape(prompt: str) -> Any:
        return HarmonyDialect().shape(OutputRequest(template=None, prompt=prompt, tools=TOOLS))

    begin = shape(PROMPT)
    assert begin.thought == Tags(f"{CHANNEL}analysis{MESSAGE}", NEXT)
    assert (begin.in_thought, begin.content_open) == (False, f"{CHANNEL}final{MESSAGE}")
    assert f"{CHANNEL}commentary to=functions." in begin.call_openers
    assert set(begin.markers) == set(MARKERS)
    thinking = shape(f"{PROMPT}{CHANNEL}analysis{MESSAGE}")
    assert (thinking.in_thought, thinking.content_open) == (True, f"{CHANNEL}final{MESSAGE}")
    prefilled = shape(f"{PROMPT}{final('')}")
    assert (prefilled.thought, prefilled.content_open) == (None, "")
    without = HarmonyDialect().shape(OutputRequest(template=None, prompt=PROMPT))
    assert (without.call_openers, without.calls) == ((), "")


def test_content_after_a_thought_is_what_the_reader_reads() -> None:
    shape = HarmonyDialect().shape(OutputRequest(template=None, prompt=PROMPT))
    assert shape.thought is not None
    text = f"{shape.thought.open}Hm.{shape.thought.close}{shape.content_open}{{}}"
    assert read(reader(), [text]) == Output(thinking="Hm.", content="{}")


def test_names_that_are_no_identifiers() -> None:
    tools = [tool(name, {}) for name in ("a-b", "a.b", "a_b", "2nd", "with space", "é", "fine")]
    assert written_names(tools) == {
        "a-b": "a-b",
        "a.b": "a.b",
        "a_b": "a_b",
        "2nd": "2nd",
        "é": "é",
        "fine": "fine",
        "a_b_2": "a-b",
        "a_b_3": "a.b",
        "_2nd": "2nd",
        "with_space": "with space",
        "_": "é",
    }


def test_many_names_that_are_written_alike_take_no_longer_each() -> None:
    tools = [tool(chr(0x4E00 + number), {}) for number in range(10_000)]
    began = time.thread_time()
    assert len(written_names(tools)) == 2 * len(tools), "its own name, and one that is an identifier"
    assert time.thread_time() - began < 1


def grammar() -> Grammar:
    return Grammar(HarmonyDialect().shape(OutputRequest(template=None, prompt=PROMPT, tools=TOOLS)), ['"}'])


def test_the_grammar_takes_what_the_model_writes() -> None:
    calls = grammar()
    assert calls.accepts(call())
    assert calls.accepts(call().replace(f" {CONSTRAIN}", CONSTRAIN))
    assert calls.accepts(
        f' to=functions.get_weather{CHANNEL}commentary json{MESSAGE}{{"city":"Paris","days":3}}'
    )
    assert calls.accepts(f"{START}assistant to=functions.now{CHANNEL}commentary{MESSAGE}{{}}")
    assert calls.accepts(f"{CHANNEL}analysis to=functions.now code{MESSAGE}{{}}")
    assert calls.accepts(f" to=functions.now{CHANNEL}analysis{MESSAGE}{{}}")
    assert calls.accepts(call("web-search.v2", '{"query": ""}'))
    assert calls.accepts(call("web_search_v2", '{"query": ""}'))


@pytest.mark.parametrize(
    "text",
    [
        call("get_wether"),
        call(arguments='{"city": 5}'),
        call(arguments='{"days": 5}'),
        call(arguments="{}"),
        final("{}"),
        call().replace("commentary", "final"),
    ],
)
def test_the_grammar_refuses_what_the_schema_does(text: str) -> None:
    assert not grammar().accepts(text)


def test_calls_begin_where_messages_do() -> None:
    shape = HarmonyDialect().shape(OutputRequest(template=None, prompt=PROMPT, tools=TOOLS))
    tokenizer = KitTokenizer(controls=MARKERS)
    for begun in ("", thought("Hm."), f"{CHANNEL}final{MESSAGE}Hm.{NEXT}"):
        writer = constrain(shape, tokenizer)
        writer.write(f"{begun} to=functions.")
        assert not writer.may_end() and writer.may_write("now") and not writer.may_write("x")
    writer = constrain(shape, tokenizer)
    writer.write(f"{CHANNEL}final{MESSAGE}Calls are written to=functions.x, or to=functions.")
    assert writer.may_end() and writer.may_write("x")


@pytest.mark.parametrize("seed", range(15))
def test_whatever_the_grammar_accepts_is_read_as_a_valid_call(seed: int) -> None:
    schemas = {item["function"]["name"]: item["function"]["parameters"] for item in TOOLS}
    output = read(reader(), [grammar().walk(seed)])
    assert output == Output(calls=output.calls)
    ((name, arguments),) = output.calls
    jsonschema.validate(arguments, schemas[name])


def test_which_templates_are_claimed() -> None:
    jinja = "{{- '<|start|>assistant<|channel|>final<|message|>' + message.content + '<|end|>' }}"
    assert HarmonyDialect().claims(Template(kind="jinja", text=jinja))
    assert HarmonyDialect().claims(
        Template(kind="go", text=f"{START}assistant{CHANNEL}final{MESSAGE}{{{{ . }}}}{END}")
    )
    assert not HarmonyDialect().claims(Template(kind="jinja", text="<|im_start|>assistant"))


@pytest.mark.skipif(
    "TIKTOKEN_ENCODINGS_BASE" not in os.environ,
    reason="the format's own parser needs the folder of its vocabulary, o200k_base.tiktoken, in this variable",
)
@pytest.mark.parametrize("text", WELL_FORMED)
def test_the_parser_of_the_format_reads_the_same(text: str) -> None:
    harmony = pytest.importorskip("openai_harmony")
    encoding = harmony.load_harmony_encoding(harmony.HarmonyEncodingName.HARMONY_GPT_OSS)
    tokens = encoding.encode(text, allowed_special="all")
    messages = encoding.parse_messages_from_completion_tokens(tokens, harmony.Role.ASSISTANT, strict=False)
    said: dict[bool, list[str]] = {False: [], True: []}
    recipients = []
    for message in messages:
        body = "".join(part.text for part in message.content)
        if message.recipient:
            recipients.append(message.recipient)
        elif body:
            said[message.channel == "analysis"].append(body)
    output = read(reader(), [text])
    assert output.content == "\n".join(said[False])
    assert output.thinking == "\n".join(said[True])
    names = written_names(TOOLS)
    assert [name for name, _ in output.calls] == [
        names[name.removeprefix("functions.")] for name in recipients
    ]
