"""One line of the log for each request, and the id that it is found by."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.conftest import MODEL, Server
from tests.frontends.conftest import SKY, options


@pytest.fixture(scope="module")
def talkative(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server whose log is JSON. The file has the line that `Listening on` is found by, as ever."""
    running = Server(tmp_path_factory.mktemp("json"), CORECTL_LOG_FORMAT="json")
    yield running
    assert running.stop() == 0, running.log


def text_of(server: Server, id: str) -> str:
    """The only line of a request. It is written after the reply."""
    deadline = time.monotonic() + 30
    found: list[str] = []
    while not found and time.monotonic() < deadline:
        found = [line for line in server.log.splitlines(keepends=True) if id in line and line.endswith("\n")]
    (line,) = found
    return line


def line_of(server: Server, reply: httpx.Response) -> dict[str, Any]:
    """The same, of a log in JSON."""
    assert all(json.loads(line) for line in server.log.splitlines()[:-1])
    return dict(json.loads(text_of(server, reply.headers["x-request-id"])))


def generate(server: Server, **body: Any) -> httpx.Response:
    return server.client.post(
        "/api/generate", json={"model": MODEL, "prompt": SKY, "options": options(), **body}
    )


def test_a_completion_in_json(talkative: Server) -> None:
    reply = generate(talkative, stream=False)
    entry = line_of(talkative, reply)
    body = reply.json()
    assert entry["level"] == "INFO" and entry["source"] == "corectl.request" and entry["msg"] == "request"
    assert (entry["method"], entry["path"], entry["status"]) == ("POST", "/api/generate", 200)
    assert (entry["model"], entry["outcome"], entry["reason"]) == (f"{MODEL}:latest", "finished", "length")
    assert entry["prompt_tokens"] == body["prompt_eval_count"]
    assert (entry["output_tokens"], entry["cached_tokens"]) == (body["eval_count"], 0)
    assert 0 <= entry["load"] <= entry["queued"] <= entry["first_token"] <= entry["total"]
    assert SKY not in talkative.log


def test_a_streamed_completion_has_the_same_line(talkative: Server) -> None:
    reply = generate(talkative, options=options(num_ctx=64), prompt=SKY * 30)
    entry = line_of(talkative, reply)
    assert (entry["status"], entry["outcome"], entry["output_tokens"]) == (200, "finished", 8)
    assert entry["notices"] == "prompt_truncated"


def test_requests_without_a_model(talkative: Server) -> None:
    entry = line_of(talkative, talkative.client.get("/api/version?key=secret"))
    assert (entry["status"], entry["outcome"]) == (200, "finished") and "model" not in entry
    entry = line_of(talkative, talkative.client.get("/nowhere/" + "x" * 500))
    assert (entry["status"], entry["outcome"], len(entry["path"])) == (404, "refused", 200)
    entry = line_of(talkative, talkative.client.get("/api/version", headers={"origin": "http://evil.test"}))
    assert (entry["status"], entry["outcome"]) == (403, "refused")
    assert "secret" not in talkative.log


def test_errors_have_an_id_and_their_code(talkative: Server) -> None:
    entry = line_of(talkative, generate(talkative, model="nobody"))
    assert (entry["status"], entry["outcome"]) == (404, "not_found")
    entry = line_of(talkative, generate(talkative, options={"num_ctx": "many"}))
    assert (entry["status"], entry["outcome"]) == (400, "bad_request")


def test_a_client_that_leaves_is_written_down_as_that(talkative: Server) -> None:
    with talkative.client.stream(
        "POST",
        "/api/generate",
        json={"model": MODEL, "prompt": SKY, "options": options(num_predict=2000)},
        headers={"x-request-id": "leaver"},
    ) as reply:
        next(reply.iter_raw())
    entry = line_of(talkative, reply)
    assert entry["id"] == "leaver" and entry["outcome"] == "cancelled" and "output_tokens" not in entry


@pytest.mark.parametrize("id", ["abc", "A-1_b.c:d", "x" * 64])
def test_an_id_of_the_client_is_kept(server: Server, id: str) -> None:
    assert server.client.get("/", headers={"x-request-id": id}).headers["x-request-id"] == id


@pytest.mark.parametrize("id", ["", "x" * 65, "a b", 'a"b', "a=b", "<script>"])
def test_an_id_that_is_not_sane_is_replaced(server: Server, id: str) -> None:
    found = server.client.get("/", headers={"x-request-id": id}).headers["x-request-id"]
    assert re.fullmatch("[0-9a-f]{32}", found)


def test_the_line_as_text(server: Server) -> None:
    line = text_of(server, generate(server, stream=False).headers["x-request-id"])
    assert re.match(r'time=\S+ \S+ level=INFO source=corectl\.request msg="request" id=', line)
    assert " path=/api/generate status=200 outcome=finished" in line
    assert f" model={MODEL}:latest " in line and " output_tokens=8" in line


def test_a_path_cannot_forge_a_line(server: Server) -> None:
    reply = server.client.get("/x%0Atime=now%20level=ERROR%20msg=%22no%22")
    line = text_of(server, reply.headers["x-request-id"])
    assert "\\ntime=now" in line
