"""The Go template interpreter, and the three ways in which a chat goes through it."""

from __future__ import annotations

import datetime
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corectl.errors import BadRequest
from corectl.messages import Message
from corectl.prompt import budget, go_chat
from corectl.prompt.gotemplate import execute, parse
from corectl.prompt.gotemplate.printf import sprintf
from corectl.prompt.gotemplate.values import Fault

CHATML = (
    "{{ if .System }}<|im_start|>system\n{{ .System }}<|im_end|>\n{{ end }}"
    "{{ if .Prompt }}<|im_start|>user\n{{ .Prompt }}<|im_end|>\n{{ end }}"
    "<|im_start|>assistant\n{{ .Response }}<|im_end|>\n"
)
INST = "[INST] {{ if .System }}{{ .System }}\n\n{{ end }}{{ .Prompt }}[/INST] "
SMOLTHINK = (
    "{{- if .System }}<|im_start|>system\n{{ .System }}<|im_end|>\n{{ end }}"
    "{{- range $i, $_ := .Messages }}{{- $last := eq (len (slice $.Messages $i)) 1 }}"
    "<|im_start|>{{ .Role }}\n"
    '{{- if and (eq .Role "user") $last $.IsThinkSet }}\n'
    "{{- if $.Think }} /think{{ if $.ThinkLevel }}:{{ $.ThinkLevel }}{{ end }}{{ else }} /no_think{{ end }}\n"
    "{{- end }}\n{{ if .Thinking }}<think>{{ .Thinking }}</think>{{ end }}{{ .Content }}<|im_end|>\n"
    "{{ end }}<|im_start|>assistant\n{{ if and $.IsThinkSet $.Think }}<think>\n{{ end }}"
)
TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Löwe <b>",
        "parameters": {
            "type": "object",
            "required": ["location"],
            "properties": {
                "unit": {"type": ["string", "null"]},
                "location": {"type": "string", "description": "city"},
            },
        },
    },
}


def run(text: str, **data: Any) -> str:
    return execute(parse(text), data)


def user(text: str) -> Message:
    return Message(role="user", content=text)


def assistant(text: str) -> Message:
    return Message(role="assistant", content=text)


def system(text: str) -> Message:
    return Message(role="system", content=text)


