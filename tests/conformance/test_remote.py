"""Models of another corectl behind one address."""

from __future__ import annotations

import hashlib
import json
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.remote_kit import corectl, lines
from tests.conftest import DATA, GREEDY, MODEL, Server
from tests.registry.served import wait_for

REMOTE = f"lab/{MODEL}"
ASK = [{"role": "user", "content": "Why is the sky blue?"}]


@pytest.fixture(scope="module")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The server that has the models."""
    running = Server(tmp_path_factory.mktemp("upstream"))
    data = (DATA / "tinybert.gguf").read_bytes()
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    running.client.post(f"/api/blobs/{digest}", content=data).raise_for_status()
    body = {"model": "tinybert", "files": {"m.gguf": digest}, "stream": False}
    running.client.post("/api/create", json=body).raise_for_status()
    yield running
    assert running.stop() == 0, running.log


@pytest.fixture(scope="module")
def front(upstream: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The server that clients ask."""
    remotes = f"lab={upstream.url},den=http://127.0.0.1:9"
    running = Server(tmp_path_factory.mktemp("front"), CORECTL_REMOTES=remotes, OLLAMA_REMOTES="127.0.0.1")
    yield running
    assert running.stop() == 0, running.log


def post(server: Server, path: str, **body: Any) -> dict[str, Any]:
    return dict(server.client.post(path, json=body).raise_for_status().json())


# One address for models here and there


def test_models_of_both_servers_are_listed(front: Server) -> None:
    entries = {entry["name"]: entry for entry in front.client.get("/api/tags").json()["models"]}
    assert {f"{MODEL}:latest", f"{REMOTE}:latest", "lab/tinybert:latest"} <= entries.keys()
    there, here = entries[f"{REMOTE}:latest"], entries[f"{MODEL}:latest"]
    assert there["remote_model"] == f"{MODEL}:latest" and there["size"] == 0
    assert (there["digest"], there["details"]) == (here["digest"], here["details"])
    assert there["capabilities"] == here["capabilities"]
    assert entries["lab/tinybert:latest"]["capabilities"] == ["embedding"]


def test_a_server_that_is_not_there_holds_nobody_up(front: Server) -> None:
    started = time.monotonic()
    for _ in range(5):
        front.client.get("/api/tags").raise_for_status()
    assert time.monotonic() - started < 5
    reply = front.client.post("/api/chat", json={"model": "den/x", "messages": ASK})
    assert reply.status_code == 502
    assert (
        "remote server den (http://127.0.0.1:9) cannot be reached: connection refused"
        in reply.json()["error"]
    )
    told = [line for line in front.log.splitlines() if "remote server den" in line and "WARNING" in line]
    assert len(told) == 1, "the log says it once"


@pytest.mark.parametrize("streamed", [True, False])
def test_a_chat_is_the_same_through_both(front: Server, upstream: Server, streamed: bool) -> None:
    body = {"messages": ASK, "options": {**GREEDY, "num_predict": 16}, "stream": streamed}
    ask = lines if streamed else lambda server, path, **body: [post(server, path, **body)]
    there = ask(upstream, "/api/chat", model=MODEL, **body)
    here = ask(front, "/api/chat", model=REMOTE, **body)
    text = "".join(line["message"]["content"] for line in there)
    assert text and "".join(line["message"]["content"] for line in here) == text
    for line in here:
        assert (line["model"], line["remote_model"], line["remote_host"]) == (
            REMOTE,
            f"{MODEL}:latest",
            upstream.url,
        )
    for key in ("done_reason", "prompt_eval_count", "eval_count", "context_fit"):
        assert here[-1][key] == there[-1][key]
    assert here[-1]["eval_duration"] > 0


def test_a_prompt_is_the_same_and_its_tokens_go_on(front: Server, upstream: Server) -> None:
    options = {**GREEDY, "num_predict": 8}
    there = post(upstream, "/api/generate", model=MODEL, prompt="Hello", options=options, stream=False)
    here = post(front, "/api/generate", model=REMOTE, prompt="Hello", options=options, stream=False)
    assert (here["response"], here["context"]) == (there["response"], there["context"])
    more = {"prompt": "And then?", "options": options, "stream": False}
    there = post(upstream, "/api/generate", model=MODEL, context=there["context"], **more)
    here = post(front, "/api/generate", model=REMOTE, context=here["context"], **more)
    assert here["response"] == there["response"]


def test_structured_output_raw_prompts_and_probabilities(front: Server, upstream: Server) -> None:
    schema = {"type": "object", "properties": {"sky": {"enum": ["blue"]}}, "required": ["sky"]}
    options = {**GREEDY, "num_predict": 40}
    said = post(front, "/api/chat", model=REMOTE, messages=ASK, format=schema, options=options, stream=False)
    assert json.loads(said["message"]["content"]) == {"sky": "blue"}
    body = {"prompt": "The capital of France is", "raw": True, "logprobs": True, "top_logprobs": 2}
    options = {**GREEDY, "num_predict": 2}
    there = post(upstream, "/api/generate", model=MODEL, options=options, stream=False, **body)
    here = post(front, "/api/generate", model=REMOTE, options=options, stream=False, **body)
    assert here["response"] == there["response"]
    assert [item["token"] for item in here["logprobs"]] == [item["token"] for item in there["logprobs"]]
    assert all(len(item["top_logprobs"]) == 2 for item in here["logprobs"])


