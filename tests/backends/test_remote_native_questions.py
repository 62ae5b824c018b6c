"""What the native API answers in one piece: vectors, scores, tokens, and which models there are."""

from __future__ import annotations

from datetime import UTC, datetime
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
from corectl.remote.backend import RemoteEntry
from corectl_remote.host import Host
from tests.backends.remote_kit import (
    OLLAMA,
    VERSION,
    Script,
    chat,
    complete,
    finish_of,
    hosted,
    native,
    reply,
    stream,
)
from tests.core.stories import play


def said(text: str = "", **more: Any) -> dict[str, Any]:
    """A line of a chat."""
    return {"model": "m", "message": {"role": "assistant", "content": text, **more}, "done": False}


def done(**more: Any) -> dict[str, Any]:
    return {**said(), "done": True, "done_reason": "stop", **more}


def asked(
    request: Completion,
    *,
    version: dict[str, str] = VERSION,
    options: LoadOptions = LoadOptions(),  # noqa: B008
    keep_alive: float | None = None,
) -> tuple[str, dict[str, Any], Finish]:
    """Path and body of what a completion becomes, and the end of its reply."""
    found: list[tuple[str, dict[str, Any], Finish]] = []

    async def story() -> None:
        answer = stream(done(), {"model": "m", "response": "", "done": True})
        upstream = native(**version).on("/api/chat", answer).on("/api/generate", answer)
        async with hosted(upstream) as host:
            last = finish_of(await complete(host, request, options, keep_alive))
            sent = upstream.asked[-1]
            found.append((sent.path, sent.json, last))

    play(story())
    return found[0]


def question(
    ask: Any, path: str, script: Script, version: dict[str, str] = VERSION
) -> tuple[Any, dict[str, Any]]:
    """The answer to a question, and the body that it was asked with."""
    found: list[tuple[Any, dict[str, Any]]] = []

    async def story() -> None:
        upstream = native(**version).on(path, script)
        async with hosted(upstream) as host:
            runner = host.runner("m", LoadOptions(num_ctx=9), 5.0)
            answer = await ask(runner)
            found.append((answer, upstream.asked[-1].json))

    play(story())
    return found[0]


COMMON = {"model": "m", "options": {"num_ctx": 9}, "keep_alive": 5.0}


def test_vectors_are_normalised() -> None:
    value = {"embeddings": [[3, 4], [0.0, 0.0]], "prompt_eval_count": 5, "dropped_tokens": 1}
    request = Embedding(inputs=("a", "b"), dimensions=2, truncate=False)
    answer, body = question(lambda runner: runner.embed(request), "/api/embed", reply(value))
    assert body == {**COMMON, "input": ["a", "b"], "truncate": False, "dimensions": 2}
    assert [pytest.approx(row) for row in rows(answer)] == [[0.6, 0.8], [0.0, 0.0]]
    assert (answer.prompt_tokens, answer.dropped_tokens) == (5, 1)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"embeddings": [[1.0]]}, "wanted were 2 of one size"),
        ({"embeddings": [[1.0], [1.0, 2.0]]}, "wanted were 2 of one size"),
        ({"embeddings": [[], []]}, "wanted were 2 of one size"),
        ({"embeddings": [[1.0], ["x"]]}, "sent what cannot be read"),
        ({"embeddings": [[1.7e308, 1.7e308], [1.0, 1.0]]}, "NaN or Inf"),
        ({}, "sent what cannot be read"),
    ],
)
def test_vectors_that_are_none(value: dict[str, Any], text: str) -> None:
    request = Embedding(inputs=("a", "b"))
    with pytest.raises(CorectlError, match=text):
        question(lambda runner: runner.embed(request), "/api/embed", reply(value))


def test_scores_come_in_the_order_of_the_documents() -> None:
    value = {"results": [{"index": 1, "relevance_score": 0.9}, {"index": 0, "relevance_score": 0.1}]}
    request = Rerank(query="q", documents=("a", "b"))
    answer, body = question(lambda runner: runner.rerank(request), "/api/rerank", reply(value))
    assert answer.scores == (0.1, 0.9)
    assert body == {**COMMON, "query": "q", "documents": ["a", "b"], "truncate": True}


@pytest.mark.parametrize("indexes", [[0], [0, 0], [0, 2], [0, 1, 1]])
def test_scores_that_are_none(indexes: list[int]) -> None:
    value = {"results": [{"index": index, "relevance_score": 0.5} for index in indexes]}
    with pytest.raises(CorectlError, match="did not score each of 2 documents"):
        question(
            lambda runner: runner.rerank(Rerank(query="q", documents=("a", "b"))), "/api/rerank", reply(value)
        )


