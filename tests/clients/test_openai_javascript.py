"""OpenAI's own JavaScript client against a real server and real weights."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from tests.agent import CITY, DONE, create_agent
from tests.backends.remote_kit import in_thread, openai, reply
from tests.clients import javascript
from tests.conftest import DATA, MODEL, Server
from tests.frontends.conftest import create, upload

PACKAGE = "openai@6"


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that knows another one, which gets too many requests."""
    limited = openai().on("/v1/chat/completions", reply({"error": {"message": "slow down"}}, 429))
    with in_thread(limited):
        running = Server(tmp_path_factory.mktemp("openai"), CORECTL_REMOTES=f"svc={limited.url}/v1")
        embedder = DATA / "tinybert.gguf"
        create(running, "tinybert", files={embedder.name: upload(running, embedder.read_bytes())})
        create_agent(running)
        yield running
        assert running.stop() == 0, running.log


@pytest.fixture(scope="module")
def seen(own: Server, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What the script has seen."""
    package = javascript.installed(PACKAGE)
    folder = tmp_path_factory.mktemp("javascript")
    return javascript.run(package, "openai.mjs", folder, own.url, MODEL, "svc/m")


def test_chats(seen: Any) -> None:
    assert seen["whole"] == seen["streamed"] and seen["whole"][0] and seen["whole"][1] == 8
    assert seen["helper"] == ["The", "stop"]


def test_parsed_replies(seen: Any) -> None:
    for person in (seen["parsed"], seen["form"]):
        assert person["kind"] == "person" and isinstance(person["grown"], bool)


def test_the_helper_that_runs_tools(seen: Any) -> None:
    """It walks the loop of call, result and last word, streamed and not."""
    assert seen["ran"] == 2 * [[["user", "assistant", "tool", "assistant"], [CITY], DONE]]


def test_responses(seen: Any) -> None:
    status, text = seen["response"]
    assert status == "incomplete" and text
    assert seen["events"] == ["response.created", "response.incomplete"]
    assert seen["more"]
    assert [json.loads(arguments) for arguments in seen["called"]] == [{"city": CITY}]


def test_completions_and_embeddings(seen: Any) -> None:
    assert seen["text"] == seen["pieces"] and seen["text"]
    packed, plain = seen["vectors"]
    assert np.shape(packed) == (2, 64) and np.allclose(packed, plain)


def test_models(seen: Any) -> None:
    assert f"{MODEL}:latest" in seen["models"] and seen["model"] == MODEL


def test_errors_have_the_clients_classes(seen: Any) -> None:
    assert seen["missing"] == {
        "class": "NotFoundError", "status": 404, "param": "model", "code": "model_not_found"
    }  # fmt: skip
    assert seen["wrong"] == {
        "class": "BadRequestError", "status": 400, "param": "temperature", "code": "invalid_value"
    }  # fmt: skip
    assert seen["limited"] == {
        "class": "RateLimitError",
        "status": 429,
        "param": None,
        "code": "remote_error",
    }
    assert seen["unable"] == {
        "class": "InternalServerError", "status": 501, "param": "model", "code": "not_supported"
    }  # fmt: skip


def test_a_client_that_leaves_ends_the_work(seen: Any, own: Server) -> None:
    """It had asked for 500 tokens, and had read one."""
    assert seen["left"] is True
    before, steps = -1, 0
    while before != steps:
        before, steps = steps, own.counts()["steps"]
        time.sleep(0.5)
    assert steps < 400
