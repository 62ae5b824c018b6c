"""Models from before GGUF behind the API: from their files to an answer."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from tests.conftest import Server
from tests.legacy_ggml import FAMILIES, Size, llama, write, write_ggml

TEMPLATE = "{% for message in messages %}<{{ message.role }}> {{ message.content }}\n{% endfor %}"
SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 12}, "age": {"type": "integer", "maximum": 150}},
    "required": ["name", "age"],
    "additionalProperties": False,
}
GREEDY = {"temperature": 0, "num_predict": 12, "num_thread": 1}


@pytest.fixture(scope="module")
def legacy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with a folder's model, `gpt2`."""
    running = Server(tmp_path_factory.mktemp("server"))
    folder = tmp_path_factory.mktemp("folder")
    write_ggml(folder / "ggml-model-f16.bin", "gpt2", "f16", Size(context=1024))
    (folder / "config.json").write_text(json.dumps({"model_type": "gpt2"}))
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": TEMPLATE}))
    assert create(running, "gpt2", *folder.iterdir()) == {"status": "success"}
    yield running
    assert running.stop() == 0, running.log


def create(server: Server, model: str, *paths: Path) -> dict[str, Any]:
    files = {}
    for path in paths:
        data = path.read_bytes()
        files[path.name] = digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        server.client.post(f"/api/blobs/{digest}", content=data).raise_for_status()
    body = {"model": model, "files": files, "stream": False}
    return dict(server.client.post("/api/create", json=body).json())