def test_options_reach_the_model(front: Server, upstream: Server) -> None:
    post(upstream, "/api/generate", model=MODEL, keep_alive=0)
    options = {**GREEDY, "num_predict": 1, "num_ctx": 768}
    said = post(front, "/api/chat", model=REMOTE, messages=ASK, options=options, stream=False)
    assert said["context_fit"]["num_ctx"] == 768
    assert next(entry for entry in upstream.ps() if entry["name"].startswith(MODEL))["context_length"] == 768
    assert front.ps() == [], "nothing of it is in memory here"


def test_questions_with_one_answer(front: Server, upstream: Server) -> None:
    text = "Hello, wörld"
    tokens = post(front, "/api/tokenize", model=REMOTE, text=text)["tokens"]
    assert tokens == post(upstream, "/api/tokenize", model=MODEL, text=text)["tokens"]
    assert post(front, "/api/detokenize", model=REMOTE, tokens=tokens)["text"] == text
    here = post(front, "/api/render", model=REMOTE, messages=ASK)
    there = post(upstream, "/api/render", model=MODEL, messages=ASK)
    assert (here["prompt"], here["prompt_eval_count"]) == (there["prompt"], there["prompt_eval_count"])


def test_vectors(front: Server, upstream: Server) -> None:
    inputs = ["the sky", "the sea"]
    here = post(front, "/api/embed", model="lab/tinybert", input=inputs)
    there = post(upstream, "/api/embed", model="tinybert", input=inputs)
    assert here["prompt_eval_count"] == there["prompt_eval_count"]
    for ours, theirs in zip(here["embeddings"], there["embeddings"], strict=True):
        assert ours == pytest.approx(theirs, abs=1e-5)
    assert len(post(front, "/api/embeddings", model="lab/tinybert", prompt="the sky")["embedding"]) == len(
        there["embeddings"][0]
    )


@pytest.mark.parametrize(
    ("path", "body", "status", "text"),
    [
        ("/api/chat", {"model": "lab/nothing", "messages": ASK}, 404, "model 'lab/nothing' not found"),
        ("/api/chat", {"model": REMOTE, "messages": ASK, "think": True}, 400, "does not support thinking"),
        ("/api/chat", {"model": "lab/tinybert", "messages": ASK}, 400, "does not support chat"),
        ("/api/embed", {"model": REMOTE, "input": "x"}, 501, "does not support embeddings"),
        ("/api/chat", {"model": REMOTE, "messages": ASK, "format": {"type": "x"}}, 400, "format"),
        ("/api/plan", {"model": REMOTE}, 501, "takes no memory of this machine"),
        (
            "/api/rerank",
            {"model": REMOTE, "query": "q", "documents": ["d"]},
            400,
            "does not support reranking",
        ),
    ],
)
def test_errors_keep_their_status(
    front: Server, path: str, body: dict[str, Any], status: int, text: str
) -> None:
    reply = front.client.post(path, json=body)
    assert reply.status_code == status
    assert text in reply.json()["error"]


def test_a_model_is_loaded_and_unloaded_where_it_runs(front: Server, upstream: Server) -> None:
    def loaded() -> bool:
        return any(entry["name"].startswith(MODEL) for entry in upstream.ps())

    post(front, "/api/generate", model=REMOTE, options=GREEDY, keep_alive="5m")
    assert loaded()
    post(front, "/api/generate", model=REMOTE, keep_alive=0)
    wait_for(lambda: not loaded())


def test_both_logs_have_the_same_id(front: Server, upstream: Server) -> None:
    body = {"model": REMOTE, "messages": ASK, "options": {**GREEDY, "num_predict": 1}}
    front.client.post("/api/chat", json=body, headers={"X-Request-ID": "follow-me"}).raise_for_status()
    for server in (front, upstream):
        wait_for(lambda server=server: "id=follow-me" in server.log)  # type: ignore[misc]


def test_metrics(front: Server) -> None:
    post(front, "/api/chat", model=REMOTE, messages=ASK, options={**GREEDY, "num_predict": 1}, stream=False)
    text = front.client.get("/metrics").text
    assert 'corectl_remote_up{remote="lab"} 1.0' in text
    assert 'corectl_remote_up{remote="den"} 0.0' in text
    found = re.search(rf'corectl_generation_tokens_total{{model_name="{REMOTE}:latest"}} (\S+)', text)
    assert found is not None and float(found[1]) > 0


