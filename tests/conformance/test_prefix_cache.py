"""What was computed once is not computed again: by the runner's own count of tokens, and by what replies say."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.conftest import GREEDY, MODEL, Server

SYSTEM = "You are a helpful assistant who answers in one short sentence. " * 30
OPTIONS = {**GREEDY, "num_ctx": 1024, "num_predict": 12}


def chat(server: Server, *turns: str, system: str = SYSTEM, **body: Any) -> dict[str, Any]:
    roles = ["user", "assistant"] * len(turns)
    messages = [{"role": role, "content": text} for role, text in zip(roles, turns, strict=False)]
    request = {
        "model": MODEL,
        "messages": [{"role": "system", "content": system}, *messages],
        "stream": False,
        "options": OPTIONS,
        **body,
    }
    return dict(server.client.post("/api/chat", json=request).raise_for_status().json())


def computed(reply: dict[str, Any]) -> int:
    """Tokens of a reply's prompt that were not known before."""
    return int(reply["prompt_eval_count"]) - int(reply.get("prompt_cached_count", 0))


def tokens(server: Server) -> int:
    return server.counts()["step_tokens"]


def test_the_second_turn_of_a_chat_computes_what_is_new(own_server: Server) -> None:
    first = chat(own_server, "Why is the sky blue?")
    assert "prompt_cached_count" not in first and first["prompt_eval_count"] > 300
    before = tokens(own_server)
    second = chat(own_server, "Why is the sky blue?", first["message"]["content"], "And at night?")
    # The new question, what the template puts around it, and the end of the reply before.
    assert 0 < computed(second) < 40
    assert tokens(own_server) - before == computed(second) + second["eval_count"] - 1


def test_eight_clients_share_a_system_prompt_that_is_computed_once(own_server: Server) -> None:
    own_server.load()
    chat(own_server, "Hi", system="Short.")
    before = tokens(own_server)
    with ThreadPoolExecutor(8) as pool:
        replies = list(pool.map(lambda number: chat(own_server, f"What is {number} + 1?"), range(8)))
    assert all(reply["message"]["content"] for reply in replies)
    shared = min(reply["prompt_eval_count"] for reply in replies) - 30
    assert shared > 300
    counted = tokens(own_server) - before
    assert counted == sum(computed(reply) + reply["eval_count"] - 1 for reply in replies)
    # All eight together, without the output: the system prompt once, and the questions.
    assert counted - sum(reply["eval_count"] for reply in replies) < shared + 8 * 40


def test_a_salt_keeps_what_is_computed_to_itself(server: Server) -> None:
    system = SYSTEM + " You like secrets."
    # Other tests' prompts may have begun with the template's first words.
    for salt in ("", "mine", "yours"):
        assert computed(chat(server, "Hi", system=system, cache_salt=salt)) > 300
    assert computed(chat(server, "Hi", system=system, cache_salt="mine")) == 1


@pytest.mark.parametrize("stream", [True, False])
def test_what_is_cached_counts_as_prompt(server: Server, stream: bool) -> None:
    """Clients read `prompt_eval_count` as the length of the prompt."""
    prompt = {"model": MODEL, "prompt": "One two three four five six.", "raw": True, "options": OPTIONS}
    replies = [
        server.client.post("/api/generate", json={**prompt, "stream": stream}).text.splitlines()[-1]
        for _ in range(2)
    ]
    assert len({reply.split('"prompt_eval_count":')[1].split(",")[0] for reply in replies}) == 1
    assert '"prompt_cached_count":' in replies[1]
