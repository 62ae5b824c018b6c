"""/v1/rerank."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.bert import write_ranker
from tests.conftest import Server
from tests.frontends.conftest import create, delete, post, upload
from tests.frontends.openai_kit import ask, refused

PATH = "/v1/rerank"
QUERY = "good sky"
DOCUMENTS = ["word blue sky", "good blue", "hello hello", "", "good blue"]


@pytest.fixture(scope="module")
def ranked(shop: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The shop with the model `judge`, whose scores are the same whatever else runs."""
    weights = write_ranker(tmp_path_factory.mktemp("judge") / "judge.gguf")
    create(
        shop, "judge", files={"judge.gguf": upload(shop, weights.read_bytes())}, parameters={"num_thread": 1}
    )
    yield shop
    delete(shop, "judge")


def rerank(server: Server, /, **body: Any) -> dict[str, Any]:
    return ask(server, PATH, **{"model": "judge", "query": QUERY, "documents": DOCUMENTS, **body})


def test_the_order_is_that_of_the_native_api(ranked: Server) -> None:
    native = post(ranked, "/api/rerank", model="judge", query=QUERY, documents=DOCUMENTS).json()
    reply = rerank(ranked)
    assert reply.keys() == {"id", "object", "model", "results", "usage"}
    assert reply["id"].startswith("rerank-") and reply["id"] != rerank(ranked)["id"]
    assert (reply["object"], reply["model"]) == ("list", "judge")
    tokens = native["prompt_eval_count"]
    assert reply["usage"] == {"prompt_tokens": tokens, "total_tokens": tokens}
    assert reply["results"] == native["results"] and len(reply["results"]) == 5
    assert all(result.keys() == {"index", "relevance_score"} for result in reply["results"])


def test_the_best_with_their_texts(ranked: Server) -> None:
    best = rerank(ranked)["results"][:2]
    assert rerank(ranked, top_n=2)["results"] == best
    objects = [{"text": text, "title": "ignored"} for text in DOCUMENTS]
    for documents in (DOCUMENTS, objects):
        assert rerank(ranked, documents=documents, top_n=2, return_documents=True)["results"] == [
            {**result, "document": {"text": DOCUMENTS[result["index"]]}} for result in best
        ]


def test_pairs_that_are_cut_are_counted(ranked: Server) -> None:
    documents = ["sky", "sky " * 100]
    assert rerank(ranked, documents=documents)["usage"]["dropped_tokens"] == 105 - 64
    body = {"model": "judge", "query": QUERY, "documents": documents, "truncate": False}
    assert refused(ranked, PATH, 400, **body)["param"] == "documents[1]"


@pytest.mark.parametrize(
    ("body", "param", "code"),
    [
        ({"model": ""}, "model", "missing_required_parameter"),
        ({"model": "smollm2"}, "model", "invalid_value"),
        ({"query": ""}, "query", "missing_required_parameter"),
        ({"query": 5}, "query", "invalid_type"),
        ({"documents": []}, "documents", "invalid_value"),
        ({"documents": "d"}, "documents", "invalid_type"),
        ({"documents": ["a", 5]}, "documents[1]", "invalid_type"),
        ({"documents": [{"title": "a"}]}, "documents[0]", "invalid_type"),
        ({"top_n": 0}, "top_n", "invalid_value"),
        ({"return_documents": "yes"}, "return_documents", "invalid_type"),
        ({"num_ctx": "x"}, "num_ctx", "invalid_type"),
        ({"keep_alive": []}, "keep_alive", "invalid_value"),
    ],
)
def test_what_is_wrong_is_named(ranked: Server, body: dict[str, Any], param: str, code: str) -> None:
    error = refused(ranked, PATH, **{"model": "judge", "query": "q", "documents": ["d"], **body})
    assert (error["type"], error["param"], error["code"]) == ("invalid_request_error", param, code)


def test_a_model_that_is_not_here(ranked: Server) -> None:
    error = refused(ranked, PATH, status=404, model="nope", query="q", documents=["d"])
    assert (error["message"], error["code"]) == ("model 'nope' not found", "model_not_found")
