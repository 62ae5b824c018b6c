"""A server that speaks OpenAI's protocol behind the native API: what it says, and what becomes of its key."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.backends.remote_kit import Line, Upstream, events, in_thread, openai, stream
from tests.conformance.remote_kit import corectl, lines
from tests.conftest import Server
from tests.registry.served import wait_for

KEY = "sk-nobody-may-see-this"
ASK = [{"role": "user", "content": "Why is the sky blue?"}]


def chunk(**delta: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": None}]}


END = {"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]}
USAGE = {"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 2}}


@pytest.fixture(scope="module")
def service() -> Iterator[Upstream]:
    """A server with another protocol."""
    with in_thread(openai("vllm")) as running:
        yield running


@pytest.fixture(scope="module")
def customer(service: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A corectl with a key for it."""
    running = Server(
        tmp_path_factory.mktemp("customer"),
        CORECTL_REMOTES=f"svc={service.url}/v1",
        CORECTL_REMOTE_KEYS=f"svc={KEY}",
        CORECTL_LOG_LEVEL="debug",
    )
    yield running
    assert running.stop() == 0, running.log
    assert KEY not in running.log


def test_thoughts_content_and_calls_of_another_protocol(service: Upstream, customer: Server) -> None:
    call = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "f", "arguments": ""}}
    pieces = [{"index": 0, "function": {"arguments": text}} for text in ('{"city": "Pa', 'ris"}')]
    service.on(
        "/v1/chat/completions",
        events(
            chunk(role="assistant", content=""),
            chunk(reasoning_content="Hm."),
            chunk(content="So: "),
            chunk(tool_calls=[call]),
            *(chunk(tool_calls=[piece]) for piece in pieces),
            END,
            USAGE,
        ),
    )
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
    body = {"model": "svc/m", "messages": ASK, "tools": [tool], "options": {"num_ctx": 64, "top_k": 3}}
    found = lines(customer, "/api/chat", **body)
    messages = [line["message"] for line in found]
    assert messages[0]["thinking"] == "Hm."
    assert "".join(message["content"] for message in messages) == "So: "
    (called,) = [call for message in messages for call in message.get("tool_calls", [])]
    assert (called["id"], called["function"]) == (
        "call_1",
        {"index": 0, "name": "f", "arguments": {"city": "Paris"}},
    )
    last = found[-1]
    assert (last["done_reason"], last["prompt_eval_count"], last["eval_count"]) == ("stop", 7, 2)
    assert [warning["code"] for warning in last["warnings"]] == ["option_ignored"]
    assert last["warnings"][0]["message"].startswith("num_ctx has no effect")
    sent = service.asked[-1]
    assert sent.headers["authorization"] == f"Bearer {KEY}"
    assert (sent.json["model"], sent.json["top_k"], sent.json["tools"]) == ("m", 3, [tool])


def test_a_stream_of_another_protocol_that_breaks_off(service: Upstream, customer: Server) -> None:
    data = b"data: " + json.dumps(chunk(content="a")).encode() + b"\n\n"
    service.on("/v1/chat/completions", stream(data, end=False))
    first, last = lines(customer, "/api/chat", model="svc/m", messages=ASK)
    assert first["message"]["content"] == "a" and "broke off" in last["error"]
    reply = customer.client.post("/api/chat", json={"model": "svc/m", "messages": ASK, "stream": False})
    assert reply.status_code == 502


def test_leaving_closes_the_connection_to_another_protocol(service: Upstream, customer: Server) -> None:
    left: list[bool] = []

    async def endless(line: Line) -> None:
        line.head()
        line.chunk(b"data: " + json.dumps(chunk(content="a")).encode() + b"\n\n")
        line.chunk(b"data: " + json.dumps(chunk(content="b")).encode() + b"\n\n")
        await line.left.wait()
        left.append(True)

    service.on("/v1/chat/completions", endless)
    with customer.client.stream("POST", "/api/chat", json={"model": "svc/m", "messages": ASK}) as reply:
        next(reply.iter_lines())
    wait_for(lambda: left == [True])
    with pytest.raises(httpx.ReadTimeout):
        customer.client.post(
            "/api/chat", json={"model": "svc/m", "messages": ASK, "stream": False}, timeout=0.5
        )
    wait_for(lambda: left == [True, True])


def test_the_key_is_shown_to_nobody(service: Upstream, customer: Server) -> None:
    async def parrot(line: Line) -> None:
        body = json.dumps({"error": {"message": f"bad key {line.asked.headers['authorization']}"}}).encode()
        line.head(401, f"x-secret: {KEY}", length=len(body))
        line.send(body)

    service.on("/v1/chat/completions", parrot)
    reply = customer.client.post("/api/chat", json={"model": "svc/m", "messages": ASK})
    assert reply.status_code == 502 and "bad key Bearer ***" in reply.json()["error"]
    shown = [
        reply.text,
        str(reply.headers),
        *(customer.client.get(path).text for path in ("/api/tags", "/api/ps", "/metrics")),
        customer.client.post("/api/show", json={"model": "svc/m"}).text,
        corectl(customer, "list"),
        corectl(customer, "show", "svc/m"),
        customer.log,
    ]
    assert not [text for text in shown if KEY in text]


def test_a_key_without_a_server_keeps_the_server_from_starting(tmp_path: Path) -> None:
    environment = {**os.environ, "CORECTL_REMOTE_KEYS": f"svc={KEY}", "OLLAMA_MODELS": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-m", "corectl", "serve", "--port", "0"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "there is no server 'svc' in remotes" in done.stderr and KEY not in done.stdout + done.stderr
