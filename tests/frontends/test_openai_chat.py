"""POST /v1/chat/completions, on real weights."""

from __future__ import annotations

import json
from typing import Any

import pytest

from corectl_openai.content import read_messages
from tests.conftest import MODEL, Server
from tests.frontends.openai_kit import (
    CLEAR,
    GREEDY,
    QUESTION,
    WEATHER,
    ask,
    chat,
    chat_events,
    recorded_model,
    refused,
    text_of,
)

DEEP = '{"a":' * 300 + "1" + "}" * 300


@pytest.fixture(scope="module")
def tooled(shop: Server) -> str:
    return recorded_model(shop, "openai-tools", "smoltool")


@pytest.fixture(scope="module")
def thinker(shop: Server) -> str:
    return recorded_model(shop, "openai-thinks", "smolthink")


def test_a_whole_reply(server: Server) -> None:
    reply = chat(server)
    assert reply["object"] == "chat.completion" and reply["id"].startswith("chatcmpl-")
    assert reply["model"] == MODEL and reply["created"] > 1_700_000_000
    (choice,) = reply["choices"]
    assert list(choice) == ["index", "message", "finish_reason"]
    assert choice["finish_reason"] == "length" and choice["message"]["content"]
    usage = reply["usage"]
    assert usage["completion_tokens"] == 8
    assert usage["total_tokens"] == usage["prompt_tokens"] + 8
    assert 0 <= usage["prompt_tokens_details"]["cached_tokens"] < usage["prompt_tokens"]
    assert "warnings" not in reply


def test_a_stream_says_the_same_as_a_whole_reply(server: Server) -> None:
    chunks = chat_events(server)
    first, *middle, last = chunks
    assert first["choices"][0]["delta"]["role"] == "assistant"
    assert all(list(chunk["choices"][0]["delta"]) == ["content"] for chunk in middle)
    assert last["choices"] == [{"index": 0, "delta": {}, "finish_reason": "length"}]
    assert all(chunk["choices"][0]["finish_reason"] is None for chunk in chunks[:-1])
    assert len({(chunk["id"], chunk["created"], chunk["object"]) for chunk in chunks}) == 1
    assert first["object"] == "chat.completion.chunk" and "usage" not in last
    clear: dict[str, Any] = {"messages": CLEAR, "max_tokens": 6}
    whole = chat(server, **clear)["choices"][0]["message"]["content"]
    assert text_of(chat_events(server, **clear)) == whole


def test_usage_comes_in_a_chunk_of_its_own_if_it_is_wanted(server: Server) -> None:
    *others, last = chat_events(server, stream_options={"include_usage": True})
    assert last["choices"] == [] and last["usage"]["completion_tokens"] == 8
    assert all("usage" not in chunk for chunk in others)


