"""Go templates of model families, written as model libraries write them, and the prompts that they give.

`tests/data/templates/go` has the templates, and for each a text with the prompts for some conversations.
"""

from __future__ import annotations

import re

import pytest

from corectl.messages import ChatPrompt, Message, Template, TextPrompt
from corectl.prompt.render import render
from tests.core.families import CORPUS, FAMILIES, FOLDER, messages_of, tools_of

GO = {path.stem: path.read_text("utf-8") for path in sorted((FOLDER / "go").glob("*.gotmpl"))}
EXPECTED = {
    (family, name): text
    for family in GO
    for name, text in re.findall(
        r"^==== ([\w ]+)\n(.*?)(?=\n^==== |\Z)",
        (FOLDER / "go" / f"{family}.txt").read_text("utf-8"),
        re.DOTALL | re.MULTILINE,
    )
}


def rendered(template: Template, name: str) -> str:
    """The prompt for a conversation of the corpus."""
    prompt = ChatPrompt(
        template=template,
        messages=messages_of(name),
        tools=tools_of(name),
        think=CORPUS.conversations[name].think,
    )
    return render(prompt, bos_token="", eos_token="</s>")


@pytest.mark.parametrize(("family", "name"), EXPECTED)
def test_a_family_gives_its_prompt(family: str, name: str) -> None:
    assert rendered(Template(kind="go", text=GO[family]), name) == EXPECTED[family, name]


def test_each_family_has_prompts() -> None:
    assert {family for family, _ in EXPECTED} == set(GO)
    assert len(EXPECTED) >= 30


@pytest.mark.parametrize(
    ("go", "jinja", "names"),
    [
        ("chatml", "chatml", ["user", "system", "turns"]),
        ("llama3", "llama3", ["user", "system", "turns"]),
        ("phi3", "phi3", ["user", "system", "turns"]),
        ("gemma", "gemma2", ["user", "turns"]),
        ("command-r", "command-r", ["user", "system", "turns"]),
        ("granite4", "granite4", ["user", "system", "turns", "odd text"]),
    ],
)
def test_a_go_template_gives_what_the_familys_jinja_template_gives(
    go: str, jinja: str, names: list[str]
) -> None:
    for name in names:
        theirs = rendered(Template(kind="jinja", text=FAMILIES[jinja]), name)
        assert rendered(Template(kind="go", text=GO[go]), name) == theirs


@pytest.mark.parametrize(
    ("ids", "names", "expected"),
    [
        (("a", "b"), ("", ""), "[f:a=][g:b=]"),
        (("b", "a"), ("", ""), "[g:b=][f:a=]"),
        (("", ""), ("", ""), "[f:=][g:=]"),
        (("", ""), ("g", ""), "[g:=][f:=]"),
        (("a", "x"), ("h", ""), "[h:a=][:x=]"),
    ],
)
def test_results_have_the_names_of_their_calls(
    ids: tuple[str, str], names: tuple[str, str], expected: str
) -> None:
    """By the identifier, else in the order of the calls, which may stand in turns that are neighbours."""
    text = (
        '{{ range .Messages }}{{ if eq .Role "tool" }}[{{ .ToolName }}:{{ .ToolCallID }}={{ .Content }}]'
        "{{ end }}{{ end }}"
    )
    calls = [
        Message(role="assistant", tool_calls=({"id": id, "function": {"name": name}},))
        for id, name in (("a", "f"), ("b", "g"))
    ]
    results = [
        Message(role="tool", tool_call_id=id, tool_name=name) for id, name in zip(ids, names, strict=True)
    ]
    prompt = ChatPrompt(template=Template(kind="go", text=text), messages=(*calls, *results))
    assert render(prompt, bos_token="", eos_token="") == expected


def test_filling_in() -> None:
    template = Template(kind="go", text=GO["qwen2.5-coder"])
    prompt = TextPrompt(template=template, prompt="def add(", suffix="return x", system="S")
    assert render(prompt, bos_token="", eos_token="") == (
        "<|fim_prefix|>def add(<|fim_suffix|>return x<|fim_middle|>"
    )
