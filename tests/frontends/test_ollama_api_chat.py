"""POST /api/chat: replies, messages, and what this version cannot do yet."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.conftest import MODEL, Server
from tests.frontends.conftest import (
    SKY,
    ask,
    chat,
    create,
    delete,
    loaded_names,
    options,
    refused,
    rendered,
    stream,
)

CHAT = "/api/chat"
USER = [{"role": "user", "content": SKY}]
FINAL = {
    *("model", "created_at", "message", "done", "done_reason", "total_duration", "load_duration"),
    *("prompt_eval_count", "prompt_eval_duration", "eval_count", "eval_duration"),
}
ADDITIONS = {"context_fit", "prompt_cached_count"}
TOOL = {"type": "function", "function": {"name": "f", "description": "d", "parameters": {"type": "object"}}}


def test_a_stream_is_chunks_and_a_final_one(server: Server) -> None:
    *chunks, final = stream(server, CHAT, messages=USER)
    for chunk in chunks:
        assert list(chunk) == ["model", "created_at", "message", "done"]
        assert chunk["message"]["role"] == "assistant" and chunk["message"]["content"]
        assert chunk["done"] is False
    assert final.keys() - ADDITIONS == FINAL
    assert final["message"] == {"role": "assistant", "content": ""} and final["done"] is True


def test_one_reply_is_the_stream_put_together(server: Server) -> None:
    *chunks, final = stream(server, CHAT, messages=USER)
    whole = chat(server, SKY)
    assert whole["message"]["content"] == "".join(chunk["message"]["content"] for chunk in chunks)
    assert whole.keys() - ADDITIONS == final.keys() - ADDITIONS
    assert (whole["eval_count"], whole["done_reason"]) == (8, "length")


def test_a_chat_of_one_message_is_a_generation(server: Server) -> None:
    assert chat(server, SKY)["message"]["content"] == ask(server, "/api/generate", prompt=SKY)["response"]


def test_messages_are_rendered_in_order(server: Server) -> None:
    messages = [
        {"role": "system", "content": "S"},
        {"role": "user", "content": "A"},
        {"role": "assistant", "content": "B"},
        {"role": "user", "content": "C"},
    ]
    text = rendered(server, CHAT, messages=messages)
    turns = [f"<|im_start|>{item['role']}\n{item['content']}<|im_end|>\n" for item in messages]
    assert text == "".join(turns) + "<|im_start|>assistant\n"


@pytest.mark.parametrize("role", ["USER", "User", "user"])
def test_roles_in_capitals(server: Server, role: str) -> None:
    small = rendered(server, CHAT, messages=USER)
    assert rendered(server, CHAT, messages=[{"role": role, "content": SKY}]) == small


def test_null_and_missing_fields_of_messages(server: Server) -> None:
    bare = rendered(server, CHAT, messages=[{"role": "user"}])
    nulls = dict.fromkeys(("content", "images", "tool_calls", "thinking", "tool_name"))
    assert rendered(server, CHAT, messages=[{"role": "user", **nulls}]) == bare
    assert "<|im_start|>user\n<|im_end|>" in bare


def test_a_model_with_a_system_and_messages(shop: Server) -> None:
    example = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Arr!"}]
    create(shop, "pirate", **{"from": MODEL}, system="Be a pirate.", messages=example)
    text = rendered(shop, CHAT, model="pirate", messages=USER)
    assert [text.index(part) for part in ("Be a pirate.", "Hello", "Arr!", SKY)] == sorted(
        text.index(part) for part in ("Be a pirate.", "Hello", "Arr!", SKY)
    )
    own = rendered(shop, CHAT, model="pirate", messages=[{"role": "system", "content": "Be kind."}, *USER])
    assert "Be a pirate." not in own and "Be kind." in own and "Arr!" in own
    generated = rendered(shop, "/api/generate", model="pirate", prompt=SKY)
    assert generated == text
    assert "Arr!" not in rendered(shop, "/api/generate", model="pirate", prompt=SKY, context=[5])
    assert "Be kind." in rendered(shop, "/api/generate", model="pirate", prompt=SKY, system="Be kind.")
    delete(shop, "pirate")


def test_load_and_unload(shop: Server) -> None:
    loaded = ask(shop, CHAT, messages=[])
    assert loaded.keys() == {"model", "created_at", "message", "done", "done_reason"}
    assert loaded["message"] == {"role": "assistant", "content": ""}
    assert (loaded["done"], loaded["done_reason"]) == (True, "load")
    assert f"{MODEL}:latest" in loaded_names(shop)
    assert ask(shop, CHAT, keep_alive=0)["done_reason"] == "unload"
    assert f"{MODEL}:latest" not in loaded_names(shop)
    # A load is one object, also for a client that wants a stream.
    assert ask(shop, CHAT, stream=True)["done_reason"] == "load"


def test_logprobs(server: Server) -> None:
    reply = chat(server, SKY, logprobs=True, top_logprobs=3)
    assert "".join(entry["token"] for entry in reply["logprobs"]) == reply["message"]["content"]
    assert all(len(entry["top_logprobs"]) == 3 for entry in reply["logprobs"])
    *chunks, final = stream(server, CHAT, messages=USER, logprobs=True)
    assert [chunk["logprobs"][0]["logprob"] for chunk in chunks] == [
        entry["logprob"] for entry in reply["logprobs"]
    ]
    assert "logprobs" not in final


def test_stop_strings(server: Server) -> None:
    text = chat(server, SKY)["message"]["content"]
    stop = text[len(text) // 2 :][:3]
    reply = chat(server, SKY, options=options(stop=[stop]))
    assert reply["message"]["content"] == text[: text.index(stop)]
    assert reply["done_reason"] == "stop"


def test_a_rendered_prompt_is_no_answer(server: Server) -> None:
    reply = ask(server, CHAT, messages=USER, _debug_render_only=True)
    assert reply.keys() == {"model", "created_at", "message", "done", "_debug_info"}
    assert reply["message"]["content"] == "" and reply["done"] is False


@pytest.mark.parametrize(
    ("extra", "error"),
    [
        ({"think": True}, f'"{MODEL}" does not support thinking'),
        ({"think": "high"}, f'"{MODEL}" does not support thinking'),
        (
            {"think": "x"},
            'invalid think value: "x" (must be "high", "medium", "low", "max", true, or false)',
        ),
        (
            {"think": 5},
            'think must be a boolean or string ("high", "medium", "low", "max", true, or false)',
        ),
        ({"tools": [TOOL]}, f"registry.ollama.ai/library/{MODEL}:latest does not support tools"),
        (
            {"messages": [{"role": "user", "content": "x", "images": ["aGk="]}]},
            f"registry.ollama.ai/library/{MODEL}:latest does not support vision",
        ),
        ({"format": "yaml"}, 'invalid format: "\\"yaml\\""; expected "json" or a valid JSON Schema object'),
        ({"top_logprobs": 21}, "top_logprobs must be between 0 and 20"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_what_the_model_cannot_do(server: Server, extra: dict[str, Any], error: str) -> None:
    assert refused(server, CHAT, **{"messages": USER, **extra}) == error


@pytest.mark.parametrize("format", ["json", {"enum": ["yes", "no"]}], ids=["json", "schema"])
def test_a_format_holds_for_both_routes(server: Server, format: Any) -> None:
    limits = options(num_predict=64)
    in_chat = chat(server, SKY, format=format, options=limits)["message"]["content"]
    generated = ask(server, "/api/generate", prompt=SKY, format=format, options=limits)["response"]
    for text in (in_chat, generated):
        value = json.loads(text)
        assert isinstance(value, dict) if format == "json" else value in ("yes", "no")


@pytest.mark.parametrize("extra", [{"think": False}, {"tools": []}, {"format": ""}, {"format": None}])
def test_what_asks_for_nothing_is_fine(server: Server, extra: dict[str, Any]) -> None:
    assert chat(server, SKY, **extra)["message"] == chat(server, SKY)["message"]


@pytest.mark.parametrize(
    "messages",
    [
        "x",
        {"role": "user"},
        [5],
        [{"role": "user", "content": [{"type": "text", "text": "x"}]}],
        [{"role": 5, "content": "x"}],
        [{"role": "user", "content": "x", "images": "aGk="}],
        [{"role": "assistant", "tool_calls": [{"function": {"arguments": {}}}]}],
        [{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]}],
    ],
    ids=str,
)
def test_messages_of_the_wrong_shape(server: Server, messages: Any) -> None:
    assert "messages" in refused(server, CHAT, messages=messages)
