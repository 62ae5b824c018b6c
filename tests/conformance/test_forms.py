"""The same weights as GGUF, safetensors and ONNX, behind the same API: llama.cpp, MLX and ONNX Runtime GenAI."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Server
from tests.forms import Forms

BACKENDS = {"gguf": "llamacpp", "safetensors": "mlx", "onnx": "onnx"}
QUESTIONS = (
    "Why is the sky blue?",
    "What is the capital of France?",
    "Tell me a short story about a fox.",
    "Write a haiku about the sea.",
    "How do I boil an egg?",
    "Name three colours.",
    "What is 7 times 8?",
    "Translate 'good morning' into Spanish.",
    "Explain what a prime number is.",
    "Give me a name for a cat.",
)
SCHEMA = {
    "type": "object",
    "properties": {
        "colour": {"enum": ["red", "green", "blue"]},
        "count": {"type": "integer", "minimum": 0, "maximum": 9},
    },
    "required": ["colour", "count"],
}
TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"enum": ["Rome", "Oslo"]}},
            "required": ["city"],
        },
    },
}

WITH_TOOLS = """\
{{ range .Messages }}<|im_start|>{{ .Role }}
{{ .Content }}{{ range .ToolCalls }}<tool_call>
{"name": "{{ .Function.Name }}", "arguments": {{ .Function.Arguments }}}
</tool_call>{{ end }}<|im_end|>
{{ end }}{{ if .Tools }}You may use: {{ .Tools }}
{{ end }}<|im_start|>assistant
"""


def create(server: Server, name: str, source: Path, **fields: str) -> None:
    """Uploads a file or a folder, and makes a model of it."""
    paths = [source] if source.is_file() else [path for path in source.iterdir() if path.is_file()]
    files = {}
    for path in paths:
        digest = f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"
        with path.open("rb") as data:
            server.client.post(f"/api/blobs/{digest}", content=data).raise_for_status()
        files[path.name] = digest
    reply = server.client.post("/api/create", json={"model": name, "files": files, "stream": False, **fields})
    assert reply.status_code == 200, reply.text


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory, forms: Forms) -> Iterator[Server]:
    """A server with the whole model and its first two layers in each form.

    Where nothing computes on an accelerator, safetensors stay safetensors only for a backend that somebody has named.
    """
    running = Server(tmp_path_factory.mktemp("forms-server"), CORECTL_BACKENDS="*-safetensors=mlx")
    for layers, name in ((None, "whole"), (2, "small")):
        create(running, f"{name}-gguf", forms.gguf(layers))
        create(running, f"{name}-safetensors", forms.safetensors(layers))
        create(running, f"{name}-onnx", forms.onnx(layers))
    yield running
    assert running.stop() == 0, running.log


def chat(server: Server, model: str, *messages: str, **body: Any) -> dict[str, Any]:
    """A greedy chat; messages by turns of user and assistant."""
    roles = ("user", "assistant")
    options = {"temperature": 0, "num_ctx": 512, "num_predict": 16, **body.pop("options", {})}
    request = {
        "model": model,
        "messages": [{"role": roles[turn % 2], "content": text} for turn, text in enumerate(messages)],
        "stream": False,
        "options": options,
        **body,
    }
    return dict(server.client.post("/api/chat", json=request).raise_for_status().json())


def tokens(reply: dict[str, Any]) -> list[str]:
    return [item["token"] for item in reply["logprobs"]]


def unload(server: Server, model: str) -> None:
    server.client.post("/api/generate", json={"model": model, "keep_alive": 0}).raise_for_status()


def test_the_forms_say_the_same(shop: Server) -> None:
    """10 chats of 64 greedy tokens: llama.cpp on F16, and ONNX Runtime on 32 bits."""
    said = {}
    for form in ("gguf", "onnx"):
        model = f"whole-{form}"
        said[form] = [
            tokens(chat(shop, model, text, logprobs=True, options={"num_predict": 64})) for text in QUESTIONS
        ]
        unload(shop, model)
    assert said["gguf"] == said["onnx"]
    assert sum(map(len, said["gguf"])) > 200


def test_mlx_says_it_too(shop: Server) -> None:
    """Fewer and shorter: its CPU build makes some five tokens a second."""
    for text in QUESTIONS[:3]:
        expected = tokens(chat(shop, "whole-gguf", text, logprobs=True, options={"num_predict": 8}))
        found = tokens(chat(shop, "whole-safetensors", text, logprobs=True, options={"num_predict": 8}))
        assert found == expected
    unload(shop, "whole-safetensors")
    unload(shop, "whole-gguf")


def test_quantised_forms_answer_too(shop: Server, forms: Forms) -> None:
    """Q4_1 as the model comes, and 4 bits of MLX, made on the way in. Each rounds in its own way: words may differ."""
    create(shop, "small-int4", forms.safetensors(2), quantize="int4")
    shown = shop.client.post("/api/show", json={"model": "small-int4"}).json()
    assert shown["details"]["quantization_level"] == "int4" and shown["backend"]["name"] == "mlx"
    for model in ("small-int4", "smollm2"):
        reply = chat(shop, model, QUESTIONS[0])
        assert reply["eval_count"] == 16 and reply["message"]["content"].strip()
        unload(shop, model)


@pytest.fixture(params=list(BACKENDS))
def form(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def small(form: str) -> str:
    return f"small-{form}"


def test_ps_and_show_say_which_backend_and_why(shop: Server, small: str, form: str) -> None:
    chat(shop, small, "Hi")
    (entry,) = [entry for entry in shop.ps() if entry["name"] == f"{small}:latest"]
    assert entry["runner"]["backend"] == BACKENDS[form]
    assert entry["runner"]["variant"] == "cpu" and entry["runner"]["backend_reason"]
    shown = shop.client.post("/api/show", json={"model": small}).json()
    assert shown["backend"]["name"] == BACKENDS[form]
    assert shown["backend"]["variant"] == "cpu" and shown["backend"]["reason"]
    assert shown["capabilities"] == ["completion"]


def test_streams_are_the_whole_in_pieces(shop: Server, small: str) -> None:
    whole = chat(shop, small, QUESTIONS[2])
    request = {
        "model": small,
        "messages": [{"role": "user", "content": QUESTIONS[2]}],
        "options": {"temperature": 0, "num_ctx": 512, "num_predict": 16},
    }
    with shop.client.stream("POST", "/api/chat", json=request) as stream:
        parts = [json.loads(line) for line in stream.iter_lines()]
    assert "".join(part["message"]["content"] for part in parts) == whole["message"]["content"]
    assert parts[-1]["done"] and parts[-1]["eval_count"] == whole["eval_count"]


def test_a_seed_repeats(shop: Server, small: str) -> None:
    options = {"temperature": 1.2, "seed": 7, "top_k": 50}
    first = chat(shop, small, QUESTIONS[3], options=options)["message"]
    assert first == chat(shop, small, QUESTIONS[3], options=options)["message"]
    assert first != chat(shop, small, QUESTIONS[3], options={**options, "seed": 8})["message"]


def test_stop_strings(shop: Server, small: str) -> None:
    whole = chat(shop, small, QUESTIONS[4])["message"]["content"]
    stop = whole[len(whole) // 2 : len(whole) // 2 + 3]
    reply = chat(shop, small, QUESTIONS[4], options={"stop": [stop]})
    assert reply["message"]["content"] == whole[: whole.index(stop)] and reply["done_reason"] == "stop"


def test_structured_output(shop: Server, small: str) -> None:
    reply = chat(shop, small, QUESTIONS[5], format=SCHEMA, options={"num_predict": 60})
    found = json.loads(reply["message"]["content"])
    assert found["colour"] in ("red", "green", "blue") and found["count"] <= 9 and len(found) == 2


def test_tool_calls(shop: Server, form: str) -> None:
    """A template for tools goes on top: SmolLM2's own mentions none. Two layers would never come to the point."""
    name = f"tools-{form}"
    body = {"model": name, "from": f"whole-{form}", "template": WITH_TOOLS, "stream": False}
    shop.client.post("/api/create", json=body).raise_for_status()
    options = {"num_predict": 60}
    reply = chat(shop, name, "Say yes.", tools=[TOOL], tool_choice="required", options=options)
    call = reply["message"]["tool_calls"][0]["function"]
    assert call["name"] == "get_weather" and call["arguments"]["city"] in ("Rome", "Oslo")
    unload(shop, name)


