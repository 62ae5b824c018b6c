"""What becomes of a prompt that does not fit is always said, and a strict server refuses it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.conftest import DATA, GREEDY, MODEL, Server
from tests.frontends.conftest import create, upload

SMALL = {**GREEDY, "num_ctx": 64, "num_predict": 4}
LONG = [
    {"role": role, "content": f"{role} number {number} has a few words to say"}
    for number in range(20)
    for role in ("user", "assistant")
]


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    running = Server(tmp_path_factory.mktemp("strict"), "--strict-context")
    yield running
    assert running.stop() == 0, running.log


def post(server: Server, path: str, **body: Any) -> httpx.Response:
    return server.client.post(path, json={"model": MODEL, "stream": False, "options": SMALL, **body})


def header(reply: httpx.Response) -> dict[str, int]:
    pairs = (item.split("=") for item in reply.headers["x-corectl-context"].split(", "))
    return {name: int(value) for name, value in pairs}


@pytest.mark.parametrize("stream", [True, False])
def test_header_and_reply_say_what_was_dropped(server: Server, stream: bool) -> None:
    reply = post(server, "/api/chat", messages=LONG, stream=stream)
    fit = httpx.Response(200, text=reply.text.splitlines()[-1]).json()["context_fit"]
    said = header(reply)
    assert said["requested_ctx"] == said["num_ctx"] == fit["num_ctx"] == 64
    assert said["dropped_messages"] == fit["dropped_messages"] > 30
    assert 0 < said["prompt_tokens"] < 64


def test_nothing_dropped_is_said_too(server: Server) -> None:
    reply = post(server, "/api/generate", prompt="Hi")
    fit = reply.json()["context_fit"]
    assert header(reply)["dropped_messages"] == fit["dropped_messages"] == 0
    assert header(reply)["prompt_tokens"] == reply.json()["prompt_eval_count"]


def test_a_shorter_context_than_is_loaded_is_kept_to_without_another_load(server: Server) -> None:
    def loads() -> float:
        lines = server.client.get("/metrics").text.splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith("corectl_model_loads_total"))

    post(server, "/api/generate", keep_alive=0)
    post(server, "/api/generate", prompt="Hi", options={**SMALL, "num_ctx": 256})
    before = loads()
    short = post(server, "/api/generate", prompt="1 2 3", raw=True, options={**SMALL, "num_predict": 90})
    again = post(server, "/api/generate", prompt="Hi", options={**SMALL, "num_ctx": 256})
    chat = post(server, "/api/chat", messages=LONG)
    assert before > 0 and loads() == before
    assert [header(reply)["num_ctx"] for reply in (short, again, chat)] == [64, 256, 64]
    assert short.json()["context_fit"]["shifts"] > 0, "it is full with its own context"
    assert header(chat)["dropped_messages"] > 30
    models = server.client.get("/api/ps").json()["models"]
    assert [loaded["context_length"] for loaded in models if loaded["name"].startswith(MODEL)] == [256]


def test_a_strict_server_refuses_with_both_lengths(strict: Server) -> None:
    reply = post(strict, "/api/chat", messages=LONG, truncate=True)
    assert reply.status_code == 400
    assert "exceeds the available context size (64 tokens)" in reply.json()["error"]
    short = post(strict, "/api/chat", messages=LONG[:1])
    assert short.status_code == 200, short.text


def test_a_strict_server_does_not_shift(strict: Server) -> None:
    reply = post(strict, "/api/generate", prompt="1 2 3 4 5", raw=True, options={**SMALL, "num_predict": 90})
    assert reply.json()["done_reason"] == "length"
    assert reply.json()["context_fit"]["shifts"] == 0
    assert reply.json()["prompt_eval_count"] + reply.json()["eval_count"] == 64


def test_a_strict_server_cuts_no_embedding_input(strict: Server) -> None:
    create(strict, "tinybert", files={"tinybert.gguf": upload(strict, (DATA / "tinybert.gguf").read_bytes())})
    reply = post(strict, "/api/embed", model="tinybert", input="word " * 1000, truncate=True)
    assert reply.status_code == 400
    assert "the input length exceeds the context length" in reply.json()["error"]