@pytest.mark.parametrize(
    ("text", "output"),
    [
        ("a {{- 1 -}} b", "a1b"),
        ("a\n{{- /* gone */ -}}\n b{{/* too */}}c", "abc"),
        ("{{-3}}", "-3"),
        ("{{ 0x1F }} {{ 'a' }} {{ 1_000 }} {{ 1.50 }} {{ 1e22 }} {{ 017 }}", "31 97 1000 1.5 1e+22 15"),
        (r'{{ "a\"b\t\u00e9" }}{{ `raw\n` }}', 'a"b\té' + r"raw\n"),
        ("{{ nil | print }}{{ true }}", "true"),
        ("{{ .S }}{{ .missing }}{{ .missing.deep }}", "text"),
        ('{{ .M.k.k2 }} {{ (index .M "k").k2 }} {{ (index .L 1) }}', "v v b"),
        ("{{ .L }} {{ .N }} {{ .F }} {{ .M }}", '[a b c] 3 2.5 {"k":{"k2":"v"}}'),
        ("{{ if .E }}1{{ else if .Z }}2{{ else if .S }}3{{ else }}4{{ end }}", "3"),
        ("{{ with .E }}a{{ else with .S }}{{ . }}{{ end }}", "text"),
        ("{{ with $x := .S }}{{ $x }}{{ . }}{{ $.N }}{{ end }}", "texttext3"),
        ("{{ range .L }}{{ . }},{{ else }}none{{ end }}", "a,b,c,"),
        ("{{ range .missing }}{{ . }}{{ else }}none{{ end }}", "none"),
        ("{{ range $i, $v := .L }}{{ $i }}{{ $v }}{{ end }}", "0a1b2c"),
        ("{{ range $k, $v := .P }}{{ $k }}={{ $v }};{{ end }}", "a=1;b=2;"),
        ("{{ range $i := 3 }}{{ $i }}{{ end }}{{ range 2 }}{{ . }}{{ end }}", "01201"),
        ('{{ range .L }}{{ if eq . "b" }}{{ continue }}{{ end }}{{ . }}{{ end }}', "ac"),
        ('{{ range .L }}{{ if eq . "b" }}{{ break }}{{ end }}{{ . }}{{ end }}', "a"),
        ("{{ $x := 1 }}{{ if true }}{{ $x = 2 }}{{ end }}{{ $x }}", "2"),
        ("{{ $x := 1 }}{{ if true }}{{ $x := 2 }}{{ $x }}{{ end }}{{ $x }}", "21"),
        ("{{ $v := 0 }}{{ range $v = .L }}{{ end }}{{ $v }}", "c"),
        ('{{ define "t" }}<{{ . }}{{ $ }}>{{ end }}{{ template "t" .S }}', "<texttext>"),
        ('{{ block "t" .N }}[{{ . }}]{{ end }}{{ template "t" }}', "[3][]"),
        ('{{ .S | len | printf "%03d" }}', "004"),
        ("{{ or .E .Z .S }} {{ and .S .N }} {{ or .E 0 }}{{ and 0 (index .L 99) }}", "text 3 00"),
        ('{{ eq .S "x" "text" }} {{ ne 1 2 }} {{ eq .missing "a" }} {{ not .E }}', "true true false true"),
        ('{{ lt 1 2 }} {{ le 2 2 }} {{ gt 1.5 1.0 }} {{ ge "b" "a" }}', "true true true true"),
        (
            '{{ len "é" }} {{ len .L }} {{ index "abc" 1 }} {{ slice "abcd" 1 3 }} {{ slice .L 1 }}',
            "2 3 98 bc [b c]",
        ),
        (
            '{{ printf "%s|%d|%v|%q|%t|%5.2f|%%|%-3s|" "a" 1 .L "q\\"" true 1.0 "x" }}',
            'a|1|[a b c]|"q\\""|true| 1.00|%|x  |',
        ),
        (
            '{{ printf "%d" "x" }} {{ printf "%s" }} {{ printf "a" 1 }}',
            "%!d(string=x) %!s(MISSING) a%!(EXTRA int=1)",
        ),
        ('{{ printf "%*d|%-*d|%.*f" 3 1 3 1 2 1.5 }}{{ printf "%*s|" -2 "a" }}', "  1|1  |1.50a |"),
        ('{{ len (printf "a%*s" 2000 "") }}', "2001"),
        ('{{ print 1 2 "a" 3 }}|{{ println "a" 1 }}', "1 2a3|a 1\n"),
        ('{{ html "<a&\'>" }} {{ js "<\'" }} {{ urlquery "a b&" }}', "&lt;a&amp;&#39;&gt; \\u003C\\' a+b%26"),
        ("{{ json .P }}", '{"a":1,"b":2}'),
        ("{{\n  .S\n}}", "text"),
    ],
)
def test_output(text: str, output: str) -> None:
    data = {"S": "text", "E": "", "Z": 0, "N": 3, "F": 2.5, "L": ["a", "b", "c"]}
    data |= {"P": {"b": 2, "a": 1}, "M": {"k": {"k2": "v"}}}
    assert run(text, **data) == output


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{{ .Prompt ", "template: :1: unclosed action"),
        ("\n\n{{ .Prompt", "template: :3: unclosed action"),
        ("{{ .Prompt\n\n", "template: :3: unclosed action started at :1"),
        ('{{ template "x" }}', "undefined template specified"),
        ('{{ define "x" }}{{ template "y" }}{{ end }}', "undefined template specified"),
        ("{{ nope 1 }}", 'template: :1: function "nope" not defined'),
        ("a\n{{ $x }}", 'template: :2: undefined variable "$x"'),
        ("{{ if true }}{{ $x := 1 }}{{ end }}{{ $x }}", 'template: :1: undefined variable "$x"'),
        ("{{ if .X }}", "template: :1: unexpected EOF"),
        ("{{ end }}", "template: :1: unexpected {{end}}"),
        ("{{ if }}{{ end }}", "template: :1: missing value for if"),
        ("{{ }}", "template: :1: missing value for command"),
        ("{{ break }}", "template: :1: {{break}} outside {{range}}"),
        ('{{ "abc }}', "template: :1: unterminated quoted string"),
        ("{{ `abc }}", "template: :1: unterminated raw quoted string"),
        ("{{/* a }}", "template: :1: unclosed comment"),
        ("{{ (1 }}", "template: :1: unclosed left paren"),
        ("{{ 1) }}", "template: :1: unexpected right paren"),
        ("{{ .a! }}", "template: :1: bad character U+0021 '!'"),
        ("{{ ! }}", "template: :1: unrecognized character in action: U+0021 '!'"),
        ("{{ 1x }}", 'template: :1: bad number syntax: "1x"'),
        ("{{ if 1 }}{{ else }}{{ else }}{{ end }}", "template: :1: expected end; found {{else}}"),
        ("{{ 1 | 2 }}", "template: :1: non executable command in pipeline stage 2"),
        ("{{ if 1 }}" * 100 + "{{ end }}" * 100, "template: :1: the template is nested too deeply"),
        ("{{ " + "(" * 3000 + "1" + ")" * 3000 + " }}", "template: :1: the template is nested too deeply"),
    ],
)
def test_parse_errors(text: str, message: str) -> None:
    with pytest.raises(BadRequest) as caught:
        parse(text)
    assert caught.value.message == message


