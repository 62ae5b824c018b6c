"""POST /api/create: from a model, from a GGUF file, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.conftest import MODEL, Server
from tests.frontends.conftest import (
    ABSENT,
    EMBEDDER,
    SKY,
    ask,
    create,
    delete,
    digest_of,
    files_of,
    names,
    options,
    post,
    rendered,
    show,
    upload,
)

CREATE = "/api/create"
FROM = {"from": MODEL}


def _statuses(server: Server, **body: Any) -> list[str]:
    with server.client.stream("POST", CREATE, json=body) as reply:
        assert reply.status_code == 200
        assert reply.headers["content-type"] == "application/x-ndjson"
        return [json.loads(line)["status"] for line in reply.iter_lines()]


def test_from_a_model(shop: Server) -> None:
    statuses = _statuses(shop, model="c1", **FROM, system="Be brief.")
    *layers, writing, success = statuses
    assert (writing, success) == ("writing manifest", "success")
    assert {line.rpartition(" ")[0] for line in layers} <= {"using existing layer", "creating new layer"}
    assert f"creating new layer {digest_of(b'Be brief.')}" in layers
    assert "c1:latest" in names(shop)
    delete(shop, "c1")


def test_without_a_stream_only_the_last_status_comes(shop: Server) -> None:
    reply = post(shop, CREATE, name="c2", stream=False, **FROM)
    assert reply.json() == {"status": "success"}
    assert reply.headers["content-type"] == "application/json"
    delete(shop, "c2")


def test_what_is_set_is_used(shop: Server) -> None:
    create(
        shop,
        "c3",
        **FROM,
        system="Be brief.",
        template="<{{ .System }}>{{ range .Messages }}[{{ .Role }}:{{ .Content }}]{{ end }}",
        parameters={"stop": "zzz", "num_predict": 4, "temperature": 0, "num_thread": 1},
        messages=[{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}],
    )
    text = rendered(shop, "/api/generate", model="c3", prompt=SKY)
    assert text.endswith(f"[user:a][assistant:b][user:{SKY}]")
    assert text.startswith("<Be brief.>")
    assert ask(shop, "/api/generate", model="c3", prompt=SKY, options={})["eval_count"] == 4
    ask(shop, "/api/generate", model="c3", keep_alive=0)
    delete(shop, "c3")


def test_a_template_beside_a_renderer_does_not_stand_alone(shop: Server) -> None:
    """Its author relied on code that is not here: the weights' own chat template is nearer to what was meant."""
    create(shop, "c4", **FROM, template="{{ .Prompt }}", renderer="qwen3-coder")
    chat = {"messages": [{"role": "user", "content": SKY}]}
    assert rendered(shop, "/api/chat", model="c4", **chat) == rendered(shop, "/api/chat", model=MODEL, **chat)
    ask(shop, "/api/generate", model="c4", keep_alive=0)
    delete(shop, "c4")


def test_a_model_from_a_model_inherits_and_replaces(shop: Server) -> None:
    base = {"temperature": 0.5, "top_k": 5, "stop": ["a", "b"]}
    example = [{"role": "user", "content": "q"}]
    create(shop, "base", **FROM, system="X", parameters=base, license="L1", messages=example)
    create(shop, "heir", **{"from": "Base"})
    heir = show(shop, "heir")
    assert heir["system"] == "X" and heir["license"] == "L1" and heir["messages"] == example
    assert sorted(heir["parameters"].split()) == sorted(show(shop, "base")["parameters"].split())
    create(shop, "heir", **{"from": "base"}, system="Y", parameters={"top_k": 9, "stop": ["c"]}, license="L2")
    heir = show(shop, "heir")
    assert heir["system"] == "Y" and heir["license"] == "L1\nL2"
    assert sorted(heir["parameters"].split()) == ['"c"', "0.5", "9", "stop", "temperature", "top_k"]
    delete(shop, "base", "heir")


def test_an_empty_system_does_not_remove_the_bases(shop: Server) -> None:
    create(shop, "base", **FROM, system="X")
    create(shop, "heir", **{"from": "base"}, system="", template="", license=None, parameters=None)
    assert show(shop, "heir")["system"] == "X"
    delete(shop, "base", "heir")


def test_replacing_removes_what_nobody_needs(shop: Server) -> None:
    create(shop, "again", **FROM, system="first text")
    blob = shop.models / "blobs" / digest_of(b"first text").replace(":", "-")
    assert blob.is_file()
    create(shop, "AGAIN", **FROM, system="second text")
    assert not blob.exists()
    assert names(shop).count("again:latest") == 1 and show(shop, "again")["system"] == "second text"
    delete(shop, "again")


def test_deleting_leaves_the_store_as_it_was(shop: Server) -> None:
    before = files_of(shop.models)
    create(shop, "passing", **FROM, system="nobody else says this", license=["one", "two"])
    assert len(files_of(shop.models)) > len(before)
    delete(shop, "passing")
    assert files_of(shop.models) == before


