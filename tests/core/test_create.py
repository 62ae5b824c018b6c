"""Creating models: layers, what is inherited, and the words on the way."""

from __future__ import annotations

import pytest

from corectl.errors import BadRequest
from corectl.messages import Message
from corectl.model.details import details_of
from corectl.model.manifest import MediaType
from corectl.store.named_templates import detect
from tests.core.create_kit import CHATML, CHATML_GO, STOP, Bench, digest


def test_a_model_from_a_file(bench: Bench) -> None:
    weights = bench.upload(chat_template=CHATML)
    assert bench.create("base", files={"m.gguf": weights}) == [
        "parsing GGUF",
        "verifying conversion",
        f"using existing layer {weights}",
        "using autodetected template chatml",
        f"creating new layer {digest(STOP)}",
        "writing manifest",
        "success",
    ]
    record = bench.get("base")
    assert record.template == CHATML_GO
    assert record.parameters == {"stop": ["<|im_start|>", "<|im_end|>"]}
    config = record.config
    assert (config.model_format, config.model_family, config.model_families) == ("gguf", "llama", ("llama",))
    assert (config.model_type, config.file_type, config.architecture, config.os) == (
        "8",
        "Q4_1",
        "amd64",
        "linux",
    )
    assert details_of(record).parent_model == ""


def test_an_unknown_chat_template_gives_no_template(bench: Bench) -> None:
    bench.create("base", files={"m.gguf": bench.upload(chat_template="{{ messages }}")})
    assert bench.get("base").template is None
    assert len(bench.blobs()) == 2


def test_a_model_from_a_model(bench: Bench) -> None:
    weights = bench.upload(chat_template=CHATML)
    bench.create("base", files={"m.gguf": weights})
    assert bench.create("child", from_="BASE") == [
        f"using existing layer {weights}",
        f"using existing layer {digest(CHATML_GO.encode())}",
        f"using existing layer {digest(STOP)}",
        "writing manifest",
        "success",
    ]
    assert details_of(bench.get("child")).parent_model == "base:latest"
    bench.create("grandchild", from_="child")
    assert details_of(bench.get("grandchild")).parent_model == "child:latest"


def test_layers_come_in_the_usual_order(bench: Bench) -> None:
    bench.create("base", files={"m.gguf": bench.upload(chat_template=CHATML)})
    statuses = bench.create(
        "c",
        from_="base",
        system="You are a pirate.",
        license="MIT",
        parameters={"num_predict": 12, "seed": 42, "temperature": 0},
        messages=(Message(role="user", content="hi"), Message(role="assistant", content="Arr!")),
    )
    assert [status[-64:][:12] for status in statuses[2:-2]] == [
        *("400458a606a0", "e5dcffe836b6", "18c3f1a60bb7", "eefa056b50c4")
    ]


def test_what_is_given_overrides_and_the_rest_is_inherited(bench: Bench) -> None:
    bench.create(
        "base",
        files={"m.gguf": bench.upload()},
        template="{{ .System }} {{ .Prompt }}",
        system="X",
        license=["MIT", "two"],
        parameters={"temperature": 1, "top_k": 10, "stop": ["USER:", "ASSISTANT:"]},
        messages=(Message(role="user", content="hi"),),
        renderer="r",
        parser="p",
        requires="0.14.0",
    )
    bench.create(
        "child",
        from_="base",
        system="Y",
        license="only",
        parameters={"temperature": 0.6, "top_p": 0.7, "min_p": None},
    )
    child = bench.get("child")
    assert (child.template, child.system, child.licenses) == (
        "{{ .System }} {{ .Prompt }}",
        "Y",
        ["MIT", "two", "only"],
    )
    assert child.parameters == {
        "temperature": 0.6,
        "top_k": 10,
        "top_p": 0.7,
        "stop": ["USER:", "ASSISTANT:"],
    }
    assert [message.content for message in child.messages] == ["hi"]
    assert (child.config.renderer, child.config.parser, child.config.requires) == ("r", "p", "0.14.0")
    bench.create(
        "third", from_="child", parameters={"stop": "one"}, messages=(Message(role="user", content="yo"),)
    )
    third = bench.get("third")
    assert third.parameters["stop"] == ["one"]
    assert [message.content for message in third.messages] == ["yo"]
    assert third.system == "Y"


def test_a_model_can_be_created_over_itself(bench: Bench) -> None:
    bench.create("base", files={"m.gguf": bench.upload()}, system="old")
    bench.create("BASE", from_="base", system="new")
    assert [record.name.short for record in bench.catalog.list()] == ["base:latest"]
    assert bench.get("base").system == "new"
    assert digest(b"old").replace(":", "-") not in bench.blobs()


