"""OpenAI's own JavaScript client against a real server and real weights."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.clients import javascript
from tests.conftest import MODEL, Server
from tests.frontends.openai_kit import recorded_model

PACKAGE = "openai@6"


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    running = Server(tmp_path_factory.mktemp("openai"))
    recorded_model(running, "tools", "smoltool")
    yield running
    assert running.stop() == 0, running.log


@pytest.fixture(scope="module")
def seen(own: Server, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What the script has seen."""
    package = javascript.installed(PACKAGE)
    return javascript.run(package, "openai.mjs", tmp_path_factory.mktemp("javascript"), own.url, MODEL)


def test_chats(seen: Any) -> None:
    assert seen["whole"] == seen["streamed"] and seen["whole"][0] and seen["whole"][1] == 8


def test_the_helper_that_runs_tools(seen: Any) -> None:
    assert seen["ran"] >= 1
    assert seen["roles"][:3] == ["user", "assistant", "tool"] and seen["roles"][-1] in ("assistant", "tool")


def test_responses(seen: Any) -> None:
    status, text = seen["response"]
    assert status == "incomplete" and text
    assert seen["events"] == ["response.created", "response.incomplete"]


def test_models(seen: Any) -> None:
    assert f"{MODEL}:latest" in seen["models"] and seen["model"] == MODEL


def test_errors_have_the_clients_classes(seen: Any) -> None:
    assert seen["missing"] == {
        "class": "NotFoundError", "status": 404, "param": "model", "code": "model_not_found"
    }  # fmt: skip
    assert seen["wrong"] == {
        "class": "BadRequestError", "status": 400, "param": "temperature", "code": "invalid_value"
    }  # fmt: skip


def test_a_client_that_leaves_ends_the_work(seen: Any, own: Server) -> None:
    """It had asked for 500 tokens, and had read one."""
    assert seen["left"] is True
    before, steps = -1, 0
    while before != steps:
        before, steps = steps, own.counts()["steps"]
        time.sleep(0.5)
    assert steps < 400