@pytest.mark.parametrize(
    "text",
    [
        "{{ index .L 9 }}",
        "{{ len 3 }}",
        "{{ .S.field }}",
        "{{ .S 1 }}",
        '{{ eq 1 "a" }}',
        "{{ eq .L .L }}",
        "{{ slice .S 3 1 }}",
        "{{ range .S }}{{ end }}",
        "{{ call .S }}",
        '{{ printf "%*d" "x" 1 }}',
        '{{ printf "%999999d" 1 }}',
        '{{ range 1000000 }}{{ $x := printf "%*s" 99999 "" }}{{ end }}',
        "{{ not }}",
        "{{ and }}",
        '{{ define "x" }}{{ template "x" }}{{ end }}{{ template "x" }}',
        "{{ range 1000000 }}{{ range 1000000 }}{{ end }}{{ end }}",
        '{{ $x := "aaaaaaaaaaaaaaaa" }}{{ range 64 }}{{ $x = print $x $x }}{{ end }}',
        "{{ range 100000 }}{{ $.S }}{{ $.S }}{{ $.S }}{{ $.S }}{{ $.S }}{{ end }}" + "{{ .S }}" * 9,
    ],
)
def test_execution_errors(text: str) -> None:
    data = {"L": ["a"], "S": "text"}
    if text.endswith("{{ .S }}"):
        data["S"] = "x" * 1000
    with pytest.raises(BadRequest, match="template: :1: "):
        run(text, **data)


def test_a_format_stops_when_it_has_made_too_much() -> None:
    with pytest.raises(Fault, match="too much text"):
        sprintf("%99999s" * 200, *[""] * 200)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.sampled_from(
            ["{{", "}}", "if ", "end", "range ", ".A", "$x", " := ", "1", '"', "(", ")", "|", " -"]
        )
    )
)
def test_any_text_parses_or_is_refused(parts: list[str]) -> None:
    try:
        run("".join(parts), A=["x"])
    except BadRequest as error:
        assert error.message


# -- chats


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("{{ .Prompt }}", "prompt response"),
        ("{{ .System }} {{ .Prompt }}", "prompt response system"),
        ("{{ with .Tools }}{{ . }}{{ end }} {{ .System }} {{ .Prompt }}", "prompt response system tools"),
        ("{{ range .Messages }}{{ .Role }} {{ .Content }}{{ end }}", "content messages role"),
        (
            '{{ range .Messages }}{{ if eq .Role "tool" }}{{ .ToolName }}{{ end }}{{ .Content }}{{ end }}',
            "content messages role toolname",
        ),
        (
            "{{ if .Messages }}{{ range $m := $.Messages }}{{ $m.Role }}{{ (print $m.Content) }}{{ end }}"
            "{{ else }}{{ .System }}{{ .Prompt }}{{ .Response }}{{ end }}",
            "content messages prompt response role system",
        ),
    ],
)
def test_vars(text: str, found: str) -> None:
    assert go_chat.vars(text) == set(found.split())


@pytest.mark.parametrize("text", [INST, INST + "{{ .Response }}"])
@pytest.mark.parametrize("told", ["", "You are a helpful assistant!"])
def test_turns(text: str, told: str) -> None:
    chat = [user("Hello friend!"), assistant("Hello human!"), user("What is your name?")]
    said = go_chat.render_messages(text, [system(told), *chat] if told else chat)
    lead = f"{told}\n\n" if told else ""
    assert said == f"[INST] {lead}Hello friend![/INST] Hello human![INST] What is your name?[/INST] "


