"""Short ways to ask a server in OpenAI's protocol, and models that call tools and think."""

from __future__ import annotations

import json
from typing import Any

from tests.conftest import DATA, MODEL, Server
from tests.frontends.conftest import SKY, create

QUESTION = [{"role": "user", "content": SKY}]
SAY = "Say exactly: one two three four five six"
"""The first six tokens of the answer have no close second, so that company in a step changes none of them."""
CLEAR = [{"role": "user", "content": SAY}]
GREEDY = {"temperature": 0, "seed": 42, "max_tokens": 8}
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Tells the weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "enum": ["Paris", "Rome"]}},
            "required": ["city"],
        },
    },
}


def recorded_model(server: Server, name: str, recorded: str) -> str:
    """A model like one of the recording, of SmolLM2's weights."""
    lines = [json.loads(line) for line in (DATA / "goldens.jsonl").read_text("utf-8").splitlines()]
    setup = next(line["setup"] for line in lines if line.get("setup", {}).get("model") == recorded)
    words = {key: setup[key] for key in ("template", "parameters", "system", "messages") if key in setup}
    create(server, name, **{"from": MODEL}, **words)
    return name


def ask(server: Server, path: str, /, **body: Any) -> dict[str, Any]:
    """The JSON of a reply that must be good."""
    reply = server.client.post(path, json={"model": MODEL, **body})
    assert reply.status_code == 200, reply.text
    assert reply.headers["content-type"] == "application/json"
    return dict(reply.json())


def chat(server: Server, /, **body: Any) -> dict[str, Any]:
    return ask(server, "/v1/chat/completions", **{"messages": QUESTION, **GREEDY, **body})


def events(server: Server, path: str, /, **body: Any) -> list[Any]:
    """The data of each event of a stream that must be good; its end is not among them."""
    with server.client.stream("POST", path, json={"model": MODEL, "stream": True, **body}) as reply:
        assert reply.status_code == 200, reply.read()
        assert reply.headers["content-type"] == "text/event-stream"
        text = "".join(reply.iter_text())
    found = [event.removeprefix("data: ") for event in text.split("\n\n")]
    assert found[-2:] == ["[DONE]", ""], text
    return [json.loads(event) for event in found[:-2]]


def chat_events(server: Server, /, **body: Any) -> list[Any]:
    return events(server, "/v1/chat/completions", **{"messages": QUESTION, **GREEDY, **body})


def refused(server: Server, path: str, /, status: int = 400, **body: Any) -> dict[str, Any]:
    """The error object of a request that must fail."""
    reply = server.client.post(path, json={"model": MODEL, **body})
    assert reply.status_code == status, reply.text
    assert reply.headers["content-type"] == "application/json"
    error = dict(reply.json()["error"])
    assert list(reply.json()) == ["error"] and list(error) == ["message", "type", "param", "code"]
    return error


def text_of(chunks: list[Any], index: int = 0) -> str:
    """The content of one choice of a stream."""
    choices = [choice for chunk in chunks for choice in chunk["choices"] if choice["index"] == index]
    return "".join(choice["delta"].get("content", "") for choice in choices)
