"""When models are loaded and unloaded, and what happens at the end of a context."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.conftest import GREEDY, MODEL, Server
from tests.frontends.conftest import SKY, ask, chat, loaded_names, options, refused, stream

GENERATE = "/api/generate"
NAME = f"{MODEL}:latest"
STORY = "Tell me a long story about a fox."


def _load(server: Server, **body: Any) -> dict[str, Any]:
    return ask(server, GENERATE, **{"options": GREEDY, **body})


def _entry(server: Server) -> dict[str, Any]:
    return next(model for model in server.ps() if model["name"] == NAME)


def _seconds_left(server: Server) -> float:
    return (datetime.fromisoformat(_entry(server)["expires_at"]) - datetime.now(UTC)).total_seconds()


def test_preload_and_unload(shop: Server) -> None:
    loaded = _load(shop)
    assert loaded.keys() == {"model", "created_at", "response", "done", "done_reason"}
    assert (loaded["response"], loaded["done"], loaded["done_reason"]) == ("", True, "load")
    assert NAME in loaded_names(shop)
    for _ in range(2):
        assert _load(shop, keep_alive=0)["done_reason"] == "unload"
        assert NAME not in loaded_names(shop)
    assert _load(shop, prompt="", stream=True)["done_reason"] == "load"


@pytest.mark.parametrize(
    ("keep_alive", "seconds"),
    [
        *((30, 30), (90.5, 90.5), ("10m", 600), ("1h30m", 5400), ("90000ms", 90), ("1.5h", 5400)),
        *((None, 300), ("45s", 45)),
    ],
)
def test_keep_alive(shop: Server, keep_alive: Any, seconds: float) -> None:
    _load(shop, keep_alive=keep_alive)
    assert seconds - 10 < _seconds_left(shop) <= seconds


@pytest.mark.parametrize("keep_alive", [-1, -0.5, "-5s", "-1m"])
def test_for_ever(shop: Server, keep_alive: Any) -> None:
    _load(shop, keep_alive=keep_alive)
    assert _seconds_left(shop) > 100 * 365 * 86400
    _load(shop)


@pytest.mark.parametrize("keep_alive", [0, 0.0, "0", "0s", "0ms"])
def test_not_at_all(shop: Server, keep_alive: Any) -> None:
    reply = ask(shop, GENERATE, prompt=SKY, keep_alive=keep_alive, options=options(num_predict=1))
    assert reply["done_reason"] == "length"
    deadline = time.monotonic() + 10
    while NAME in loaded_names(shop) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert NAME not in loaded_names(shop)


def test_a_model_goes_when_its_time_is_over(shop: Server) -> None:
    _load(shop, keep_alive="300ms")
    deadline = time.monotonic() + 15
    while NAME in loaded_names(shop) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert NAME not in loaded_names(shop)


@pytest.mark.parametrize(
    ("keep_alive", "error"),
    [
        ("abc", 'time: invalid duration "abc"'),
        ("", 'time: invalid duration ""'),
        ("10", 'time: missing unit in duration "10"'),
        ("5x", 'time: invalid duration "5x"'),
        (True, "Unsupported type: 'bool'"),
        ([], "Unsupported type: '[]interface {}'"),
        ({}, "Unsupported type: 'map[string]interface {}'"),
    ],
)
def test_keep_alive_that_is_none(server: Server, keep_alive: Any, error: str) -> None:
    assert refused(server, GENERATE, prompt=SKY, keep_alive=keep_alive) == error
    assert refused(server, "/api/chat", messages=[], keep_alive=keep_alive) == error


def test_a_longer_context_loads_again_and_a_shorter_one_does_not(shop: Server) -> None:
    def ask_for(num_ctx: int) -> Any:
        reply = ask(shop, GENERATE, prompt="Hi", options=options(num_ctx=num_ctx, num_predict=1))
        assert reply["context_fit"]["num_ctx"] == num_ctx
        return _entry(shop)

    ask(shop, GENERATE, keep_alive=0)
    short = ask_for(512)
    long = ask_for(1024)
    assert (short["context_length"], long["context_length"]) == (512, 1024)
    assert long["runner"]["pid"] != short["runner"]["pid"]
    again = ask_for(512)
    assert again["context_length"] == 1024 and again["runner"]["pid"] == long["runner"]["pid"]


def test_a_context_beyond_what_the_model_was_trained_for(shop: Server) -> None:
    reply = ask(shop, GENERATE, prompt="Hi", options=options(num_ctx=10**6, num_predict=1))
    assert reply["context_fit"]["num_ctx"] == 8192
    assert _entry(shop)["context_length"] == 8192
    assert "requested context size too large" in shop.log


def test_a_prompt_that_must_not_be_cut(shop: Server) -> None:
    small = options(num_ctx=128)
    error = refused(shop, GENERATE, prompt="word " * 300, truncate=False, options=small)
    assert "tokens) exceeds the available context size (128 tokens)" in error
    messages = [{"role": "user", "content": "word " * 300}]
    refused(shop, "/api/chat", messages=messages, truncate=False, options=small)
    refused(shop, GENERATE, prompt="word " * 300, shift=False, options=small)


def test_a_prompt_that_is_cut_says_so(shop: Server) -> None:
    reply = ask(shop, GENERATE, prompt="word " * 300, options=options(num_ctx=128))
    fit = reply["context_fit"]
    assert fit["num_ctx"] == 128 and fit["dropped_tokens"] > 170
    assert reply["prompt_eval_count"] < 128 and 1 <= reply["eval_count"] <= 8


def test_oldest_messages_are_dropped_first(shop: Server) -> None:
    turns = [f"{word} " * 20 for word in ("one", "two", "three", "four", "five", "six")]
    reply = chat(shop, *turns, "What now?", options=options(num_ctx=128))
    fit = reply["context_fit"]
    assert 1 <= fit["dropped_messages"] <= 6 and fit["dropped_tokens"] == 0
    assert reply["prompt_eval_count"] < 128
    whole = chat(shop, "six " * 20, "ok", "What now?", options=options(num_ctx=128))
    assert whole["context_fit"]["dropped_messages"] == 0


def test_a_full_context_ends_without_a_shift(shop: Server) -> None:
    reply = ask(shop, GENERATE, prompt=STORY, shift=False, options=options(num_ctx=128, num_predict=200))
    assert reply["done_reason"] == "length"
    assert reply["prompt_eval_count"] + reply["eval_count"] == 128
    assert reply["context_fit"]["shifts"] == 0


def test_a_full_context_is_shifted(shop: Server) -> None:
    body = {"prompt": STORY, "options": options(num_ctx=128, num_predict=200)}
    # Both are computed afresh: what is taken from the cache may differ in its last bits.
    *chunks, final = stream(shop, GENERATE, cache_salt="shifted", **body)
    assert final["context_fit"]["shifts"] >= 1
    assert final["prompt_eval_count"] + final["eval_count"] > 128
    assert final["eval_count"] == 200 or final["done_reason"] == "stop"
    unshifted = ask(shop, GENERATE, shift=False, cache_salt="unshifted", **body)["response"]
    text = "".join(chunk["response"] for chunk in chunks)
    assert text.startswith(unshifted) and len(text) > len(unshifted)
