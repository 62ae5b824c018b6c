"""Every frontend does what its document says, whatever is sent: no 500, and no reply of another form than declared."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from schemathesis import GenerationMode

from tests.agent import AGENT, create_agent
from tests.bert import write_ranker
from tests.conformance.openapi_kit import (
    STREAMS,
    Document,
    attack,
    check_reply,
    fetched,
    operations,
    validate,
)
from tests.conformance.test_output_matrix import QWEN
from tests.conftest import MODEL, Server
from tests.frontends.conftest import EMBEDDER, create, digest_of, upload

FRONTENDS = ("anthropic", "metrics", "ollama", "openai")
MODES = (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)

BRIEF = "brief"
"""A model that says little, and that loads soon."""

THINKER = "thinker"
MADE = "made"
NOWHERE = "http://127.0.0.1:9/none/none"
"""A name in a registry that is not there: no test asks one on the internet."""

NAMES = {
    **dict.fromkeys(("/api/rerank", "/v1/rerank"), "judge"),
    "/api/embed": "tinybert",
    "/api/embeddings": "tinybert",
    "/v1/embeddings": "tinybert",
}
LIMITS = {
    **dict.fromkeys(("max_tokens", "max_completion_tokens", "max_output_tokens", "num_predict"), 4),
    **dict.fromkeys(("n", "best_of"), 2),
}
LOADING = ("num_ctx", "num_batch", "num_gpu", "main_gpu", "num_thread", "use_mmap", "backend")


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("target")
    running = Server(folder, HOME=str(folder), CORECTL_MAX_CONTEXT="512")
    create(running, "tinybert", files={"tinybert.gguf": upload(running, EMBEDDER.read_bytes())})
    parameters = {"num_predict": 4, "num_ctx": 512, "num_thread": 1}
    create(running, BRIEF, **{"from": MODEL}, parameters=parameters)
    create(running, THINKER, **{"from": MODEL}, template=QWEN, parameters=parameters)
    create(
        running, "judge", files={"judge.gguf": upload(running, write_ranker(folder / "j.gguf").read_bytes())}
    )
    create_agent(running)
    yield running
    assert running.stop() == 0, running.log
    # Requests are logged with their paths, and one of these may be the word.
    assert not any(line.startswith("Traceback") for line in running.log.splitlines())


@pytest.fixture(scope="module")
def documents(target: Server) -> dict[str, Document]:
    return {frontend: fetched(target, frontend) for frontend in FRONTENDS}


def tame(case: Any, stream: bool) -> None:
    """Names models that there are, in requests that are right, and keeps replies short and the network out."""
    body, path = case.body, case.operation.path
    right = case.meta.generation.mode is GenerationMode.POSITIVE
    if right and path == "/api/blobs/{digest}" and case.method == "POST":
        case.path_parameters["digest"] = digest_of(bytes(body.data))
    if right and case.headers:
        case.headers.pop("x-corectl-num-ctx", None)
    if path == "/v1/models/{name}" and right and stream:
        case.path_parameters["name"] = BRIEF
    if not isinstance(body, dict):
        return
    if right:
        body = case.body = {**_whole(body), "stream": stream}
    for members in (body, body.get("options"), body.get("parameters")):
        if isinstance(members, dict):
            _limit(members, right)
    if path in ("/api/pull", "/api/push"):
        body.update(dict.fromkeys({"model", "name"} & body.keys(), NOWHERE))
    elif path == "/api/create" and ("from" in body or right):
        body["from"] = BRIEF
    if right and path == "/api/copy":
        body.update(source=BRIEF, destination=MADE)
    elif right and path == "/api/verify":
        body["models"] = [BRIEF]
    elif right:
        if path == "/api/render":
            body.setdefault("prompt", "x")
        body["model"] = MADE if path in ("/api/create", "/api/delete") else NAMES.get(path, BRIEF)


def _whole(value: Any) -> Any:
    """The value with whole numbers for those like 1.0, which count as whole in schemas only."""
    if isinstance(value, dict):
        return {key: _whole(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_whole(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _limit(members: dict[str, Any], right: bool) -> None:
    for name in LIMITS.keys() & members.keys():
        if isinstance(members[name], int):
            members[name] = min(members[name], LIMITS[name])
    # Each other value of these would load the model once more.
    for name in (*LOADING, "keep_alive") if right else ():
        members.pop(name, None)


TOOL = {"name": "get_weather", "description": "Weather", "parameters": {"type": "object", "properties": {}}}
TOOLS = [{"type": "function", "function": TOOL}]
HELLO = [{"role": "user", "content": "Hello!"}]
SCHEMA = {"type": "object", "properties": {"a": {"enum": [1, 2]}}, "required": ["a"]}

FULL: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("ollama", "/api/generate", {"prompt": "Hello!", "logprobs": True, "top_logprobs": 2}),
    ("ollama", "/api/generate", {"model": THINKER, "prompt": "Hello!", "think": True, "think_budget": 2}),
    ("ollama", "/api/generate", {"prompt": "Hello! " * 300}),
    ("ollama", "/api/generate", {"prompt": "Hello!", "_debug_render_only": True}),
    ("ollama", "/api/generate", {}),
    ("ollama", "/api/chat", {"messages": HELLO, "logprobs": True, "top_logprobs": 2}),
    ("ollama", "/api/chat", {"model": THINKER, "messages": HELLO, "think": True, "think_budget": 2}),
    ("ollama", "/api/chat", {"model": AGENT, "messages": HELLO, "tools": TOOLS}),
    ("ollama", "/api/chat", {"messages": HELLO * 90}),
    ("ollama", "/api/chat", {"messages": HELLO, "_debug_render_only": True}),
    ("ollama", "/api/chat", {"messages": HELLO, "format": SCHEMA}),
    ("ollama", "/api/render", {"messages": HELLO}),
    (
        "ollama",
        "/api/rerank",
        {"model": "judge", "query": "x", "documents": ["x", "y"], "return_documents": True},
    ),
    ("ollama", "/api/embed", {"model": "tinybert", "input": ["hello " * 600, "x"]}),
    ("ollama", "/api/show", {"verbose": True}),
    ("ollama", "/api/create", {"model": MADE, "from": BRIEF, "messages": HELLO, "license": ["x", "y"]}),
    ("ollama", "/api/verify", {}),
    ("ollama", "/api/plan", {"options": {"num_ctx": 128}}),
    ("openai", "/v1/chat/completions", {"messages": HELLO, "logprobs": True, "top_logprobs": 2, "n": 2}),
    ("openai", "/v1/chat/completions", {"messages": HELLO, "stream_options": {"include_usage": True}}),
    ("openai", "/v1/chat/completions", {"model": THINKER, "messages": HELLO, "reasoning_effort": "low"}),
    ("openai", "/v1/chat/completions", {"model": AGENT, "messages": HELLO, "tools": TOOLS, "max_tokens": 64}),
    ("openai", "/v1/chat/completions", {"messages": HELLO * 90}),
    ("openai", "/v1/completions", {"prompt": ["a", "b"], "logprobs": 2, "n": 2}),
    ("openai", "/v1/completions", {"prompt": "a", "echo": True, "stream_options": {"include_usage": True}}),
    ("openai", "/v1/responses", {"input": "Hello!", "metadata": {"a": "b"}, "instructions": "x"}),
    ("openai", "/v1/responses", {"model": THINKER, "input": "Hello!", "reasoning": {"effort": "low"}}),
    ("openai", "/v1/responses", {"model": AGENT, "input": "Hello!", "tools": [{"type": "function", **TOOL}]}),
    ("openai", "/v1/embeddings", {"model": "tinybert", "input": ["hello " * 600, "x"]}),
    ("openai", "/v1/embeddings", {"model": "tinybert", "input": "x", "encoding_format": "base64"}),
    ("openai", "/v1/rerank", {"model": "judge", "query": "x", "documents": ["x"], "return_documents": True}),
    ("openai", "/v1/tokenize", {"prompt": "x"}),
    ("anthropic", "/v1/messages", {"messages": HELLO, "stop_sequences": ["e", "a"]}),
    ("anthropic", "/v1/messages", {"model": THINKER, "messages": HELLO, "thinking": {"type": "enabled"}}),
    ("anthropic", "/v1/messages", {"messages": HELLO, "thinking": {"type": "enabled"}}),
    (
        "anthropic",
        "/v1/messages",
        {"model": AGENT, "messages": HELLO, "tools": [{"name": "f", "input_schema": {"type": "object"}}]},
    ),
    ("anthropic", "/v1/messages/count_tokens", {"messages": HELLO}),
)
"""Requests that make replies have all that they can have."""


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
@pytest.mark.parametrize(
    ("frontend", "path", "body"), FULL, ids=[f"{path}-{number}" for number, (_, path, _) in enumerate(FULL)]
)
def test_full_replies_are_as_declared(
    target: Server,
    documents: dict[str, Document],
    frontend: str,
    path: str,
    body: dict[str, Any],
    stream: bool,
) -> None:
    document = documents[frontend]
    body = {"model": BRIEF, "max_tokens": 8, **body, "stream": stream}
    reply = target.client.post(path, json=body)
    assert reply.status_code == 200, reply.text
    media_type = check_reply(document, "post", path, reply)
    streamed = stream and len(document["paths"][path]["post"]["responses"]["200"]["content"]) > 1
    loads = path in ("/api/generate", "/api/chat") and not (body.get("prompt") or body.get("messages"))
    assert (media_type in STREAMS) == (streamed and not loads and "_debug_render_only" not in body)


@pytest.mark.parametrize("frontend", FRONTENDS)
def test_every_route_is_declared(target: Server, documents: dict[str, Document], frontend: str) -> None:
    document = documents[frontend]
    for method, path, operation in operations(document):
        reply = target.client.request(method, path.replace("{digest}", "x").replace("{name}", BRIEF))
        check_reply(document, method, path, reply)
        assert operation["summary"]


def test_a_document_that_is_not_there(target: Server) -> None:
    reply = target.client.get("/openapi/nobody.json")
    assert reply.status_code == 404
    assert all(f"{frontend}.json" in reply.json()["error"] for frontend in FRONTENDS)


@pytest.mark.parametrize(
    ("frontend", "path", "field", "refused"),
    [
        ("openai", "/v1/chat/completions", "audio", {"voice": "x"}),
        ("openai", "/v1/responses", "prompt", {"id": "x"}),
        ("openai", "/v1/responses", "top_logprobs", 2),
        ("anthropic", "/v1/messages", "mcp_servers", [{"name": "x"}]),
        ("anthropic", "/v1/messages", "container", "x"),
        ("anthropic", "/v1/messages/count_tokens", "container", "x"),
    ],
)
def test_what_is_refused_is_not_declared(
    target: Server, documents: dict[str, Document], frontend: str, path: str, field: str, refused: Any
) -> None:
    document = documents[frontend]
    schema = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]
    body = {"model": BRIEF, "messages": HELLO, "input": "x", "max_tokens": 1}
    validate(document, schema, body)
    body[field] = refused
    with pytest.raises(AssertionError):
        validate(document, schema, body)
    assert target.client.post(path, json=body).status_code == 400


UNREACHED = {
    *("POST /api/me", "POST /api/signout"),  # nobody is signed in
    *("POST /api/pull", "POST /api/push"),  # there is no registry
    *("HEAD /api/blobs/{digest}", "DELETE /api/delete"),  # by chance only
}
"""What has no good reply to requests that are right by their schema."""


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.value)
@pytest.mark.parametrize("frontend", FRONTENDS)
def test_replies_are_as_declared(
    target: Server, documents: dict[str, Document], frontend: str, mode: GenerationMode
) -> None:
    counts = attack(target, documents[frontend], mode, tame, examples=8)
    if mode is GenerationMode.POSITIVE:
        silent = {name for name, statuses in counts.items() if not statuses.keys() & {200, 201}}
        assert silent <= UNREACHED, counts


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.value)
@pytest.mark.parametrize("frontend", FRONTENDS)
def test_replies_are_as_declared_for_long(
    target: Server, documents: dict[str, Document], frontend: str, mode: GenerationMode
) -> None:
    counts = attack(target, documents[frontend], mode, tame, examples=250, seed=False)
    print(frontend, mode.value, counts)  # noqa: T201 - the figures of docs/api.md