def test_tokens_and_their_text() -> None:
    answer, body = question(
        lambda runner: runner.tokenize(Tokenize(text="a", add_special=True)),
        "/api/tokenize",
        reply({"tokens": [1, 2], "count": 2}),
    )
    assert (answer.tokens, body) == ((1, 2), {**COMMON, "text": "a", "add_special": True})
    answer, body = question(
        lambda runner: runner.detokenize(Detokenize(tokens=(1, 2))), "/api/detokenize", reply({"text": "a"})
    )
    assert (answer.text, body) == ("a", {**COMMON, "tokens": [1, 2]})


def test_a_prompt_can_be_shown() -> None:
    value = {"prompt": "<s>Hi", "prompt_eval_count": 3, "context_fit": {"num_ctx": 64}, "image_count": 1}
    answer, body = question(lambda runner: runner.render(chat(render_only=True)), "/api/render", reply(value))
    assert (answer.text, answer.prompt_tokens, answer.fit.num_ctx, answer.images) == ("<s>Hi", 3, 64, 1)
    assert body == {**COMMON, "messages": [{"role": "user", "content": "Hi"}]}


@pytest.mark.parametrize(
    "ask",
    [
        lambda runner: runner.render(chat()),
        lambda runner: runner.rerank(Rerank(query="q", documents=("a",))),
        lambda runner: runner.tokenize(Tokenize(text="a")),
        lambda runner: runner.detokenize(Detokenize(tokens=(1,))),
    ],
)
def test_what_an_ollama_cannot(ask: Any) -> None:
    with pytest.raises(NotSupported, match="lab"):
        question(ask, "/", reply({}), OLLAMA)


def test_a_template_around_texts_to_embed() -> None:
    with pytest.raises(NotSupported, match="leave out TEMPLATE"):
        question(lambda runner: runner.embed(Embedding(inputs=("a",), template="x")), "/", reply({}))


def test_a_model_is_loaded_and_unloaded_where_it_runs() -> None:
    async def story() -> None:
        upstream = native().on("/api/generate", reply({"done": True}))
        async with hosted(upstream) as host:
            await host.runner("m", LoadOptions(num_ctx=9), 5.0).ready()
            await host.unload("m")
        assert upstream.bodies("/api/generate") == [
            {**COMMON, "stream": False},
            {"model": "m", "keep_alive": 0, "stream": False},
        ]

    play(story())


async def _models(host: Host) -> list[RemoteEntry]:
    return list(await host.models())


def test_the_list_of_models() -> None:
    tags = {
        "models": [
            {
                "name": "a:latest",
                "modified_at": "2026-01-02T03:04:05.123456789Z",
                "digest": "0" * 64,
                "details": {
                    "format": "gguf",
                    "family": "llama",
                    "families": None,
                    "parameter_size": "1B",
                    "quantization_level": "Q4_0",
                    "context_length": 64,
                    "embedding_length": 8,
                },
                "capabilities": ["completion"],
            },
            {"name": "b", "modified_at": "yesterday", "digest": "../../x", "details": None},
        ]
    }

    async def story() -> None:
        async with hosted(native().on("/api/tags", reply(tags))) as host:
            first, second = await _models(host)
            assert first == RemoteEntry(
                id="a:latest",
                format="gguf",
                family="llama",
                parameter_size="1B",
                quantization="Q4_0",
                context_length=64,
                embedding_length=8,
                capabilities=("completion",),
                modified_at=datetime(2026, 1, 2, 3, 4, 5, 123457, UTC),
                digest="0" * 64,
            )
            assert second == RemoteEntry(id="b")

    play(story())


def test_one_model() -> None:
    show = {
        "details": {"family": "llama", "parameter_size": "1B"},
        "model_info": {"llama.context_length": 64, "llama.embedding_length": 8, "other": [1]},
        "capabilities": ["completion", "vision"],
    }

    async def story() -> None:
        upstream = native().on("/api/show", reply(show), reply({"error": "model 'n' not found"}, 404))
        async with hosted(upstream) as host:
            found = await host.describe("m")
            assert (found.context_length, found.embedding_length) == (64, 8)
            assert found.capabilities == ("completion", "vision")
            with pytest.raises(CorectlError, match="model 'n' not found"):
                await host.describe("n")

    play(story())
