"""Dialects that are learned from templates, and which dialect is chosen."""

from __future__ import annotations

from pathlib import Path

import pytest

from corectl.messages import Template
from corectl.output.choose import choose_dialect
from corectl.output.dialect import Dialect, OutputRequest, OutputShape
from corectl.output.learned import LearnedDialect, learned_calls
from corectl.output.reading import FeedReader
from corectl.output.syntax import CallSyntax
from tests.plugins.dialect_kit import Grammar, Output, read, read_alike, tool

TEMPLATES = Path(__file__).parent.parent / "data" / "templates"
WEATHER = tool(
    "get_weather", {"city": {"type": "string", "maxLength": 9}}, ["city"], additionalProperties=False
)
TIME = tool("get_time", {}, additionalProperties=False)
READ: tuple[tuple[str, dict[str, str]], ...] = (("get_weather", {"city": "Paris"}), ("get_time", {}))

GO_HERMES = """{{- range .Messages }}<|im_start|>{{ .Role }}
{{ if .Content }}{{ .Content }}{{ else if .ToolCalls }}<tool_call>
{{ range .ToolCalls }}{"name": "{{ .Function.Name }}", "arguments": {{ .Function.Arguments }}}
{{ end }}</tool_call>{{ end }}<|im_end|>
{{ end }}"""
GO_FUNCTOOLS = """{{- range .Messages }}<|{{ .Role }}|>
{{- if .Content }}{{ .Content }}
{{- else if .ToolCalls }} functools[
{{- range .ToolCalls }}{{ "{" }}"name": "{{ .Function.Name }}", "arguments": {{ .Function.Arguments }}{{ "}" }}
{{- end }}]
{{- end }}<|eot|>
{{- end }}"""
JINJA_ACTION = """{% for m in messages %}<|{{ m.role }}|>{{ m.content }}
{%- for c in m.tool_calls or [] %}<|action|>
{"tool": {{ c.function.name | tojson }}, "input": {{ c.function.arguments | tojson }}}<|/action|>{% endfor %}<|end|>
{% endfor %}"""
JINJA_NAMED = """{% for m in messages %}<|{{ m.role }}|>{{ m.content or '' }}
{%- if m.tool_calls %}<calls>{% for c in m.tool_calls %}<call name={{ c.function.name }}>
{{ c.function.arguments | tojson }}</call>{% endfor %}</calls>{% endif %}<|end|>{% endfor %}"""
JINJA_NESTED = """{% for m in messages %}<|{{ m.role }}|>{% if m.tool_calls %}<TOOLS>{{ m.tool_calls | tojson }}</TOOLS>
{%- else %}{{ m.content }}{% endif %}<|end|>{% endfor %}"""
JINJA_SINGLE = """{% for m in messages %}<|{{ m.role }}|>{% if m.tool_calls %}
{%- if m.tool_calls | length > 1 %}{{ raise_exception('one call at a time') }}{% endif -%}
{"name": "{{ m.tool_calls[0].function.name }}", "parameters": {{ m.tool_calls[0].function.arguments | tojson }}}
{%- else %}{{ m.content }}{% endif %}<|end|>{% endfor %}"""
JINJA_LIST = """{% for m in messages %}<|{{ m.role }}|>{% if m.tool_calls %}[
{%- for c in m.tool_calls %}{"name": "{{ c.function.name }}", "arguments": {{ c.function.arguments | tojson }}}
{%- if not loop.last %}, {% endif %}{% endfor %}]
{%- else %}{{ m.content }}{% endif %}<|end|>{% endfor %}"""
JINJA_THINKS_IN_CONTENT = """{% for m in messages %}<|{{ m.role }}|>{% if m.tool_calls %}<tool>
{%- for c in m.tool_calls %}{"name": "{{ c.function.name }}", "arguments": {{ c.function.arguments | tojson }}}
{%- endfor -%}</tool>{% else %}{{ '<think></think>' + m.content }}{% endif %}<|end|>{% endfor %}"""

# Each with two calls (or one, where the template allows no more) as the template writes them.
LEARNED = {
    GO_HERMES: (
        '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n'
        '{"name": "get_time", "arguments": {}}\n</tool_call>'
    ),
    GO_FUNCTOOLS: (
        'functools[{"name": "get_weather", "arguments": {"city": "Paris"}}, {"name": "get_time", "arguments": {}}]'
    ),
    JINJA_ACTION: (
        '<|action|>\n{"tool": "get_weather", "input": {"city": "Paris"}}<|/action|>'
        '<|action|>\n{"tool": "get_time", "input": {}}<|/action|>'
    ),
    JINJA_NAMED: (
        '<calls><call name=get_weather>\n{"city": "Paris"}</call><call name=get_time>\n{}</call></calls>'
    ),
    JINJA_NESTED: (
        '<TOOLS>[{"type": "function", "id": "0", "function": {"name": "get_weather", "arguments": {"city": "Paris"}}}, '
        '{"type": "function", "id": "1", "function": {"name": "get_time", "arguments": {}}}]</TOOLS>'
    ),
    JINJA_SINGLE: '{"name": "get_weather", "parameters": {"city": "Paris"}}',
    JINJA_LIST: '[{"name": "get_weather", "arguments": {"city": "Paris"}}, {"name": "get_time", "arguments": {}}]',
    JINJA_THINKS_IN_CONTENT: '<tool>{"name": "get_weather", "arguments": {"city": "Paris"}}</tool>',
}
IDS = ["go-hermes", "go-functools", "action", "named", "nested", "single", "list", "thinks-in-content"]


