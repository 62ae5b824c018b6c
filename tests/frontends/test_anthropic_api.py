"""POST /v1/messages and /v1/messages/count_tokens over HTTP, on real weights."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.agent import AGENT, DONE, create_agent
from tests.conftest import MODEL, Server
from tests.frontends.conftest import SKY, create

PATH = "/v1/messages"
COUNT = f"{PATH}/count_tokens"
USER = [{"role": "user", "content": SKY}]
TOOL = {
    "name": "Bash",
    "description": "Runs a command",
    "input_schema": {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "properties": {"city": {"type": "string"}},
    },
}


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    running = Server(tmp_path_factory.mktemp("messages"), OLLAMA_MAX_LOADED_MODELS="1")
    create_agent(running)
    create(running, "plain", **{"from": MODEL}, parameters={"temperature": 0, "num_thread": 1})
    yield running
    assert running.stop() == 0, running.log


def post(
    server: Server, path: str = PATH, *, headers: dict[str, str] | None = None, **body: Any
) -> httpx.Response:
    limit = {"max_tokens": 4} if path != COUNT else {}
    whole = {"model": "plain", **limit, "messages": USER, **body}
    return server.client.post(path, json=whole, headers=headers)


def ask(server: Server, path: str = PATH, **body: Any) -> dict[str, Any]:
    reply = post(server, path, **body)
    assert reply.status_code == 200, reply.text
    assert reply.headers["content-type"] == "application/json"
    return dict(reply.json())


def refused(server: Server, path: str = PATH, status: int = 400, **body: Any) -> dict[str, Any]:
    reply = post(server, path, **body)
    assert reply.status_code == status, reply.text
    found = reply.json()
    assert list(found) == ["type", "error", "request_id"] and found["type"] == "error"
    assert reply.headers["request-id"] == found["request_id"]
    return dict(found["error"])


def test_a_message(own: Server) -> None:
    message = ask(own)
    assert message["id"].startswith("msg_") and message["type"] == "message"
    assert (message["role"], message["model"], message["stop_reason"]) == ("assistant", "plain", "max_tokens")
    assert message["stop_sequence"] is None
    assert [block["type"] for block in message["content"]] == ["text"]
    assert "warnings" not in message and message["context_fit"]["dropped_messages"] == 0


def test_headers_of_this_protocol(own: Server) -> None:
    sent = {
        "anthropic-version": "2023-06-01",
        "anthropic-beta": "claude-code-20250219,unheard-of-2030-01-01",
        "x-api-key": "any",
        "x-request-id": "mine",
    }
    reply = post(own, f"{PATH}?beta=true", headers=sent)
    assert reply.status_code == 200
    assert reply.headers["request-id"] == "req_mine" and "num_ctx=" in reply.headers["x-corectl-context"]
    assert post(own, headers={"anthropic-version": "2099-01-01"}).status_code == 200


def test_a_stream(own: Server) -> None:
    reply = post(own, stream=True)
    assert reply.headers["content-type"] == "text/event-stream"
    assert reply.headers["request-id"].startswith("req_")
    names = [line.removeprefix("event: ") for line in reply.text.splitlines() if line.startswith("event: ")]
    assert names[:3] == ["message_start", "content_block_start", "content_block_delta"]
    assert names[-3:] == ["content_block_stop", "message_delta", "message_stop"]
    data = [json.loads(line[6:]) for line in reply.text.splitlines() if line.startswith("data: ")]
    whole = ask(own)
    text = "".join(event["delta"]["text"] for event in data if event["type"] == "content_block_delta")
    assert text == whole["content"][0]["text"]
    usage = data[-2]["usage"]
    assert (
        usage["input_tokens"] + usage["cache_read_input_tokens"]
        == data[0]["message"]["usage"]["input_tokens"]
    )


def test_what_a_coding_agent_sends(own: Server) -> None:
    """Its system text in blocks, a system turn in the middle, and fields of its own."""
    message = ask(
        own,
        model=AGENT,
        max_tokens=64,
        system=[{"type": "text", "text": "You are here.", "cache_control": {"type": "ephemeral"}}],
        messages=[
            {
                "role": "user",
                "content": [{"type": "text", "text": "<reminder>"}, {"type": "text", "text": "hi"}],
            },
            {"role": "system", "content": [{"type": "text", "text": "Mind the gap."}]},
        ],
        tools=[TOOL, {**TOOL, "name": "DeferredToolPlaceholder"}],
        thinking={"type": "adaptive", "display": "updates"},
        context_management={"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
        output_config={"effort": "high"},
        metadata={"user_id": '{"device_id":"d"}'},
    )
    assert message["stop_reason"] == "tool_use" and message["content"][0]["name"] == "Bash"
    assert "warnings" not in message


def test_the_second_turn_of_an_agent(own: Server) -> None:
    result = {"type": "tool_result", "tool_use_id": "c1", "content": [{"type": "text", "text": "hi"}]}
    messages = [
        *USER,
        {"role": "assistant", "content": [{"type": "tool_use", "id": "c1", "name": "Bash", "input": {}}]},
        {"role": "user", "content": [{**result, "is_error": False}]},
    ]
    message = ask(own, model=AGENT, max_tokens=64, messages=messages, tools=[TOOL])
    assert (message["content"], message["stop_reason"]) == ([{"type": "text", "text": DONE}], "end_turn")


def test_thinking_that_a_model_cannot_do_is_left_out_and_said(own: Server) -> None:
    message = ask(own, thinking={"type": "enabled", "budget_tokens": 1024})
    assert [notice["code"] for notice in message["warnings"]] == ["thinking_not_supported"]
    assert "warnings" not in ask(own, thinking={"type": "disabled"})


def test_options_of_the_request(own: Server) -> None:
    hot: dict[str, Any] = {"temperature": 1.0, "top_p": 0.5, "top_k": 1}
    assert ask(own, **hot)["content"] == ask(own)["content"]
    assert "top_p" in refused(own, top_p=2.0)["message"]
    assert "effort" in refused(own, model=AGENT, output_config={"effort": "utmost"})["message"]


def test_a_schema_is_enforced_by_both_its_names(own: Server) -> None:
    schema = {"type": "object", "properties": {"a": {"enum": [1, 2]}}, "required": ["a"]}
    wanted = {"type": "json_schema", "schema": {**schema, "additionalProperties": False}}
    fields: list[dict[str, Any]] = [{"output_config": {"format": wanted}}, {"output_format": wanted}]
    for field in fields:
        message = ask(own, max_tokens=64, **field)
        assert json.loads(message["content"][0]["text"]) in ({"a": 1}, {"a": 2})
        assert (message["stop_reason"], message["stop_sequence"]) == ("end_turn", None)
    bad = {"format": {"type": "json_schema", "schema": {"type": "zebra"}}}
    assert refused(own, output_config=bad)["message"].startswith("output_config.format.schema.type: ")
    assert refused(own, output_format={"type": "text"})["message"].startswith("output_format must be")
    assert refused(own, keep_alive="long")["message"].startswith("keep_alive: ")


def test_the_context_may_be_chosen(own: Server) -> None:
    assert ask(own, num_ctx=512)["context_fit"]["num_ctx"] == 512
    reply = post(own, headers={"x-corectl-num-ctx": "512"})
    assert reply.json()["context_fit"]["requested_ctx"] == 512
    assert "x-corectl-num-ctx" in post(own, headers={"x-corectl-num-ctx": "many"}).json()["error"]["message"]


def test_tokens_are_counted_and_none_is_cut(own: Server) -> None:
    assert list(ask(own, COUNT)) == ["input_tokens"]
    long = [{"role": "user", "content": "word " * 2000}]
    fault = refused(own, COUNT, messages=long, num_ctx=512)
    assert (
        fault["type"] == "invalid_request_error" and "exceeds the available context size" in fault["message"]
    )
    cut = ask(own, messages=long, num_ctx=512)
    assert cut["context_fit"]["dropped_tokens"] > 1000


def test_documents_are_part_of_the_text(own: Server) -> None:
    parts = [{"type": "text", "text": text} for text in ("Sky", "The sky is blue.")]
    source = {"type": "text", "media_type": "text/plain", "data": "The sky is blue."}
    block = {"type": "document", "title": "Sky", "source": source}
    plain, read = (
        ask(own, COUNT, messages=[{"role": "user", "content": content}]) for content in (parts, [block])
    )
    assert plain == read
    block["source"] = {"type": "base64", "media_type": "application/pdf", "data": "aGk="}
    fault = refused(own, messages=[{"role": "user", "content": [block]}])
    assert fault["message"].startswith("messages[0].content[0].source: only text documents can be read")


def test_errors_in_the_form_of_this_protocol(own: Server) -> None:
    missing = refused(own, status=404, model="claude-opus-5")
    assert missing["type"] == "not_found_error"
    assert missing["message"].startswith("model 'claude-opus-5' not found; ")
    assert "corectl cp MODEL claude-opus-5" in missing["message"]
    assert "does not support tools" in refused(own, tools=[TOOL])["message"]
    picture = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aGk="}}
    assert (
        "does not support vision"
        in refused(own, messages=[{"role": "user", "content": [picture]}])["message"]
    )
    assert refused(own, COUNT, status=404, model="nobody")["type"] == "not_found_error"
    assert refused(own, messages=[])["message"] == "messages is required"
    broken = own.client.post(PATH, content=b"{")
    assert broken.status_code == 400 and broken.json()["error"]["type"] == "invalid_request_error"


def test_a_name_that_clients_send_may_be_given_to_a_model(own: Server) -> None:
    copied = own.client.post("/api/copy", json={"source": "plain", "destination": "claude-sonnet-5"})
    assert copied.status_code == 200
    assert ask(own, model="claude-sonnet-5")["model"] == "claude-sonnet-5"


def test_a_runner_that_dies_in_mid_stream_is_an_error_event(own_server: Server) -> None:
    body = {"model": MODEL, "max_tokens": 2000, "messages": USER, "stream": True, "temperature": 0}
    with httpx.stream("POST", f"{own_server.url}{PATH}", json=body, timeout=60, trust_env=False) as reply:
        lines = reply.iter_lines()
        assert any(line.startswith("event: content_block_delta") for line in lines)
        os.kill(own_server.counts()["pid"], signal.SIGKILL)
        rest = [line for line in lines if line]
    assert rest[-2] == "event: error"
    fault = json.loads(rest[-1].removeprefix("data: "))
    assert (fault["type"], fault["error"]["type"]) == ("error", "api_error")
    assert "SIGKILL" in fault["error"]["message"] and "message_stop" not in "".join(rest)