def test_several_choices_are_drawn_with_seeds_of_their_own(server: Server) -> None:
    warm = {"temperature": 1.5, "seed": 7, "max_tokens": 12}
    reply = chat(server, n=3, **warm)
    texts = [choice["message"]["content"] for choice in reply["choices"]]
    assert [choice["index"] for choice in reply["choices"]] == [0, 1, 2]
    assert len(set(texts)) == 3
    usage = reply["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert usage["completion_tokens"] > 12


def test_several_choices_in_a_stream(server: Server) -> None:
    clear: dict[str, Any] = {"messages": CLEAR, "max_tokens": 6, "n": 2}
    chunks = chat_events(server, **clear, stream_options={"include_usage": True})
    whole = chat(server, **clear)
    for index in (0, 1):
        own = [c["choices"][0] for c in chunks if c["choices"] and c["choices"][0]["index"] == index]
        assert [choice["delta"].get("role") for choice in own][:2] == ["assistant", None]
        assert own[-1]["finish_reason"] == "length"
        assert text_of(chunks, index) == whole["choices"][index]["message"]["content"]
    assert chunks[-1]["usage"]["completion_tokens"] == 12


def test_many_choices_of_a_long_prompt_are_refused(server: Server) -> None:
    long = [{"role": "user", "content": "word " * 120_000}]
    error = refused(server, "/v1/chat/completions", messages=long, n=128, max_tokens=1)
    assert error["param"] == "n" and "max_body" in error["message"]


def test_stop_and_limits(server: Server) -> None:
    reply = chat(server, stop=[" ", "zzz"], max_tokens=40)
    assert reply["choices"][0]["message"]["content"] == "The"
    assert reply["choices"][0]["finish_reason"] == "stop"
    assert chat(server, stop=" ")["choices"][0]["message"]["content"] == "The"
    limited = chat(server, max_tokens=30, max_completion_tokens=3)
    assert limited["usage"]["completion_tokens"] == 3
    assert chat(server, max_tokens=None, max_completion_tokens=4)["usage"]["completion_tokens"] == 4


def test_tokens_can_be_wanted_and_unwanted(server: Server) -> None:
    the = ask(server, "/v1/tokenize", prompt="The", add_special_tokens=False)["tokens"][0]
    sky = ask(server, "/v1/tokenize", prompt=" sky", add_special_tokens=False)["tokens"][0]
    plain = chat(server)["choices"][0]["message"]["content"]
    assert plain.startswith("The ")
    without = chat(server, logit_bias={str(the): -100})["choices"][0]["message"]["content"]
    assert without and not without.startswith("The")
    again = chat(server, logit_bias={str(sky): 100}, max_tokens=3)["choices"][0]["message"]["content"]
    assert again == " sky sky sky"


def test_logprobs(server: Server) -> None:
    (choice,) = chat(server, messages=CLEAR, logprobs=True, top_logprobs=2, max_tokens=3)["choices"]
    tokens = choice["logprobs"]["content"]
    assert "".join(token["token"] for token in tokens) == choice["message"]["content"]
    for token in tokens:
        assert list(token) == ["token", "logprob", "bytes", "top_logprobs"]
        assert bytes(token["bytes"]).decode() == token["token"]
        assert token["logprob"] <= 0 and len(token["top_logprobs"]) == 2
        assert token["top_logprobs"][0]["token"] == token["token"], "greedy"
    chunks = chat_events(server, messages=CLEAR, logprobs=True, max_tokens=3)
    streamed = [c["choices"][0]["logprobs"]["content"] for c in chunks if "logprobs" in c["choices"][0]]
    assert [entry["token"] for part in streamed for entry in part] == [token["token"] for token in tokens]
    assert all(entry["top_logprobs"] == [] for part in streamed for entry in part)


@pytest.mark.parametrize(
    ("wanted", "matches"),
    [
        ({"type": "json_object"}, lambda found: isinstance(found, dict)),
        (
            {
                "type": "json_schema",
                "json_schema": {
                    "name": "person",
                    "strict": True,
                    "schema": {
                        "type": "object",
                        "properties": {"age": {"type": "integer", "minimum": 1, "maximum": 99}},
                        "required": ["age"],
                        "additionalProperties": False,
                    },
                },
            },
            lambda found: list(found) == ["age"] and 1 <= found["age"] <= 99,
        ),
    ],
)
def test_formats_are_enforced(server: Server, wanted: dict[str, Any], matches: Any) -> None:
    bob = {"role": "user", "content": "Bob is 30."}
    shown = {"role": "assistant", "content": '{"age": 30}'}
    reply = chat(server, messages=[bob, shown, bob], response_format=wanted, max_tokens=60)
    assert reply["choices"][0]["finish_reason"] == "stop"
    assert matches(json.loads(reply["choices"][0]["message"]["content"]))


def test_text_is_no_format(server: Server) -> None:
    plain, text = (
        chat(server, messages=CLEAR, **more) for more in ({}, {"response_format": {"type": "text"}})
    )
    assert plain["choices"] == text["choices"]


def test_a_call_that_is_required_and_its_answer(shop: Server, tooled: str) -> None:
    messages: list[Any] = [{"role": "user", "content": "Weather in Paris?"}]
    body = {"model": tooled, "tools": [WEATHER], "max_tokens": 64}
    reply = chat(shop, messages=messages, tool_choice="required", **body)
    (choice,) = reply["choices"]
    assert choice["finish_reason"] == "tool_calls" and choice["message"]["content"] == ""
    call = choice["message"]["tool_calls"][0]
    assert call["type"] == "function" and call["id"].startswith("call_") and call["index"] == 0
    assert call["function"]["name"] == "get_weather"
    assert json.loads(call["function"]["arguments"])["city"] in ("Paris", "Rome")
    # As some clients send it back: without content, and with keys of their own.
    messages += [
        {"role": "assistant", "content": None, "tool_calls": [{**call, "provider_specific_fields": {}}]},
        {"role": "tool", "tool_call_id": call["id"], "content": [{"type": "text", "text": "22 degrees"}]},
    ]
    again = chat(shop, messages=messages, **body, tool_choice="none")
    assert again["choices"][0]["finish_reason"] in ("stop", "length")
    assert "tool_calls" not in again["choices"][0]["message"]


def test_calls_are_streamed_as_they_are_written(shop: Server, tooled: str) -> None:
    body = {"model": tooled, "tools": [WEATHER], "max_tokens": 64}
    named = {"type": "function", "function": {"name": "get_weather"}}
    chunks = chat_events(shop, tool_choice=named, parallel_tool_calls=False, **body)
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    calls = [call for delta in deltas for call in delta.get("tool_calls", [])]
    assert calls[0]["function"]["name"] == "get_weather" and calls[0]["id"].startswith("call_")
    assert len(calls) > 1 and all(call.keys() == {"index", "function"} for call in calls[1:])
    arguments = "".join(call["function"]["arguments"] for call in calls)
    assert json.loads(arguments)["city"] in ("Paris", "Rome")
    assert deltas[0]["role"] == "assistant"
    assert chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"


def test_a_call_that_broke_off_can_be_sent_back(shop: Server, tooled: str) -> None:
    body = {"model": tooled, "tools": [WEATHER]}
    chunks = chat_events(shop, tool_choice="required", **body, max_tokens=20)
    assert chunks[-1]["choices"][0]["finish_reason"] == "length"
    calls = [call for c in chunks for call in c["choices"][0]["delta"].get("tool_calls", [])]
    arguments = "".join(call["function"]["arguments"] for call in calls)
    with pytest.raises(ValueError, match=r"Expecting|Unterminated"):
        json.loads(arguments)
    call = {**calls[0], "function": {"name": "get_weather", "arguments": arguments}}
    turns = [
        {"role": "assistant", "content": text_of(chunks), "tool_calls": [call]},
        {"role": "tool", "tool_call_id": call["id"], "content": "These arguments are no JSON."},
    ]
    assert chat(shop, messages=[*QUESTION, *turns], **body)["usage"]["completion_tokens"] > 0


@pytest.mark.parametrize(
    ("order", "text"),
    [
        ("tiuj", "Before:\n[img]\nAfter:\n[img]"),
        ("ti", "Before:\n[img]"),
        ("it", "Before:"),
        ("ijt", "Before:"),
        ("itj", "[img]\nBefore:\n[img]"),
        ("i", ""),
    ],
)
def test_images_stand_where_they_stand_among_the_texts(order: str, text: str) -> None:
    parts = {
        "t": {"type": "text", "text": "Before:"},
        "u": {"type": "text", "text": "After:"},
        "i": {"type": "image_url", "image_url": {"url": "data:image/png;base64,aaaa"}},
        "j": {"type": "image_url", "image_url": {"url": "data:image/png;base64,bbbb"}},
    }
    (message,) = read_messages([{"role": "user", "content": [parts[name] for name in order]}])
    assert message.content == text
    assert message.images == tuple({"i": "aaaa", "j": "bbbb"}[name] for name in order if name in "ij")


@pytest.mark.parametrize("text", ["{", '{"a": 1]}', "[]", "5", '"x"', '{"a": 1e999}', "[" * 5000, DEEP])
def test_arguments_that_are_no_object_stand_in_one(text: str) -> None:
    call = {"id": "c", "function": {"name": "f", "arguments": text}}
    (message,) = read_messages([{"role": "assistant", "tool_calls": [call]}])
    assert message.tool_calls[0]["function"]["arguments"] == {"INVALID_JSON": text}


def test_thoughts_come_as_reasoning(shop: Server, thinker: str) -> None:
    message = chat(shop, model=thinker, reasoning_effort="high")["choices"][0]["message"]
    assert message["reasoning"] and message["content"] == ""
    deltas = [chunk["choices"][0]["delta"] for chunk in chat_events(shop, model=thinker)]
    assert "".join(delta.get("reasoning", "") for delta in deltas)
    assert all(delta["content"] == "" for delta in deltas if "reasoning" in delta)
    silent = chat(shop, model=thinker, reasoning_effort="none")["choices"][0]["message"]
    assert "reasoning" not in silent and silent["content"]
    assert refused(shop, "/v1/chat/completions", model=MODEL, messages=QUESTION, reasoning_effort="low") == {
        "message": f'"{MODEL}" does not support thinking',
        "type": "invalid_request_error",
        "param": "reasoning_effort",
        "code": "invalid_value",
    }


def test_parts_of_text_are_one_message(server: Server) -> None:
    parts = [{"type": "text", "text": "Why is the"}, {"type": "text", "text": "sky blue?"}]
    one = chat(server, messages=[{"role": "user", "content": "Why is the\nsky blue?"}])
    several = chat(server, messages=[{"role": "user", "content": parts}])
    assert several["choices"] == one["choices"]
    assert several["usage"]["prompt_tokens"] == one["usage"]["prompt_tokens"]


def test_a_refusal_is_what_an_assistant_has_said(server: Server) -> None:
    told = [{"role": "assistant", "content": None, "refusal": "No, thank you."}, *QUESTION]
    said = [{"role": "assistant", "content": "No, thank you."}, *QUESTION]
    assert (
        chat(server, messages=told)["usage"]["prompt_tokens"]
        == chat(server, messages=said)["usage"]["prompt_tokens"]
    )


def test_developers_are_heard_as_the_system(server: Server) -> None:
    replies = [
        chat(server, messages=[{"role": role, "content": "Be brief"}, *CLEAR])
        for role in ("system", "developer")
    ]
    assert replies[0]["choices"] == replies[1]["choices"]
    assert replies[0]["usage"]["prompt_tokens"] == replies[1]["usage"]["prompt_tokens"]


def test_the_context_is_a_field_or_a_header(shop: Server) -> None:
    name = "openai-context"
    shop.client.post("/api/copy", json={"source": MODEL, "destination": name})
    body = {"model": name, "messages": QUESTION, **GREEDY, "keep_alive": 60}
    reply = shop.client.post("/v1/chat/completions", json={**body, "num_ctx": 512})
    assert "num_ctx=512" in reply.headers["x-corectl-context"]
    options = {"num_ctx": 640, "num_predict": 3, "top_k": 1}  # as Goose sends them
    reply = shop.client.post("/v1/chat/completions", json={**body, "max_tokens": None, "options": options})
    assert "num_ctx=640" in reply.headers["x-corectl-context"]
    assert reply.json()["usage"]["completion_tokens"] == 3
    headers = {"x-corectl-num-ctx": "768"}
    reply = shop.client.post("/v1/chat/completions", json=body, headers=headers)
    assert "num_ctx=768" in reply.headers["x-corectl-context"]
    reply = shop.client.post("/v1/chat/completions", json=body, headers={"x-corectl-num-ctx": "many"})
    assert reply.status_code == 400 and reply.json()["error"]["param"] == "x-corectl-num-ctx"


def test_what_was_dropped_is_said(shop: Server) -> None:
    name = "openai-small"
    shop.client.post("/api/copy", json={"source": MODEL, "destination": name})
    long = [{"role": "user", "content": "word " * 600}, {"role": "assistant", "content": "ok"}, *QUESTION]
    reply = chat(shop, model=name, messages=long, num_ctx=256)
    assert reply["context_fit"]["dropped_messages"] > 0 and reply["context_fit"]["requested_ctx"] == 256
    chunks = chat_events(shop, model=name, messages=long, num_ctx=256)
    assert chunks[-1]["context_fit"]["dropped_messages"] > 0


def test_the_models_own_parameters_stand_before_the_protocols_defaults(shop: Server) -> None:
    shop.client.post(
        "/api/create",
        json={"model": "openai-cold", "from": MODEL, "parameters": {"temperature": 0}, "stream": False},
    ).raise_for_status()
    body = {"model": "openai-cold", "messages": QUESTION, "max_tokens": 12}
    texts = {ask(shop, "/v1/chat/completions", **body)["choices"][0]["message"]["content"] for _ in range(3)}
    assert len(texts) == 1


def test_a_message_that_is_cut_is_said(shop: Server) -> None:
    shop.client.post("/api/copy", json={"source": MODEL, "destination": "openai-tight"})
    long = [{"role": "user", "content": "word " * 600}]
    body = {"model": "openai-tight", "messages": long, "num_ctx": 256, "max_tokens": 1}
    cut = chat(shop, **body)
    assert cut["context_fit"]["dropped_tokens"] > 0