def test_turns_go_on_after_the_assistants_last_words() -> None:
    chat = [user("What is your name?"), assistant("My name is Ollama and I")]
    expected = "[INST] What is your name?[/INST] My name is Ollama and I"
    assert go_chat.render_messages("[INST] {{ .Prompt }}[/INST] {{ .Response }}</s>", chat) == expected
    guarded = "[INST] {{ .Prompt }}[/INST] {{ if .Response }}{{ .Response }}</s>{{ else }}x{{ end }}y"
    assert go_chat.render_messages(guarded, chat) == expected


def test_the_last_turn_is_cut_after_the_response() -> None:
    said = go_chat.render_messages(CHATML, [system("S"), user("A"), assistant("B"), user("C")])
    assert said == (
        "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nA<|im_end|>\n<|im_start|>assistant\nB<|im_end|>\n"
        "<|im_start|>user\nC<|im_end|>\n<|im_start|>assistant\n"
    )


def test_turns_leave_out_tool_results() -> None:
    chat = [user("A"), Message(role="tool", content="T")]
    assert go_chat.render_messages("{{ .Prompt }}>", chat) == "A>"


def test_suffix() -> None:
    text = "{{- if .Suffix }}<PRE> {{ .Prompt }} <SUF>{{ .Suffix }} <MID>{{- else }}{{ .Prompt }}{{- end }}"
    assert go_chat.render_text(text, "def add(", suffix="return x") == "<PRE> def add( <SUF>return x <MID>"
    assert go_chat.render_text(text, "def add(", system="S") == "def add("


def test_default_template() -> None:
    assert go_chat.render_text("", "hello") == "hello"


def test_collate() -> None:
    tool = Message(role="tool", content="T")
    chat = [system("A"), user("Hello"), user("How are you?"), tool, tool, system("B"), user(""), user("x")]
    told, merged = go_chat.collate(chat)
    assert told == "A\n\nB"
    assert [message.content for message in merged] == ["A", "Hello\n\nHow are you?", "T", "T", "B", "x"]


def test_dates() -> None:
    today = datetime.date.today()
    yesterday = today - datetime.timedelta(days=1)
    assert go_chat.render_text("{{ currentDate }} {{ yesterdayDate }}", "") == f"{today} {yesterday}"


def test_tool_calls_print_as_json_and_can_be_ranged() -> None:
    calls = (
        {
            "id": "c1",
            "function": {"name": "weather", "arguments": {"city": "Tōkyō", "b": {"y": 1, "x": [1]}}},
        },
        {"function": {"index": 1, "name": "now"}},
    )
    chat = [Message(role="assistant", tool_calls=calls)]
    text = (
        "{{ range .Messages }}{{ range .ToolCalls }}{{ .ID }} {{ .Function.Index }} {{ .Function.Name }} "
        "{{ .Function.Arguments }} {{ range $k, $v := .Function.Arguments }}{{ $k }}={{ $v }};{{ end }}\n"
        "{{ end }}{{ end }}"
    )
    assert go_chat.render_messages(text, chat) == (
        'c1 0 weather {"b":{"x":[1],"y":1},"city":"Tōkyō"} b={"x":[1],"y":1};city=Tōkyō;\n 1 now {} \n'
    )


def test_tools_print_as_json_and_can_be_ranged() -> None:
    as_json = (
        '{"type":"function","function":{"name":"weather","description":"Löwe <b>","parameters":{'
        '"type":"object",'
        '"required":["location"],"properties":{"location":{"type":"string","description":"city"},'
        '"unit":{"type":["string","null"]}}}}}'
    )
    each = "{{ range .Tools }}\n{{ . }}{{ json . }}{{ .Function.Name }}{{ end }}"
    text = "{{ .Messages | len }}{{ .Tools }}" + each
    said = go_chat.render_messages(text, [user("x")], tools=[TOOL])
    assert said == f"1[{as_json}]\n{as_json}{as_json}weather"
    text = (
        "{{ if .Messages }}{{ range .Tools }}{{ range $n, $p := .Function.Parameters.Properties }}"
        "{{ $n }}:{{ $p.Type }};{{ toTypeScriptType $p }};{{ $p.ToTypeScriptType }}\n"
        "{{ end }}{{ end }}{{ end }}"
    )
    assert go_chat.render_messages(text, [user("x")], tools=[TOOL]) == (
        'location:string;string;string\nunit:["string","null"];string | null;string | null\n'
    )