def test_from_a_gguf_file(shop: Server) -> None:
    digest = upload(shop, EMBEDDER.read_bytes())
    statuses = _statuses(shop, model="file", files={"m.gguf": digest})
    assert statuses[0] == "parsing GGUF"
    assert f"using existing layer {digest}" in statuses
    assert statuses[-2:] == ["writing manifest", "success"]
    found = show(shop, "file")
    assert found["details"]["family"] == "bert" and found["capabilities"] == ["embedding"]
    assert digest.replace(":", "-") in found["modelfile"]
    delete(shop, "file")


def test_a_known_chat_template_is_detected(shop: Server) -> None:
    create(shop, "mine", **FROM)
    source = shop.models / "blobs"
    weights = max(source.iterdir(), key=lambda path: path.stat().st_size)
    statuses = _statuses(shop, model="fromfile", files={"m.gguf": weights.name})
    assert any(line.startswith("using autodetected template ") for line in statuses)
    assert "{{" in show(shop, "fromfile")["template"] and "<|im_end|>" in show(shop, "fromfile")["parameters"]
    text = rendered(shop, "/api/generate", model="fromfile", prompt=SKY, system="S")
    assert (
        text == f"<|im_start|>system\nS<|im_end|>\n<|im_start|>user\n{SKY}<|im_end|>\n<|im_start|>assistant\n"
    )
    reply = ask(shop, "/api/generate", model="fromfile", prompt=SKY, system="S")
    assert reply["response"] == ask(shop, "/api/generate", prompt=SKY, system="S")["response"]
    ask(shop, "/api/generate", model="fromfile", keep_alive=0)
    delete(shop, "mine", "fromfile")


def test_names_keep_their_spelling_and_ignore_case(shop: Server) -> None:
    create(shop, "Team/MyModel:V1", **{"from": "TINYBERT"})
    assert "Team/MyModel:V1" in names(shop)
    assert show(shop, "team/mymodel:v1")["details"]["family"] == "bert"
    reply = post(shop, "/api/embed", model="TEAM/mymodel:v1", input="x", options=options(), keep_alive=0)
    assert reply.json()["model"] == "TEAM/mymodel:v1"
    delete(shop, "team/MYMODEL:v1")
    assert "Team/MyModel:V1" not in names(shop)


def test_a_name_hides_a_packaged_model_until_it_is_deleted(shop: Server) -> None:
    create(shop, MODEL, **FROM, system="Mine.")
    assert show(shop)["system"] == "Mine." and names(shop).count(f"{MODEL}:latest") == 1
    delete(shop, MODEL)
    assert "system" not in show(shop) and names(shop).count(f"{MODEL}:latest") == 1


REFUSED: list[tuple[dict[str, Any], int, str]] = [
    ({"model": "r"}, 400, "neither 'from' or 'files' was specified"),
    ({**FROM}, 400, "invalid model name"),
    ({"model": "a b", **FROM}, 400, "invalid model name"),
    ({"model": "../r", **FROM}, 400, "invalid model name"),
    ({"model": "r", "from": "a b"}, 400, "invalid model name"),
    ({"model": "r", "files": {"m.gguf": "zzz"}}, 400, "invalid digest format"),
    ({"model": "r", "files": {"m.gguf": ABSENT}}, 400, "not found; upload it"),
    ({"model": "r", "files": {"../m.gguf": ABSENT}}, 400, "file path must be relative"),
    ({"model": "r", "files": {"/m.gguf": ABSENT}}, 400, "file path must be relative"),
    ({"model": "r", "files": {}}, 400, "unknown type"),
    ({"model": "r", "files": "x"}, 400, "$.files"),
    ({"model": "r", **FROM, "template": "{{ .Prompt"}, 400, "template error"),
    ({"model": "r", **FROM, "license": 5}, 400, "cannot unmarshal number"),
    ({"model": "r", **FROM, "requires": "soon"}, 400, "requires must be a valid semver"),
    ({"model": "r", **FROM, "quantize": "q4_K_M"}, 400, "quantization is only supported for F16"),
    ({"model": "r", **FROM, "quantize": "zz9"}, 400, "unsupported quantization type ZZ9"),
    ({"model": "r", **FROM, "adapters": {"a.gguf": ABSENT}}, 400, "not found; upload it"),
    ({"model": "r", **FROM, "info": {"context_length": -1}}, 400, "must be a non-negative integer"),
    ({"model": "r", **FROM, "parameters": [1]}, 400, "$.parameters"),
]


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
@pytest.mark.parametrize(("body", "status", "error"), REFUSED, ids=lambda value: str(value)[:60])
def test_what_is_refused_leaves_nothing(
    shop: Server, body: dict[str, Any], status: int, error: str, stream: bool
) -> None:
    before = files_of(shop.models)
    reply = post(shop, CREATE, **body, stream=stream)
    assert (reply.status_code, list(reply.json())) == (status, ["error"]), reply.text
    assert error in reply.json()["error"]
    assert files_of(shop.models) == before
