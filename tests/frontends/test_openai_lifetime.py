"""Streams in OpenAI's protocol whose client leaves, or whose runner dies."""

from __future__ import annotations

import json
import os
import signal
import time
from typing import Any

import httpx
import pytest

from tests.conftest import MODEL, Server
from tests.frontends.openai_kit import QUESTION

STREAMS: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": QUESTION, "n": 3, "max_tokens": 2000},
    "/v1/completions": {"prompt": ["a", "b"], "n": 2, "max_tokens": 2000},
    "/v1/responses": {"input": QUESTION, "max_output_tokens": 2000},
}


@pytest.mark.parametrize("path", STREAMS)
def test_a_runner_that_dies_is_the_last_event_of_the_stream(own_server: Server, path: str) -> None:
    body = {"model": MODEL, "stream": True, **STREAMS[path]}
    with httpx.stream("POST", f"{own_server.url}{path}", json=body, timeout=60, trust_env=False) as reply:
        lines = reply.iter_lines()
        assert any('"delta"' in line or '"text"' in line for line in lines)
        os.kill(own_server.counts()["pid"], signal.SIGKILL)
        rest = [line for line in lines if line]
    last = json.loads(rest[-1].removeprefix("data: "))
    response = path == "/v1/responses"
    error = last["response"]["error"] if response else last["error"]
    assert error["code"] == ("server_error" if response else "runner_died") and "SIGKILL" in error["message"]
    assert sum("SIGKILL" in line for line in rest) == 1 and "data: [DONE]" not in rest


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", STREAMS)
def test_all_choices_end_with_the_client(own_server: Server, path: str, stream: bool) -> None:
    own_server.load()
    body = {"model": MODEL, "stream": stream, **STREAMS[path]}
    with httpx.Client(base_url=own_server.url, timeout=2, trust_env=False) as client:
        try:
            with client.stream("POST", path, json=body) as reply:
                next(reply.iter_lines())
        except httpx.ReadTimeout:
            assert not stream
    before, steps = -1, own_server.counts()["steps"]
    while before != steps:
        time.sleep(0.5)
        before, steps = steps, own_server.counts()["steps"]
    assert steps < 1500
    own_server.client.post("/api/generate", json={"model": MODEL, "keep_alive": 0})
    assert own_server.ps() == [], "nothing holds the model any more"