def template_of(text: str) -> Template:
    return Template(kind="go" if "{{-" in text and "range" in text else "jinja", text=text)


def request(text: str) -> OutputRequest:
    return OutputRequest(template=template_of(text), tools=(WEATHER, TIME))


@pytest.mark.parametrize(("text", "calls"), LEARNED.items(), ids=IDS)
def test_calls_are_read_as_the_template_writes_them(text: str, calls: str) -> None:
    output = read_alike(lambda: LearnedDialect().reader(request(text)), calls)
    assert output == Output(calls=READ[: calls.count("get_")])


@pytest.mark.parametrize(("text", "calls"), LEARNED.items(), ids=IDS)
def test_the_grammar_takes_them_and_nothing_else(text: str, calls: str) -> None:
    shape = LearnedDialect().shape(request(text))
    grammar = Grammar(shape)
    assert calls.startswith((*shape.call_openers, *shape.first_openers))
    assert grammar.accepts(calls)
    assert not grammar.accepts(calls.replace('"Paris"', "7"))
    assert not grammar.accepts(calls.replace("get_weather", "get_whether"))


@pytest.mark.parametrize("text", LEARNED, ids=IDS)
def test_what_the_grammar_allows_is_read_as_calls(text: str) -> None:
    grammar = Grammar(LearnedDialect().shape(request(text)))
    for seed in range(15):
        walked = grammar.walk(seed)
        output = read(LearnedDialect().reader(request(text)), [walked])
        assert output.calls and not output.content and not output.notices, walked


def test_content_of_other_templates_is_untouched() -> None:
    reader = LearnedDialect().reader(request(JINJA_ACTION))
    text = 'Like so: {"tool": "get_time"} <|act'
    assert read(reader, list(text)) == Output(content=text)


@pytest.mark.parametrize(
    ("name", "calls"),
    [
        (
            "qwen2.5",
            CallSyntax(
                open="<tool_call>\n", separator="\n</tool_call>\n<tool_call>\n", close="\n</tool_call>"
            ),
        ),
        ("llama3.1", CallSyntax(between=', "parameters": ')),
        (
            "deepseek-r1",
            CallSyntax(
                open="<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>",
                before="",
                between="\n```json\n",
                after="",
                separator="\n```<｜tool▁call▁end｜>\n<｜tool▁call▁begin｜>function<｜tool▁sep｜>",
                close="\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
            ),
        ),
        (
            "mistral-nemo",
            CallSyntax(open="[TOOL_CALLS][", after=', "id": "0"}', separator=", ", close="]"),
        ),
    ],
)
def test_published_templates_are_learned(name: str, calls: CallSyntax) -> None:
    text = (TEMPLATES / f"{name}.jinja").read_text(encoding="utf-8")
    assert learned_calls(Template(kind="jinja", text=text)) == calls


@pytest.mark.parametrize(
    ("kind", "text", "opener"),
    [
        ("jinja", "{{ messages[0].content }}", "{"),
        ("jinja", "{% for", "{"),
        ("jinja", "{% for a in range(10**9) %}{% endfor %}", "{"),
        ("jinja", "{{ '{' * 100000 }}{{ messages[-1].content }}{{ messages[-1].tool_calls }}", "{"),
        ("jinja", "{% for m in messages %}{{ '{\"a\":' * 5000 }}{{ m.content }}{{ m.tool_calls }}{% endfor %}", "{"),
        ("go", "{{ .Prompt }}", "{"),
        ("go", "{{ range", "{"),
        ("go", "{{ range .Messages }}{{ if .ToolCalls }}<c>{{ range .ToolCalls }}x{{ end }}{{ end }}{{ end }}", "<c>"),
        ("go", "{{ range .Messages }}{{ if .ToolCalls }}[{{ range .ToolCalls }}x{{ end }}{{ end }}{{ end }}", "["),
    ],
)  # fmt: skip
def test_templates_that_show_no_calls(kind: str, text: str, opener: str) -> None:
    template = Template(kind=kind, text=text)
    assert learned_calls(template).opener == opener
    output = OutputRequest(template=template, tools=(WEATHER, TIME))
    if text.startswith(("{% for a", "{{ range .")) or "messages" in text:
        lead = "" if opener == "{" else opener
        written = f'{lead}{{"name": "get_weather", "arguments": {{"city": "Paris"}}}}'
        assert read(LearnedDialect().reader(output), [written]) == Output(calls=READ[:1])


class Claiming:
    """A dialect that claims templates with its own name in them."""

    aliases = ("nickname",)

    def __init__(self, name: str) -> None:
        self.name = name

    def claims(self, template: Template) -> bool:
        return self.name in template.text

    def shape(self, request: OutputRequest) -> OutputShape:
        return OutputShape()

    def reader(self, request: OutputRequest) -> FeedReader:
        raise NotImplementedError


def test_the_parser_then_the_template_then_what_is_learned() -> None:
    known: dict[str, Dialect] = {name: Claiming(name) for name in ("one", "onetwo", "zero")}
    template = Template(kind="jinja", text="onetwo")
    assert choose_dialect(known, "zero", template)[0].name == "zero"
    assert choose_dialect(known, "nickname", template)[0].name == "one"
    assert choose_dialect(known, "", template)[0].name == "one"
    assert choose_dialect(known, "", Template(kind="jinja", text="else"))[0].name == "learned"
    assert choose_dialect(known, "passthrough", template)[0].name == "plain"
    assert choose_dialect(known, "", None)[0].name == "plain"
    dialect, notices = choose_dialect(known, "two", template)
    assert dialect.name == "one"
    assert [notice.code for notice in notices] == ["unknown_parser"]
