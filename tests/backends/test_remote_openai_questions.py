"""What OpenAI's protocol answers in one piece."""

from __future__ import annotations

import time
from typing import Any

import pytest

from corectl.errors import CorectlError, NotSupported
from corectl.messages import (
    Completion,
    Detokenize,
    Embedding,
    Finish,
    LoadOptions,
    Rerank,
    Tokenize,
)
from corectl.output.vectors import rows
from tests.backends.remote_kit import (
    Script,
    Upstream,
    chat,
    complete,
    events,
    finish_of,
    hosted,
    openai,
    reply,
)
from tests.core.stories import play

PATHS = ("/v1/chat/completions", "/v1/completions")


def said(content: str | None = None, *, finish: str | None = None, **delta: Any) -> dict[str, Any]:
    """A chunk of a chat."""
    if content is not None:
        delta["content"] = content
    return {"id": "x", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}


END = said(finish="stop")


def asked(
    request: Completion,
    owner: str = "somebody",
    options: LoadOptions = LoadOptions(),  # noqa: B008
) -> tuple[str, dict[str, Any], Finish]:
    """Path and body of what a completion becomes, and the end of its reply."""
    found: list[tuple[str, dict[str, Any], Finish]] = []

    async def story() -> None:
        upstream = openai(owner)
        for path in PATHS:
            upstream.on(path, events(END))
        async with hosted(upstream, "/v1") as host:
            last = finish_of(await complete(host, request, options))
            sent = upstream.asked[-1]
            found.append((sent.path, sent.json, last))

    play(story())
    path, body, finish = found[0]
    assert body.pop("model") == "m" and body.pop("stream") is True
    assert body.pop("stream_options") == {"include_usage": True}
    return path, body, finish


def question(ask: Any, path: str, script: Script, owner: str = "somebody", **options: Any) -> tuple[Any, Any]:
    found: list[tuple[Any, Any]] = []

    async def story() -> None:
        upstream = openai(owner).on(path, script)
        async with hosted(upstream, "/v1") as host:
            answer = await ask(host.runner("m", LoadOptions(**options), None))
            found.append((answer, upstream.asked[-1].json if upstream.asked[-1].body else None))

    play(story())
    return found[0]


def test_vectors() -> None:
    value = {
        "data": [{"index": 1, "embedding": [0.0, 2.0]}, {"index": 0, "embedding": [3.0, 4.0]}],
        "usage": {"prompt_tokens": 5},
    }
    request = Embedding(inputs=("a", "b"), dimensions=2)
    answer, body = question(lambda runner: runner.embed(request), "/v1/embeddings", reply(value))
    assert body == {"model": "m", "input": ["a", "b"], "encoding_format": "float", "dimensions": 2}
    assert [pytest.approx(row) for row in rows(answer)] == [[0.6, 0.8], [0.0, 1.0]]
    assert answer.prompt_tokens == 5


@pytest.mark.parametrize(
    ("owner", "key", "given", "score"),
    [
        ("somebody", "relevance_score", 0.25, 0.25),
        ("somebody", "score", 0.25, 0.25),
        ("llamacpp", "relevance_score", 0.0, 0.5),
        ("llamacpp", "relevance_score", -1e9, 0.0),
    ],
)
def test_scores(owner: str, key: str, given: float, score: float) -> None:
    value = {"results": [{"index": 0, key: given}], "usage": {"prompt_tokens": 5}}
    request = Rerank(query="q", documents=("a",))
    answer, body = question(lambda runner: runner.rerank(request), "/v1/rerank", reply(value), owner)
    assert answer.scores == (pytest.approx(score),) and answer.prompt_tokens == 5
    assert body == {"model": "m", "query": "q", "documents": ["a"]}


@pytest.mark.parametrize(
    "ask",
    [
        lambda runner: runner.render(chat()),
        lambda runner: runner.tokenize(Tokenize(text="a")),
        lambda runner: runner.detokenize(Detokenize(tokens=(1,))),
        lambda runner: runner.embed(Embedding(inputs=("a",), template="x")),
    ],
)
def test_what_the_protocol_has_no_words_for(ask: Any) -> None:
    with pytest.raises(NotSupported, match="lab"):
        question(ask, "/", reply({}))


@pytest.mark.parametrize(
    "ask",
    [
        lambda runner: runner.embed(Embedding(inputs=("a",))),
        lambda runner: runner.rerank(Rerank(query="q", documents=("a",))),
    ],
)
def test_options_that_could_only_be_passed_over_are_refused(ask: Any) -> None:
    with pytest.raises(NotSupported, match="option num_ctx"):
        question(ask, "/", reply({}), num_ctx=9)


def test_there_is_nothing_to_load() -> None:
    async def story() -> None:
        upstream = openai()
        async with hosted(upstream, "/v1") as host:
            await host.runner("m", LoadOptions(), None).ready()
            await host.unload("m")
            assert [asked.path for asked in upstream.asked] == ["/v1/models"]

    play(story())


def test_models_have_the_time_that_they_were_made_if_it_is_one() -> None:
    async def story() -> None:
        models = [
            {"id": "a", "created": 1_700_000_000, "max_model_len": 4096},
            {"id": "b", "created": int(time.time())},
            {"id": "c", "created": -5},
        ]
        async with hosted(Upstream().on("/v1/models", reply({"data": models})), "/v1") as host:
            a, b, c = await host.models()
            assert a.modified_at is not None and a.modified_at.year == 2023 and a.context_length == 4096
            assert b.modified_at is c.modified_at is None
            assert (await host.describe("a")).id == "a"
            with pytest.raises(CorectlError, match="there is no model 'z'"):
                await host.describe("z")

    play(story())
