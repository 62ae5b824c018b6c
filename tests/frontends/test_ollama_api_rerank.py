"""POST /api/rerank."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.bert import Bert, write_ranker
from tests.conftest import Server
from tests.frontends.conftest import create, delete, post, refused, show, upload

RERANK = "/api/rerank"
THREAD = {"num_thread": 1}
QUERY = "good sky"
DOCUMENTS = ["word blue sky", "good blue", "hello hello", "", "good blue"]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_ranker(tmp_path_factory.mktemp("ranker") / "ranker.gguf")


@pytest.fixture(scope="module")
def ranked(shop: Server, weights: Path) -> Iterator[Server]:
    """The shop with the model `ranker`."""
    create(shop, "ranker", files={"ranker.gguf": upload(shop, weights.read_bytes())})
    yield shop
    delete(shop, "ranker")


@pytest.fixture(scope="module")
def expected(weights: Path) -> list[float]:
    """The scores of DOCUMENTS, computed independently."""
    bert = Bert(weights)
    head = bert.ids("[CLS]", *QUERY.split(), "[SEP]")
    return [
        bert.relevance([*head, *bert.ids(*document.split(), "[SEP]")], len(head)) for document in DOCUMENTS
    ]


def _rerank(server: Server, **body: Any) -> dict[str, Any]:
    body = {"model": "ranker", "query": QUERY, "documents": DOCUMENTS, "options": THREAD, **body}
    reply = post(server, RERANK, **body)
    assert reply.status_code == 200, reply.text
    return dict(reply.json())


def test_documents_come_in_the_order_of_their_scores(ranked: Server, expected: list[float]) -> None:
    reply = _rerank(ranked)
    assert reply.keys() == {"model", "results", "total_duration", "load_duration", "prompt_eval_count"}
    assert reply["model"] == "ranker" and reply["prompt_eval_count"] == 5 * 5 + 3 + 2 + 2 + 0 + 2
    results = reply["results"]
    assert all(result.keys() == {"index", "relevance_score"} for result in results)
    assert sorted(result["index"] for result in results) == [0, 1, 2, 3, 4]
    scores = [result["relevance_score"] for result in results]
    assert scores == sorted(scores, reverse=True)
    for result in results:
        assert result["relevance_score"] == pytest.approx(expected[result["index"]], abs=2e-3)
    # Equals stay in the order of the request.
    order = [result["index"] for result in results]
    assert order.index(4) == order.index(1) + 1


def test_the_best_with_their_texts(ranked: Server) -> None:
    best = _rerank(ranked)["results"][:2]
    assert _rerank(ranked, top_n=2)["results"] == best
    with_texts = _rerank(ranked, top_n=2, return_documents=True)["results"]
    assert with_texts == [{**result, "document": DOCUMENTS[result["index"]]} for result in best]
    assert len(_rerank(ranked, top_n=99)["results"]) == 5


def test_documents_may_be_objects(ranked: Server) -> None:
    documents = [{"text": text, "title": "ignored"} for text in DOCUMENTS]
    assert _rerank(ranked, documents=documents)["results"] == _rerank(ranked)["results"]


def test_long_pairs_are_cut_and_that_is_said(ranked: Server) -> None:
    documents = ["sky", "sky " * 100]
    reply = _rerank(ranked, documents=documents)
    assert reply["dropped_tokens"] == 105 - 64
    error = refused(
        ranked, RERANK, model="ranker", query=QUERY, documents=documents, truncate=False, options=THREAD
    )
    assert error == "documents[1]: query and document have 105 tokens together, and 64 fit"


def test_more_documents_than_one_step_takes(ranked: Server, expected: list[float]) -> None:
    reply = _rerank(ranked, documents=DOCUMENTS * 20)
    assert len(reply["results"]) == 100
    for result in reply["results"]:
        assert result["relevance_score"] == pytest.approx(expected[result["index"] % 5], abs=2e-3)


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ({"model": ""}, "model is required"),
        ({"query": ""}, "query is required"),
        ({"query": 5}, "Expected `str`, got `int` - at `$.query`"),
        ({"documents": []}, "documents must have at least one text"),
        ({"documents": ["a", 5]}, "$.documents[1]"),
        ({"documents": [{"title": "a"}]}, "Object missing required field `text` - at `$.documents[0]`"),
        ({"top_n": 0}, "$.top_n"),
        ({"options": {"num_ctx": "x"}}, 'option "num_ctx" must be of type integer'),
    ],
)
def test_requests_that_lack_something(ranked: Server, body: dict[str, Any], error: str) -> None:
    body = {"model": "ranker", "query": "q", "documents": ["d"], "options": THREAD, **body}
    assert error in refused(ranked, RERANK, **body)


def test_models_that_do_not_rank(ranked: Server) -> None:
    for model in ("tinybert", "smollm2"):
        body: dict[str, Any] = {"query": "q", "documents": ["d"], "options": THREAD}
        assert "does not support reranking" in refused(ranked, RERANK, model=model, **body)
    missing = 'model "nope" not found, try pulling it first'
    assert refused(ranked, RERANK, 404, model="nope", query="q", documents=["d"]) == missing


def test_a_ranker_does_nothing_else(ranked: Server) -> None:
    assert show(ranked, "ranker")["capabilities"] == ["rerank"]
    assert (
        refused(ranked, "/api/generate", model="ranker", prompt="x") == '"ranker" does not support generate'
    )
    assert "/api/rerank" in refused(ranked, "/api/embed", 501, model="ranker", input="x", options=THREAD)
