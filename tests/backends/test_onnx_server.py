"""Models of ONNX Runtime GenAI behind the API: made from folders, and beside llama.cpp on the same weights."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.conftest import Server
from tests.forms import Forms
from tests.onnx_file import genai_config, onnx, tensor, write

pytest.importorskip("onnxruntime_genai")
pytest.importorskip("torch", reason="the model builder needs torch")

NAME = "small-onnx"
OPTIONS = {"temperature": 0, "num_ctx": 256, "num_predict": 24, "num_thread": 1}
PROMPTS = ("Once upon a time", "The capital of France is", "def add(a, b):")
LONG = "Tell me about the sea, the sky, the sun, the moon, the stars, and all the other things that shine at night."


def create(server: Server, name: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """`corectl create`, from a folder of the model builder."""
    modelfile = server.folder / f"{name}.Modelfile"
    modelfile.write_text(f"FROM {folder}\nPARAMETER num_thread 1\n")
    return subprocess.run(
        [sys.executable, "-m", "corectl", "create", name, "-f", str(modelfile)],
        env={**os.environ, "OLLAMA_HOST": server.url},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory, forms: Forms) -> Iterator[Server]:
    running = Server(tmp_path_factory.mktemp("onnx-server"))
    for name, source in ((NAME, forms.onnx(2)), ("small-gguf", forms.gguf(2))):
        made = create(running, name, source)
        assert made.returncode == 0, made.stderr
    yield running
    assert running.stop() == 0, running.log


def generate(server: Server, prompt: str, model: str = NAME, **body: Any) -> dict[str, Any]:
    options = {**OPTIONS, **body.pop("options", {})}
    return server.generate(prompt, model=model, raw=True, options=options, **body)


def chat(server: Server, *turns: str, **body: Any) -> dict[str, Any]:
    roles = ("user", "assistant")
    messages = [{"role": roles[turn % 2], "content": text} for turn, text in enumerate(turns)]
    request = {"model": NAME, "messages": messages, "stream": False, "options": OPTIONS, **body}
    return dict(server.client.post("/api/chat", json=request).raise_for_status().json())


def test_the_store_has_the_names_of_all_files(shop: Server, forms: Forms) -> None:
    manifest = shop.models / "manifests/registry.ollama.ai/library" / NAME / "latest"
    layers = json.loads(manifest.read_bytes())["layers"]
    names = {layer["name"] for layer in layers if "name" in layer}
    assert names == {path.name for path in forms.onnx(2).iterdir()}
    shown = shop.client.post("/api/show", json={"model": NAME}).json()
    assert shown["details"]["format"] == "onnx-genai"
    assert shown["details"]["quantization_level"] == "F32"
    assert shown["details"]["parameter_size"] == "35.39M"


def test_it_says_what_llama_cpp_says_on_the_same_weights(shop: Server) -> None:
    for prompt in PROMPTS:
        ours, theirs = (generate(shop, prompt, model)["response"] for model in (NAME, "small-gguf"))
        assert ours == theirs and ours


def test_probabilities_are_those_of_llama_cpp(shop: Server) -> None:
    ours, theirs = (
        generate(shop, PROMPTS[0], model, logprobs=True, top_logprobs=3)["logprobs"]
        for model in (NAME, "small-gguf")
    )
    for mine, other in zip(ours, theirs, strict=True):
        assert mine["token"] == other["token"]
        assert mine["logprob"] == pytest.approx(other["logprob"], abs=0.05)
        assert len(mine["top_logprobs"]) == 3


def test_chats_that_alternate_each_go_on_where_they_were(shop: Server) -> None:
    """There are two generators, and each conversation has one."""
    said: dict[str, list[str]] = {}
    for subject in ("winter", "summer"):
        question = f"{LONG} I mean those of {subject}."
        first = chat(shop, question, cache_salt=subject)
        assert "prompt_cached_count" not in first
        said[subject] = [question, first["message"]["content"]]
    for subject in ("winter", "summer", "winter"):
        reply = chat(shop, *said[subject], "And then?", cache_salt=subject)
        before = sum(map(len, said[subject])) // 8
        assert reply["prompt_cached_count"] > before
        said[subject] += ["And then?", reply["message"]["content"]]


def test_more_requests_than_generators_wait_for_their_turn(shop: Server) -> None:
    alone = [generate(shop, prompt)["response"] for prompt in PROMPTS]
    with ThreadPoolExecutor(6) as pool:
        together = list(pool.map(lambda prompt: generate(shop, prompt)["response"], PROMPTS * 2))
    assert together == alone * 2


def test_a_client_that_leaves_ends_its_request(shop: Server) -> None:
    options = {**OPTIONS, "num_ctx": 4096, "num_predict": 4000}
    body = {"model": NAME, "prompt": PROMPTS[0], "raw": True, "options": options}
    with httpx.stream("POST", f"{shop.url}/api/generate", json=body, timeout=60, trust_env=False) as reply:
        lines = reply.iter_lines()
        for _ in range(3):
            assert not json.loads(next(lines))["done"]
    before, after = -1, steps(shop)
    deadline = time.monotonic() + 20
    while before != after and time.monotonic() < deadline:
        time.sleep(0.5)
        before, after = after, steps(shop)
    assert before == after < 2000
    assert generate(shop, PROMPTS[0], options={"num_ctx": 4096})["done"]


def steps(server: Server) -> int:
    return server.counts(NAME)["steps"]


def test_options_without_effect_are_told(shop: Server) -> None:
    reply = generate(shop, PROMPTS[0], options={"use_mmap": False, "num_gpu": 2, "num_predict": 1})
    assert [warning["code"] for warning in reply["warnings"]] == ["option_ignored"] * 2
    assert {warning["message"].split()[0] for warning in reply["warnings"]} == {"use_mmap", "num_gpu"}
    assert "warnings" not in generate(shop, PROMPTS[0], options={"num_predict": 1})


def test_a_full_context_ends_the_answer(shop: Server) -> None:
    reply = generate(shop, "word " * 60, options={"num_ctx": 64, "num_predict": 50})
    assert reply["done_reason"] == "length"
    assert reply["prompt_eval_count"] + reply["eval_count"] <= 65


def test_a_model_that_is_stopped_leaves_no_process(shop: Server) -> None:
    generate(shop, PROMPTS[0])
    pid = shop.counts(NAME)["pid"]
    assert psutil.Process(pid).memory_info().rss > 100 << 20
    shop.client.post("/api/generate", json={"model": NAME, "keep_alive": 0}).raise_for_status()
    deadline = time.monotonic() + 20
    while psutil.pid_exists(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not psutil.pid_exists(pid)


@pytest.mark.parametrize(
    ("file", "config", "said"),
    [
        (
            onnx(tensor("w", (4,), location="../../etc/passwd", offset=0, length=16)),
            genai_config(),
            "which the model does not have",
        ),
        (
            onnx(),
            genai_config(decoder={"session_options": {"custom_ops_library": "x.so"}}),
            "custom_ops_library",
        ),
        (b"nonsense", genai_config(), "model.onnx: it "),
        (onnx(), genai_config(vision={}), "the parts vision"),
    ],
    ids=["outside", "library", "nonsense", "vision"],
)
def test_hostile_folders_are_refused_and_leave_nothing(
    shop: Server, tmp_path: Path, file: bytes, config: dict[str, Any], said: str
) -> None:
    write(tmp_path, file, config)
    made = create(shop, "hostile", tmp_path)
    assert made.returncode == 1
    assert said in made.stderr
    assert "hostile:latest" not in {model["name"] for model in shop.client.get("/api/tags").json()["models"]}
    assert shop.client.post("/api/show", json={"model": "hostile"}).status_code == 404