def test_the_command_line(front: Server, upstream: Server) -> None:
    listed = corectl(front, "list")
    assert re.search(rf"{REMOTE}:latest +[0-9a-f]{{12}} +- ", listed)
    shown = corectl(front, "show", REMOTE)
    assert re.search(rf"Remote URL +{upstream.url}", shown) and "completion" in shown
    assert corectl(front, "run", REMOTE, "Say hi").strip()
    info = post(front, "/api/show", model=REMOTE)
    assert info["backend"]["name"] == "remote"
    assert f"it runs on lab ({upstream.url}), which speaks the native API" in info["backend"]["reason"]


# Stubs


def create(server: Server, name: str, host: str, **more: Any) -> None:
    body = {"model": name, "from": MODEL, "remote_host": host, "stream": False, **more}
    assert post(server, "/api/create", **body) == {"status": "success"}


def test_a_stub_brings_what_it_was_made_with(front: Server, upstream: Server) -> None:
    create(
        front, "pirate", upstream.url, system="Talk like a pirate.", parameters={"num_predict": 8, **GREEDY}
    )
    said = post(front, "/api/chat", model="pirate", messages=ASK, stream=False)
    system = {"role": "system", "content": "Talk like a pirate."}
    options = {**GREEDY, "num_predict": 8}
    there = post(upstream, "/api/chat", model=MODEL, messages=[system, *ASK], options=options, stream=False)
    assert said["message"] == there["message"]
    assert (said["model"], said["remote_model"]) == ("pirate", MODEL)
    assert post(front, "/api/show", model="pirate")["capabilities"] == ["completion"]


def test_a_model_of_a_remote_server_may_be_built_on(front: Server, upstream: Server) -> None:
    body = {"model": "brief", "from": REMOTE, "system": "Be brief.", "stream": False}
    assert post(front, "/api/create", **body) == {"status": "success"}
    said = post(
        front, "/api/chat", model="brief", messages=ASK, options={**GREEDY, "num_predict": 1}, stream=False
    )
    assert said["remote_host"] == upstream.url
    front.client.request("DELETE", "/api/delete", json={"model": "brief"}).raise_for_status()
    reply = front.client.request("DELETE", "/api/delete", json={"model": REMOTE})
    assert reply.status_code == 400 and "is on another server" in reply.json()["error"]


def test_a_stub_may_not_point_anywhere(upstream: Server) -> None:
    create(upstream, "elsewhere", "http://127.0.0.1:9")
    reply = upstream.client.post("/api/chat", json={"model": "elsewhere", "messages": ASK})
    assert reply.status_code == 400
    assert "this server cannot run this remote model" in reply.json()["error"]
    assert "OLLAMA_REMOTES" in reply.json()["error"]


def test_models_that_lead_to_one_another(front: Server) -> None:
    body = {"model": "loop", "from": "loop", "remote_host": front.url, "stream": False}
    assert post(front, "/api/create", **body) == {"status": "success"}
    reply = front.client.post("/api/chat", json={"model": "loop", "messages": ASK})
    assert reply.status_code in (502, 508) and "in a circle" in reply.json()["error"]
    reply = front.client.post("/api/embed", json={"model": "loop", "input": "x"})
    assert reply.status_code in (502, 508) and "in a circle" in reply.json()["error"]
    front.client.request("DELETE", "/api/delete", json={"model": "loop"}).raise_for_status()


# What goes wrong under way


def test_a_client_that_leaves_stops_the_work_there(front: Server, upstream: Server) -> None:
    body = {"model": REMOTE, "messages": ASK, "options": {**GREEDY, "num_predict": 4000, "num_ctx": 4096}}
    with front.client.stream("POST", "/api/chat", json=body) as reply:
        next(reply.iter_lines())
    steps = -1
    for _ in range(60):
        before, steps = steps, upstream.counts()["steps"]
        if steps == before:
            break
        time.sleep(1)
    assert steps == before and steps < 2000


def test_a_server_that_dies_and_comes_back(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("there", "here")]
    for folder in folders:
        folder.mkdir()
    there = Server(folders[0])
    port = there.url.rpartition(":")[2]
    here = Server(folders[1], CORECTL_REMOTES=f"lab={there.url}")
    body = {"model": REMOTE, "messages": ASK, "options": {**GREEDY, "num_predict": 2000}}
    with here.client.stream("POST", "/api/chat", json=body) as reply:
        found = reply.iter_lines()
        assert "error" not in json.loads(next(found))
        there.process.kill()
        assert there.stop() == -signal.SIGKILL
        last = [json.loads(line) for line in found][-1]
    assert "the connection to remote server lab" in last["error"] and "broke off" in last["error"]
    reply = here.client.post("/api/chat", json=body)
    assert reply.status_code == 502 and "cannot be reached" in reply.json()["error"]
    wait_for(lambda: 'corectl_remote_up{remote="lab"} 0.0' in here.client.get("/metrics").text)
    assert REMOTE not in here.client.get("/api/tags").text
    again = Server(folders[0], "--port", port)
    said = post(here, "/api/chat", **{**body, "options": {**GREEDY, "num_predict": 1}, "stream": False})
    assert said["done"]
    wait_for(lambda: REMOTE in here.client.get("/api/tags").text)
    assert here.stop() == 0 and again.stop() == 0
