"""A model with a LoRA adapter: made through the API and on the command line, run, and refused where it does not fit."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import GREEDY, MODEL, Server, smollm2
from tests.lora import write_lora

SHORT = {**GREEDY, "num_predict": 12}
PROMPT = "The capital of France is"


def create(server: Server, name: str, adapter: Path) -> None:
    data = adapter.read_bytes()
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    server.client.post(f"/api/blobs/{digest}", content=data).raise_for_status()
    body = {"model": name, "from": MODEL, "adapters": {"a.gguf": digest}, "stream": False}
    assert server.client.post("/api/create", json=body).raise_for_status().json() == {"status": "success"}


def text(server: Server, model: str) -> str:
    return str(server.generate(PROMPT, model=model, raw=True, options=SHORT)["response"])


@pytest.fixture(scope="module")
def plain(server: Server) -> str:
    return text(server, MODEL)


@pytest.fixture
def models(server: Server) -> Iterator[list[str]]:
    """Names of models that the test makes; they are removed after it."""
    names: list[str] = []
    yield names
    for name in names:
        server.client.request("DELETE", "/api/delete", json={"model": name}).raise_for_status()


def test_an_adapter_changes_what_a_model_says(
    server: Server, plain: str, models: list[str], tmp_path: Path
) -> None:
    create(server, "tuned", write_lora(tmp_path / "a.gguf", smollm2()))
    models.append("tuned")
    tuned = text(server, "tuned")
    assert tuned and tuned != plain
    assert text(server, MODEL) == plain
    assert text(server, "tuned") == tuned
    # The adapter is counted, and the two are not the same in memory.
    sizes = {entry["name"].split(":")[0]: entry["size"] for entry in server.ps()}
    assert sizes["tuned"] - sizes[MODEL] > 800_000
    shown = server.client.post("/api/show", json={"model": "tuned"}).raise_for_status().json()
    assert "\nADAPTER " in shown["modelfile"]
    plan = server.client.post("/api/plan", json={"model": "tuned"}).raise_for_status().json()
    assert plan["fits"]


def test_on_the_command_line(server: Server, plain: str, models: list[str], tmp_path: Path) -> None:
    write_lora(tmp_path / "zero.gguf", smollm2(), strength=0.0)
    (tmp_path / "Modelfile").write_text(f"FROM {MODEL}\nADAPTER ./zero.gguf\n")
    subprocess.run(
        [sys.executable, "-m", "corectl", "create", "untouched", "-f", str(tmp_path / "Modelfile")],
        env={**os.environ, "OLLAMA_HOST": server.url},
        check=True,
        capture_output=True,
    )
    models.append("untouched")
    assert text(server, "untouched") == plain


def test_an_adapter_for_another_model(server: Server, models: list[str], tmp_path: Path) -> None:
    create(server, "wrong", write_lora(tmp_path / "a.gguf", smollm2(), architecture="qwen2"))
    models.append("wrong")
    for path, body in (("generate", {"prompt": "Hi"}), ("chat", {"messages": []})):
        reply = server.client.post(f"/api/{path}", json={"model": "wrong", **body, "stream": False})
        assert reply.status_code == 500
        assert "the adapter sha256-" in reply.json()["error"]
        assert "for models of the architecture qwen2, and this one is llama" in reply.json()["error"]
    assert text(server, MODEL)
