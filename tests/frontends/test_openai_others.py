"""/v1/embeddings, /v1/models and /v1/tokenize."""

from __future__ import annotations

import base64
import struct
from typing import Any

import pytest
from anthropic.types import ModelInfo

from tests.conftest import MODEL, Server
from tests.frontends.conftest import post
from tests.frontends.openai_kit import ask, refused

PATH = "/v1/embeddings"
TEXTS = ["good sky", "blue word"]


def vectors(server: Server, /, **body: Any) -> list[Any]:
    reply = ask(server, PATH, **{"model": "tinybert", **body})
    assert reply["object"] == "list" and reply["model"] == "tinybert"
    assert [entry["index"] for entry in reply["data"]] == list(range(len(reply["data"])))
    assert all(entry["object"] == "embedding" for entry in reply["data"])
    assert reply["usage"]["total_tokens"] == reply["usage"]["prompt_tokens"] > 0
    return [entry["embedding"] for entry in reply["data"]]


def alike(vector: list[float]) -> Any:
    """Some processors compute a text beside others a little otherwise than alone."""
    return pytest.approx(vector, abs=1e-5)


def test_vectors_are_those_of_the_native_api(shop: Server) -> None:
    native = post(shop, "/api/embed", model="tinybert", input=TEXTS).json()["embeddings"]
    assert vectors(shop, input=TEXTS) == native
    assert vectors(shop, input=TEXTS[0])[0] == alike(native[0])
    short = vectors(shop, input=TEXTS[0], dimensions=8)
    assert len(short[0]) == 8 and sum(value * value for value in short[0]) == pytest.approx(1)


def test_vectors_in_base64(shop: Server) -> None:
    plain = vectors(shop, input=TEXTS)
    packed = [base64.b64decode(text) for text in vectors(shop, input=TEXTS, encoding_format="base64")]
    assert [list(struct.unpack(f"<{len(data) // 4}f", data)) for data in packed] == plain


def test_tokens_are_read_as_their_text(shop: Server) -> None:
    tokens = ask(shop, "/v1/tokenize", model="tinybert", prompt=TEXTS[0], add_special_tokens=False)["tokens"]
    assert vectors(shop, input=tokens)[0] == alike(vectors(shop, input=[tokens, tokens])[1])
    assert len(vectors(shop, input=[tokens, tokens])) == 2
    text = post(shop, "/api/detokenize", model="tinybert", tokens=tokens).json()["text"]
    assert vectors(shop, input=tokens) == vectors(shop, input=text)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "input"),
        ({"input": []}, "input"),
        ({"input": 5}, "input"),
        ({"input": ["a", 5]}, "input[1]"),
        ({"input": ["a"] * 2049}, "input"),
        ({"input": [99_999_999]}, "input"),
        ({"input": "a", "encoding_format": "zzz"}, "encoding_format"),
        ({"input": "a", "dimensions": -1}, "dimensions"),
        ({"input": "a", "dimensions": 65}, "dimensions"),
        ({"input": "a", "model": ""}, "model"),
    ],
)
def test_what_is_wrong_is_named(shop: Server, body: dict[str, Any], param: str) -> None:
    assert refused(shop, PATH, **{"model": "tinybert", **body})["param"] == param


def test_models_that_do_not_embed_and_models_that_are_not_here(shop: Server) -> None:
    error = refused(shop, PATH, status=501, input="a")
    assert (error["type"], error["param"]) == ("api_error", "model")
    assert refused(shop, PATH, status=404, model="nope", input="a")["code"] == "model_not_found"
    assert refused(shop, "/v1/tokenize")["param"] == "prompt"


def test_the_list_of_models(shop: Server) -> None:
    shop.client.post("/api/copy", json={"source": MODEL, "destination": "someone/deep:v1"})
    reply = shop.client.get("/v1/models").raise_for_status().json()
    tags = [model["name"] for model in shop.client.get("/api/tags").json()["models"]]
    assert reply["object"] == "list" and [model["id"] for model in reply["data"]] == tags
    mine = next(model for model in reply["data"] if model["id"] == "someone/deep:v1")
    assert mine["object"] == "model" and mine["owned_by"] == "someone" and mine["created"] > 1_700_000_000
    theirs = ModelInfo.model_validate(mine)
    assert (theirs.id, theirs.display_name) == ("someone/deep:v1", "someone/deep:v1")
    assert int(theirs.created_at.timestamp()) == mine["created"]
    shop.client.request("DELETE", "/api/delete", json={"model": "someone/deep:v1"})


def test_one_model(shop: Server) -> None:
    shop.client.post("/api/copy", json={"source": MODEL, "destination": "someone/deeper:v1"})
    for name in (MODEL, f"{MODEL}:latest", "someone/deeper:v1", "someone%2Fdeeper:v1"):
        reply = shop.client.get(f"/v1/models/{name}").raise_for_status().json()
        assert reply["id"] == name.replace("%2F", "/") and reply["object"] == "model"
        assert ModelInfo.model_validate(reply).display_name == reply["id"]
    shop.client.request("DELETE", "/api/delete", json={"model": "someone/deeper:v1"})
    missing = shop.client.get("/v1/models/nope")
    assert missing.status_code == 404
    assert missing.json()["error"] == {
        "message": "model 'nope:latest' not found",
        "type": "not_found_error",
        "param": "model",
        "code": "model_not_found",
    }