def chat(server: Server, content: str = "Hello there", **body: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": content}]
    request = {"model": "gpt2", "messages": messages, "stream": False, "options": GREEDY, **body}
    return dict(server.client.post("/api/chat", json=request).json())


def test_a_chat_is_answered(legacy: Server) -> None:
    first, second = chat(legacy), chat(legacy)
    assert first["message"]["role"] == "assistant"
    assert first["message"]["content"] == second["message"]["content"] != ""
    assert (first["done_reason"], first["eval_count"]) == ("length", 12)
    assert chat(legacy, "Something else")["message"]["content"] != first["message"]["content"]


def test_what_is_shown(legacy: Server) -> None:
    shown = legacy.client.post("/api/show", json={"model": "gpt2"}).json()
    assert shown["details"]["format"] == "ggml"
    assert (shown["details"]["family"], shown["details"]["quantization_level"]) == ("gpt2", "F16")
    assert shown["model_info"]["gpt2.context_length"] == 1024
    assert shown["capabilities"] == ["completion"]
    chat(legacy)
    (entry,) = legacy.ps()
    assert entry["runner"]["backend"] == "ctransformers"
    assert (entry["context_length"], entry["size_vram"]) == (1024, 0)
    assert "only backend here that loads ggml" in entry["runner"]["backend_reason"]


def test_the_template_beside_the_weights_is_used(legacy: Server) -> None:
    body = {"model": "gpt2", "messages": [{"role": "user", "content": "hi"}], "_debug_render_only": True}
    rendered = legacy.client.post("/api/chat", json=body).json()
    assert rendered["_debug_info"]["rendered_template"].startswith("<user> hi\n")


def test_the_next_turn_of_a_chat_computes_only_what_is_new(legacy: Server) -> None:
    first = chat(legacy, "Tell me of the quick brown fox. " * 8)
    messages = [
        {"role": "user", "content": "Tell me of the quick brown fox. " * 8},
        {"role": "assistant", "content": "no"},
        {"role": "user", "content": "And then?"},
    ]
    second = chat(legacy, messages=messages)
    assert second["prompt_cached_count"] >= first["prompt_eval_count"] - 2


def test_structured_output(legacy: Server) -> None:
    for seed in range(4):
        options = {"temperature": 1.0, "seed": seed, "num_predict": 400}
        reply = chat(legacy, format=SCHEMA, options=options)
        assert reply["done_reason"] == "stop", reply
        jsonschema.validate(json.loads(reply["message"]["content"]), SCHEMA)


def test_logprobs(legacy: Server) -> None:
    reply = chat(legacy, logprobs=True, top_logprobs=3)
    assert len(reply["logprobs"]) == 12
    for item in reply["logprobs"]:
        assert item["logprob"] == item["top_logprobs"][0]["logprob"] <= 0
        assert len(item["top_logprobs"]) == 3
    spelled = b"".join(bytes(item["bytes"]) for item in reply["logprobs"])
    assert spelled.decode("utf-8", "replace") == reply["message"]["content"]


def test_stop_and_seed(legacy: Server) -> None:
    options = {"seed": 5, "temperature": 1.2, "num_predict": 40}
    whole = chat(legacy, options=options)["message"]["content"]
    assert chat(legacy, options=options)["message"]["content"] == whole
    stop = next(letter for letter in whole[5:] if letter.isascii() and letter.isprintable())
    reply = chat(legacy, options={**options, "stop": [stop]})
    assert (reply["message"]["content"], reply["done_reason"]) == (whole[: whole.index(stop)], "stop")


def test_a_prompt_that_is_too_long_is_cut_and_that_is_said(legacy: Server) -> None:
    reply = chat(legacy, "word " * 3000)
    assert reply["prompt_eval_count"] <= 1024
    assert reply["context_fit"]["dropped_tokens"] > 0
    refused = chat(legacy, "word " * 3000, truncate=False)
    assert "context" in refused["error"]


def test_a_full_context_ends_the_answer(legacy: Server) -> None:
    reply = chat(legacy, "word " * 300, options={**GREEDY, "num_predict": -1, "num_ctx": 256})
    assert reply["done_reason"] == "length"
    assert reply["prompt_eval_count"] + reply["eval_count"] <= 257


def test_options_without_effect_are_said(legacy: Server) -> None:
    reply = chat(legacy, options={**GREEDY, "num_gpu": 5})
    assert [item["code"] for item in reply["warnings"]] == ["option_ignored"]
    assert "num_gpu has no effect" in reply["warnings"][0]["message"]


def test_requests_that_come_together_take_turns(legacy: Server) -> None:
    alone = [chat(legacy, text)["message"]["content"] for text in ("one", "two", "three")]
    found: dict[str, str] = {}

    def ask(text: str) -> None:
        found[text] = chat(legacy, text)["message"]["content"]

    threads = [threading.Thread(target=ask, args=(text,)) for text in ("one", "two", "three")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[text] for text in ("one", "two", "three")] == alone
    assert legacy.counts("gpt2")["largest_step"] == 1


def test_a_client_that_goes_away_makes_room(legacy: Server) -> None:
    options = {"num_predict": 900, "temperature": 1.5}
    body = {"model": "gpt2", "prompt": "go on", "options": options}
    with legacy.client.stream("POST", "/api/generate", json=body) as reply:
        assert next(reply.iter_lines())
    assert chat(legacy)["done"]


def test_what_it_cannot_do_is_refused(legacy: Server) -> None:
    embed = legacy.client.post("/api/embed", json={"model": "gpt2", "input": "hi"})
    assert embed.status_code == 501
    tools = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
    assert "does not support tools" in chat(legacy, tools=tools)["error"]
    named = chat(legacy, options={**GREEDY, "backend": "llamacpp"})
    assert "backend 'llamacpp' loads gguf models, this one is 'ggml'" in named["error"]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_file_alone_is_enough(legacy: Server, tmp_path: Path, family: str) -> None:
    path = write_ggml(tmp_path / "whatever.bin", family, "q8_0")
    assert create(legacy, family + "-alone", path) == {"status": "success"}
    body = {"model": family + "-alone", "prompt": "The quick", "stream": False, "options": GREEDY}
    reply = legacy.client.post("/api/generate", json=body).json()
    assert reply["eval_count"] >= 1 and "error" not in reply
    shown = legacy.client.post("/api/show", json={"model": family + "-alone"}).json()
    assert shown["details"]["family"] == family


def test_the_command_line_takes_a_folder(legacy: Server, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    write(folder / "ggml-model.bin", llama(Size(), 0))
    (folder / "config.json").write_text(json.dumps({"max_position_embeddings": 640}))
    (tmp_path / "Modelfile").write_text("FROM ./model\nPARAMETER num_predict 3\n")
    ran = subprocess.run(
        [sys.executable, "-m", "corectl", "create", "from-folder", "-f", str(tmp_path / "Modelfile")],
        env={"OLLAMA_HOST": legacy.url, "HOME": str(tmp_path), "PATH": "/usr/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    shown = legacy.client.post("/api/show", json={"model": "from-folder"}).json()
    assert shown["model_info"]["llama.context_length"] == 640
    assert "num_predict" in shown["parameters"]


def test_files_that_cannot_be_loaded_make_no_model(legacy: Server, tmp_path: Path) -> None:
    path = write_ggml(tmp_path / "model.bin", "gptj")
    path.write_bytes(path.read_bytes()[:-5000])
    assert "the file was cut off" in create(legacy, "broken", path)["error"]
    path.write_bytes(b"lmgg" + bytes(500))
    assert "the numbers in the header" in create(legacy, "broken", path)["error"]
    both = [write_ggml(tmp_path / name) for name in ("a.bin", "b.bin")]
    (tmp_path / "b.bin").write_bytes(write_ggml(tmp_path / "c.bin", "mpt").read_bytes())
    assert "2 models" in create(legacy, "broken", *both)["error"]
    names = [model["name"] for model in legacy.client.get("/api/tags").json()["models"]]
    assert "broken:latest" not in names


def test_a_file_that_is_damaged_later_is_found_at_the_load(legacy: Server, tmp_path: Path) -> None:
    path = write_ggml(tmp_path / "model.bin", "gptneox")
    create(legacy, "neox", path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    blob = next((legacy.models / "blobs").glob(f"*{digest}"))
    blob.chmod(0o644)
    blob.write_bytes(blob.read_bytes()[:-100])
    reply = legacy.client.post("/api/generate", json={"model": "neox", "prompt": "hi"}).json()
    assert "the file was cut off" in reply["error"]
    assert chat(legacy)["done"]