def test_the_next_turn_computes_what_is_new(shop: Server, small: str) -> None:
    first = chat(shop, small, "Tell me about the sea, the sky, the sun and the moon, and all that shines.")
    answer = first["message"]["content"]
    second = chat(
        shop,
        small,
        "Tell me about the sea, the sky, the sun and the moon, and all that shines.",
        answer,
        "And the stars?",
    )
    assert second["prompt_cached_count"] >= first["prompt_eval_count"] - 1


def test_requests_together(shop: Server, small: str) -> None:
    from concurrent.futures import ThreadPoolExecutor

    alone = [chat(shop, small, text)["message"]["content"] for text in QUESTIONS[:4]]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda text: chat(shop, small, text)["message"]["content"], QUESTIONS[:4]))
    assert together == alone


def test_tokens_there_and_back(shop: Server, small: str) -> None:
    text = "Grüße, 世界! 🦊 <|im_end|>"
    found = shop.client.post("/api/tokenize", json={"model": small, "text": text}).json()["tokens"]
    assert shop.client.post("/api/detokenize", json={"model": small, "tokens": found}).json()["text"] == text
    (first, *_) = {
        tuple(
            shop.client.post("/api/tokenize", json={"model": f"small-{form}", "text": text}).json()["tokens"]
        )
        for form in BACKENDS
    }
    assert list(first) == found


def test_an_option_that_has_no_effect_is_said(shop: Server, form: str, small: str) -> None:
    if form == "gguf":
        pytest.skip("llama.cpp has all options")
    reply = chat(shop, small, "Hi", options={"use_mmap": True})
    assert [notice["code"] for notice in reply["warnings"]] == ["option_ignored"]
    assert "use_mmap" in reply["warnings"][0]["message"]


def test_a_backend_that_cannot_load_the_form_is_refused(shop: Server, small: str, form: str) -> None:
    other = next(name for name in BACKENDS.values() if name != BACKENDS[form])
    body = {"model": small, "prompt": "Hi", "stream": False, "options": {"backend": other}}
    reply = shop.client.post("/api/generate", json=body)
    assert reply.status_code == 501 and 'option "backend"' in reply.json()["error"]
    named = chat(shop, small, "Hi", options={"backend": BACKENDS[form]})
    assert named["done"]