def test_creating_again_from_files_drops_the_system(bench: Bench) -> None:
    weights = bench.upload()
    bench.create("base", files={"m.gguf": weights}, system="old")
    bench.create("base", files={"m.gguf": weights})
    assert bench.get("base").system is None


def test_a_detected_template_that_is_replaced_leaves_no_blob(bench: Bench) -> None:
    bench.create("base", files={"m.gguf": bench.upload(chat_template=CHATML)}, template="{{ .Prompt }}")
    record = bench.get("base")
    assert record.template == "{{ .Prompt }}"
    assert record.parameters["stop"] == ["<|im_start|>", "<|im_end|>"]
    assert len(bench.blobs()) == len(record.layers) + 1


def test_projectors_and_adapters_are_told_apart(bench: Bench) -> None:
    files = {"p.gguf": bench.upload("clip"), "m.gguf": bench.upload()}
    adapter = bench.upload(kind="adapter")
    bench.create("seeing", files=files, adapters={"a.gguf": adapter})
    record = bench.get("seeing")
    assert [layer.media_type for layer in record.layers] == [
        MediaType.MODEL,
        MediaType.PROJECTOR,
        MediaType.ADAPTER,
    ]
    assert record.config.model_families == ("llama", "clip")
    with pytest.raises(BadRequest, match="only one adapter"):
        bench.create("x", from_="seeing", adapters={"a.gguf": adapter, "b.gguf": adapter})
    with pytest.raises(BadRequest, match="not an adapter"):
        bench.create("x", from_="seeing", adapters={"a.gguf": files["m.gguf"]})
    with pytest.raises(BadRequest, match="no model weights"):
        bench.create("x", files={"p.gguf": files["p.gguf"]})


def test_a_projector_can_be_added_to_a_model(bench: Bench) -> None:
    bench.create("base", files={"m.gguf": bench.upload()})
    bench.create("seeing", from_="base", files={"p.gguf": bench.upload("clip")})
    assert len(bench.get("seeing").paths(MediaType.PROJECTOR)) == 1
    with pytest.raises(BadRequest, match="both"):
        bench.create("x", from_="base", files={"m.gguf": bench.upload()})


def test_stubs_of_remote_models(bench: Bench) -> None:
    info = {"capabilities": ["completion", "tools"], "context_length": 131072, "model_family": "gptoss"}
    assert (
        bench.create("b", from_="gpt-oss:20b", remote_host="http://127.0.0.1:9", info=info)[-1] == "success"
    )
    config = bench.get("b").config
    assert (config.remote_host, config.remote_model) == ("http://127.0.0.1:9", "gpt-oss:20b")
    assert (config.capabilities, config.context_length) == (("completion", "tools"), 131072)
    bench.create("plain", from_="gpt-oss:20b", remote_host="http://127.0.0.1:9")
    assert bench.get("plain").size == 191
    bench.create("c", from_="gpt-oss:20b-cloud")
    assert bench.get("c").config.remote_host == "https://ollama.com:443"
    assert bench.get("c").config.remote_model == "gpt-oss:20b"


def test_info_adds_capabilities_to_a_local_model(bench: Bench) -> None:
    bench.create("base", files={"m.gguf": bench.upload()})
    bench.create("b", from_="base", info={"capabilities": ["vision"]})
    assert bench.get("b").config.capabilities == ("vision",)
    assert bench.get("b").config.model_family == "llama"


@pytest.mark.parametrize(
    ("chat_template", "name"),
    [
        (CHATML, "chatml"),
        ("<|start_header_id|>' + role + '<|end_header_id|>\n\n' + content + '<|eot_id|>", "llama3-instruct"),
        ("<start_of_turn>' + role + '\n' + content + '<end_of_turn>' ... 'model'", "gemma-instruct"),
        ("<|user|>\n' + content + '<|end|>\n<|assistant|>", "phi-3"),
        ("<|user|>\n' + content + eos_token + '<|assistant|>", "zephyr"),
        ("{{ '[INST] ' + content + ' [/INST]' + eos_token }}", "mistral-instruct"),
        (CHATML + "{% if tools %}", None),
        (CHATML + "<think>", None),
        (CHATML + "{# " + "long " * 500 + "#}", None),
        ("", None),
    ],
)
def test_well_known_chat_templates_are_recognised(chat_template: str, name: str | None) -> None:
    found = detect(chat_template)
    assert (found.name if found else None) == name