@pytest.mark.parametrize(
    ("schema", "type_"),
    [
        ({"type": "integer"}, "number"),
        ({"type": "array"}, "any[]"),
        ({"type": "object"}, "Record<string, any>"),
        ({"anyOf": [{"type": "string"}, {"type": ["number", "null"]}]}, "string | number | null"),
        ({}, "any"),
        ({"type": 5}, "any"),
        ({"type": [{}, [], "null"]}, "null"),
        ({"anyOf": 5, "type": "string"}, "string"),
        ({"anyOf": [5, {"type": True}]}, "any"),
    ],
)
def test_typescript(schema: dict[str, Any], type_: str) -> None:
    assert run("{{ toTypeScriptType .P }}", P=schema) == type_


def test_think() -> None:
    chat = [user("hi"), Message(role="assistant", content="yo", thinking="hmm"), user("again")]
    assert go_chat.render_messages(SMOLTHINK, chat, think=True) == (
        "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n<think>hmm</think>yo<|im_end|>\n"
        "<|im_start|>user /think:medium\nagain<|im_end|>\n<|im_start|>assistant\n<think>\n"
    )
    assert "/no_think" in go_chat.render_messages(SMOLTHINK, chat, think=False)
    assert "/think:high" in go_chat.render_messages(SMOLTHINK, chat, think="high")
    assert "think:" not in go_chat.render_messages(SMOLTHINK, chat)


def test_the_length_of_a_template() -> None:
    assert run("x" * (1 << 18)) == "x" * (1 << 18)
    with pytest.raises(BadRequest) as caught:
        run("x" * ((1 << 18) + 1))
    assert caught.value.message == "template: :1: the template is longer than 262144 characters"
    with pytest.raises(BadRequest, match="the template has too many parts"):
        run("{{.A}}" * 40_000)


def test_long_templates_are_not_kept() -> None:
    before = go_chat._cached.cache_info().currsize
    go_chat.render_text("{{/* long */}}" + "x" * (1 << 15), "")
    assert go_chat._cached.cache_info().currsize == before
    assert (go_chat._cached.cache_info().maxsize or 0) <= 16


# About four million characters, in a few steps.
BIG = '{{ $a := printf "%1000s" "x" }}' + "{{ $a = print $a $a $a $a $a $a $a $a }}" * 4
VARIABLES = "".join(f"{{{{ $v{number} := 1 }}}}" for number in range(3000))


@pytest.mark.parametrize(
    "text",
    [
        VARIABLES + "{{ range 400000 }}{{ $x := $v0 }}{{ end }}",
        VARIABLES + "{{ range 400000 }}{{ $v0 = 2 }}{{ end }}",
        BIG + "{{ $b := print " + "$a " * 5000 + "}}",
        BIG + "".join(f'{{{{ $b{number} := print $a "x" }}}}' for number in range(2000)),
        BIG + "{{ range 100000 }}{{ $x := index $a 1 }}{{ $y := html $a }}{{ end }}",
        "{{ range 100000 }}{{ $x := print $.Messages $.Messages }}{{ end }}",
        "{{ range 100000 }}{{ range $.Map }}{{ break }}{{ end }}{{ end }}",
        "{{ print 0x" + "f" * 10_000 + " }}",
    ],
)
def test_what_a_template_does_is_counted(text: str) -> None:
    values = {str(number): 1 for number in range(20_000)}
    began = time.thread_time()
    with pytest.raises(BadRequest, match="template: :1: "):
        run(text, Messages=["x" * 1000] * 1000, Map=values)
    assert time.thread_time() - began < 20


def test_cpu_time_is_limited_for_all_turns_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "MAX_SECONDS", 0.1)
    chat = [user("A"), assistant("B")] * 1000
    with pytest.raises(budget.OutOfTime, match=r"template: .*the template takes too much time"):
        go_chat.render_messages("{{ range 10000 }}{{ end }}{{ .Prompt }}{{ .Response }}", chat)


def test_many_neighbours_of_one_role_are_merged_in_one_go() -> None:
    began = time.thread_time()
    _, merged = go_chat.collate([user("x" * 100)] * 50_000)
    assert len(merged[0].content) == 50_000 * 102 - 2
    assert time.thread_time() - began < 20
