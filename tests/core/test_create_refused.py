"""Creating models: mistakes are named, and a failure leaves no trace."""

from __future__ import annotations

from typing import Any

import pytest

from corectl.errors import BadRequest, Forbidden, NotFound
from corectl.model.manifest import Layer, MediaType, ModelConfig
from corectl.model.name import ModelName
from corectl.progress import Progress
from corectl.store.create import CreateSpec, create
from tests.core.create_kit import Bench

ABSENT = "sha256:" + "a" * 64


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"model": ""}, "invalid model name"),
        ({"model": "a b", "from_": "base"}, "invalid model name"),
        ({"from_": "a b"}, "invalid model name"),
        ({}, "neither 'from' or 'files' was specified"),
        ({"files": {}}, "unknown type"),
        ({"files": {"x.bin": "HELLO"}}, "unknown type"),
        ({"files": {"m.gguf": "HELLO"}}, "supplied file was not in GGUF format"),
        ({"files": {"m.gguf": "zzz"}}, "invalid digest format"),
        ({"files": {"m.gguf": "sha256:../../x"}}, "invalid digest format"),
        ({"files": {"m.gguf": ABSENT}}, f'blob "{ABSENT}" not found; upload it before creating the model'),
        *(
            ({"files": {name: "HELLO"}}, "file path must be relative")
            for name in ("../m.gguf", "/m.gguf", "a/../m", "")
        ),
        *(
            ({"files": {name: "HELLO"}}, "file path must be relative")
            for name in ("..\\m.gguf", "C:\\m.gguf", "a\0")
        ),
        (
            {"from_": "base", "adapters": {"a.gguf": ABSENT}},
            f'blob "{ABSENT}" not found; upload it before creating the model',
        ),
        (
            {"from_": "base", "quantize": "q4_K_M"},
            "quantization is only supported for F16, BF16 and F32 models",
        ),
        (
            {"from_": "base", "quantize": "zz9"},
            "unsupported quantization type ZZ9 - supported types are F32, F16, Q4_K_M, Q8_0",
        ),
        ({"from_": "base", "license": 5}, "json: cannot unmarshal number into Go value of type []string"),
        (
            {"from_": "base", "license": ["a", {}]},
            "json: cannot unmarshal object into Go value of type string",
        ),
        ({"from_": "base", "requires": "soon"}, "requires must be a valid semver (e.g. 0.14.0)"),
        (
            {"from_": "base", "info": {"capabilities": "x"}},
            'info field "capabilities" must be an array of strings',
        ),
        ({"from_": "base", "info": {"base_name": 1}}, 'info field "base_name" must be a string'),
        ({"from_": "base", "info": {"context_length": "x"}}, 'info field "context_length" must be a number'),
        (
            {"from_": "base", "info": {"context_length": -1}},
            'info field "context_length" must be a non-negative integer',
        ),
        (
            {"from_": "base", "renderer": "x" * 2**20},
            "the model's config would have",
        ),
        ({"model": "x:cloud:local"}, 'use either :local or :cloud, not both: "x:cloud:local"'),
        ({"from_": "base", "remote_host": "ftp://x"}, "bad remote"),
        ({"remote_host": "http://x"}, "bad remote"),
    ],
)
def test_mistakes_are_named_and_change_nothing(bench: Bench, fields: dict[str, Any], error: str) -> None:
    bench.create("base", files={"m.gguf": bench.upload()})
    hello = bench.put(b"hello blob")
    fields = {"model": "new", "system": "not stored", **fields}
    for key in ("files", "adapters"):
        if key in fields:
            fields[key] = {name: hello if value == "HELLO" else value for name, value in fields[key].items()}
    before = bench.blobs()
    with pytest.raises(BadRequest) as caught:
        bench.create(**fields)
    assert caught.value.message.startswith(error)
    assert bench.blobs() == before
    assert [record.name.short for record in bench.catalog.list()] == ["base:latest"]


def test_a_name_in_the_cloud_is_no_name_for_a_model_here(bench: Bench) -> None:
    with pytest.raises(Forbidden, match="'x:my-cloud' names a model in Ollama's cloud"):
        bench.create("x:my-cloud", files={"m.gguf": bench.upload()})
    assert bench.catalog.list() == []


def test_damaged_weights_are_refused_after_the_first_status(bench: Bench) -> None:
    path = bench.catalog.blobs.path_of(bench.upload())
    cut = bench.put(path.read_bytes()[:-40])
    with pytest.raises(BadRequest, match="GGUF file is"):
        bench.create("x", files={"m.gguf": cut})
    assert bench.statuses == ["parsing GGUF"]


def test_a_base_that_is_not_here(bench: Bench) -> None:
    with pytest.raises(NotFound, match=r"^model 'absent:latest' not found$"):
        bench.create("x", from_="absent")


def test_a_template_is_checked_before_anything_is_stored(bench: Bench) -> None:
    def refuse(text: str) -> None:
        raise BadRequest("template: :1: unclosed action")

    bench.create("base", files={"m.gguf": bench.upload()})
    before = bench.blobs()
    spec = CreateSpec(model="x", from_="base", template="{{ .Prompt")
    with pytest.raises(BadRequest, match=r"^template error: template: :1: unclosed action$"):
        create(bench.catalog, spec, bench.report, importer=bench.workshop, check_template=refuse)
    assert bench.blobs() == before


@pytest.mark.parametrize("moment", ["creating new layer", "writing manifest"])
def test_a_create_that_is_broken_off_leaves_no_trace(bench: Bench, moment: str) -> None:
    def report(step: Progress) -> None:
        if step.status.startswith(moment):
            raise ConnectionError("the client went away")

    bench.create("base", files={"m.gguf": bench.upload()})
    before = bench.blobs()
    with pytest.raises(ConnectionError):
        create(
            bench.catalog,
            CreateSpec(model="x", from_="base", system="new", license="L"),
            report,
            importer=bench.workshop,
        )
    assert bench.blobs() == before
    assert bench.catalog.find(ModelName.parse("x")) is None


def test_a_manifest_that_could_not_be_read_is_not_made(bench: Bench) -> None:
    layer = Layer(media_type=MediaType.MODEL, digest=ABSENT, size=1, name="n" * 2**22)
    with pytest.raises(BadRequest, match="the model's manifest would have"):
        bench.catalog.manifest_bytes(ModelConfig(), [layer], [])


def test_a_name_that_says_that_it_is_of_here(bench: Bench) -> None:
    bench.create("mine:local", files={"m.gguf": bench.upload()})
    assert [record.name.short for record in bench.catalog.list()] == ["mine:latest"]


@pytest.mark.parametrize("name", ["lora.gguf", "lora.safetensors"])
def test_an_adapter_for_a_model_that_runs_elsewhere(bench: Bench, name: str) -> None:
    bench.create("stub", from_="x", remote_host="http://x")
    before = bench.blobs()
    with pytest.raises(BadRequest, match="an adapter needs weights"):
        bench.create("new", from_="stub", adapters={name: bench.put(b"an adapter")})
    assert before <= bench.blobs() and [record.name.short for record in bench.catalog.list()] == [
        "stub:latest"
    ]
