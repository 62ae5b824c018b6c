"""Creating models: layers, what is inherited, the words on the way, and that a failure leaves no trace."""

import hashlib
from pathlib import Path
from typing import Any

import gguf
import msgspec
import numpy as np
import pytest

from corectl.errors import BadModelFile, BadRequest, NotFound, NotSupported
from corectl.messages import Message
from corectl.model.details import details_of
from corectl.model.files import ModelFiles
from corectl.model.manifest import MediaType
from corectl.model.name import ModelName
from corectl.model.record import ModelRecord
from corectl.store.catalog import Catalog
from corectl.store.create import CreateSpec, create
from corectl.store.folder import Recognised
from corectl.store.named_templates import detect
from corectl_safetensors import Safetensors

CHATML = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n'}}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
CHATML_GO = "{{- range .Messages }}<|im_start|>{{ .Role }}\n{{ .Content }}<|im_end|>\n{{ end }}<|im_start|>assistant\n"


class Shelf:
    """What the format plugin for safetensors says; quantises by leaving out the second file of weights."""

    def recognise(self, files: ModelFiles) -> Recognised | None:
        format = Safetensors()
        return Recognised(format.name, format.describe(files)) if format.claims(files) else None

    def quantize(self, format: str, files: ModelFiles, target: str, folder: Path) -> None:
        if target != "int4":
            raise BadRequest(f"unsupported quantization type {target}")
        for name, path in files.named.items():
            if name != "model-2.safetensors":
                place = folder / name
                place.parent.mkdir(exist_ok=True)
                place.write_bytes(path.read_bytes())


class Bench:
    """A catalog with the tools to create models in it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.catalog = Catalog(root)
        self.statuses: list[str] = []

    def upload(
        self, architecture: str = "llama", chat_template: str = "", kind: str = "model", file_type: int = 3
    ) -> str:
        path = self.root / "upload"
        writer = gguf.GGUFWriter(str(path), architecture)
        writer.add_type(kind)
        writer.add_file_type(file_type)
        if chat_template:
            writer.add_chat_template(chat_template)
        writer.add_tensor("token_embd.weight", np.ones((2, 4), np.float32))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return self.put(path.read_bytes())

    def put(self, data: bytes) -> str:
        return self.catalog.blobs.put(data).digest

    def create(self, model: str, **fields: Any) -> list[str]:
        self.statuses = []
        spec = CreateSpec(model=model, **fields)
        create(self.catalog, spec, self.statuses.append, importer=Shelf())
        return self.statuses

    def get(self, model: str) -> ModelRecord:
        record = self.catalog.find(ModelName.parse(model))
        assert record is not None
        return record

    def blobs(self) -> set[str]:
        return {path.name for path in (self.root / "blobs").iterdir()}


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


STOP = b'{"stop":["\\u003c|im_start|\\u003e","\\u003c|im_end|\\u003e"]}\n'


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
            "unsupported quantization type ZZ9 - supported types are F32, F16, Q4_K_S, Q4_K_M, Q8_0",
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
    assert caught.value.message == error
    assert bench.blobs() == before
    assert [record.name.short for record in bench.catalog.list()] == ["base:latest"]


def test_damaged_weights_are_refused_after_the_first_status(bench: Bench) -> None:
    path = bench.catalog.blobs.path_of(bench.upload())
    cut = bench.put(path.read_bytes()[:-40])
    with pytest.raises(BadRequest, match="GGUF file is"):
        bench.create("x", files={"m.gguf": cut})
    assert bench.statuses == ["parsing GGUF"]


def test_what_this_version_cannot_do_is_said(bench: Bench) -> None:
    bench.create("half", files={"m.gguf": bench.upload(file_type=1)})
    with pytest.raises(NotSupported, match="quantize is not supported by this version"):
        bench.create("x", from_="half", quantize="q4_K_M")
    assert bench.create("same", from_="half", quantize="f16")[-1] == "success"
    with pytest.raises(NotSupported, match="safetensors"):
        bench.create("x", files={"model.safetensors": bench.put(b"st")})


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
        create(bench.catalog, spec, lambda status: None, check_template=refuse)
    assert bench.blobs() == before


@pytest.mark.parametrize("moment", ["creating new layer", "writing manifest"])
def test_a_create_that_is_broken_off_leaves_no_trace(bench: Bench, moment: str) -> None:
    def report(status: str) -> None:
        if status.startswith(moment):
            raise ConnectionError("the client went away")

    bench.create("base", files={"m.gguf": bench.upload()})
    before = bench.blobs()
    with pytest.raises(ConnectionError):
        create(bench.catalog, CreateSpec(model="x", from_="base", system="new", license="L"), report)
    assert bench.blobs() == before
    assert bench.catalog.find(ModelName.parse("x")) is None


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


def checkpoint(bench: Bench, **more: bytes) -> dict[str, str]:
    """An uploaded folder with weights in two files, by name; further files have `_` for the dot in their names."""
    header = b'{"w":{"dtype":"F16","shape":[2,2],"data_offsets":[0,8]}}'
    config = b'{"model_type":"llama","max_position_embeddings":64,"hidden_size":2}'
    tokenizer = msgspec.json.encode({"chat_template": CHATML})
    named = {
        f"model-{part}.safetensors": len(header).to_bytes(8, "little") + header + bytes([part] * 8)
        for part in (1, 2)
    }
    named |= {"config.json": config, "tokenizer_config.json": tokenizer, "sub/extra.txt": b"x"}
    named |= {name.replace("_", "."): data for name, data in more.items()}
    return {name: bench.put(data) for name, data in named.items()}


def test_a_folder_of_files_keeps_their_names(bench: Bench) -> None:
    statuses = bench.create("folder", files=checkpoint(bench))
    assert statuses[-1] == "success"
    assert "using autodetected template chatml" in statuses
    record = bench.get("folder")
    config = record.config
    assert (config.model_format, config.model_family, config.file_type, config.model_type) == (
        *("safetensors", "llama", "F16", "8"),
    )
    assert (config.context_length, config.embedding_length) == (64, 2)
    assert record.files is not None
    assert record.weights == record.files.weights == record.files.named["model-1.safetensors"]
    assert record.files.named.keys() == {
        *(
            "model-1.safetensors",
            "model-2.safetensors",
            "config.json",
            "tokenizer_config.json",
            "sub/extra.txt",
        ),
    }
    assert record.files.read("sub/extra.txt", 9) == b"x"
    assert record.template == CHATML_GO


def test_a_copy_and_a_derived_model_have_the_same_files(bench: Bench) -> None:
    bench.create("folder", files=checkpoint(bench))
    bench.catalog.copy(ModelName.parse("folder"), ModelName.parse("copy"))
    bench.create("derived", from_="folder", system="Be brief.")
    original = bench.get("folder").files
    assert original == bench.get("copy").files == bench.get("derived").files


def test_a_folder_that_no_format_claims_is_no_model(bench: Bench) -> None:
    files = checkpoint(bench)
    del files["config.json"]
    before = bench.blobs()
    with pytest.raises(NotSupported, match=r"config\.json belongs to them"):
        bench.create("x", files=files)
    with pytest.raises(BadRequest, match="unknown type"):
        bench.create("x", files={"notes.txt": bench.put(b"x")})
    assert bench.blobs() >= before


def test_a_damaged_folder_leaves_no_trace(bench: Bench) -> None:
    files = checkpoint(bench, config_json=b'{"model_type": ')
    before = bench.blobs()
    with pytest.raises(BadModelFile, match=r"config\.json is damaged"):
        bench.create("x", files=files)
    assert bench.blobs() == before
    assert bench.catalog.find(ModelName.parse("x")) is None


def test_a_folder_is_not_laid_over_another_model(bench: Bench) -> None:
    bench.create("folder", files=checkpoint(bench))
    with pytest.raises(BadRequest, match="both 'from' and 'files'"):
        bench.create("x", from_="folder", files=checkpoint(bench))


def test_a_folder_is_quantised_on_the_way_in(bench: Bench) -> None:
    files = checkpoint(bench)
    before = bench.blobs()
    statuses = bench.create("small", files=files, quantize="INT4")
    assert statuses[0] == "quantizing F16 model to int4"
    record = bench.get("small")
    assert record.files is not None and "model-2.safetensors" not in record.files.named
    assert record.config.model_type == "4"
    with pytest.raises(BadRequest, match="int3"):
        bench.create("other", files=files, quantize="int3")
    # Nothing is left but what was uploaded, and what the model has.
    made = {layer.digest.replace(":", "-") for layer in record.layers}
    assert {name for name in bench.blobs() if name.startswith("sha256-")} - before <= made | {
        path.name for path in (bench.root / "blobs").iterdir() if path.stat().st_size < 400
    }


def test_an_adapter_of_safetensors_for_such_a_model(bench: Bench) -> None:
    bench.create("folder", files=checkpoint(bench))
    adapter = {
        name: bench.put(name.encode()) for name in ("adapters.safetensors", "adapter_config.json", "x.json")
    }
    bench.create("tuned", from_="folder", adapters=adapter)
    record = bench.get("tuned")
    assert set(record.named(MediaType.ADAPTER)) == {"adapters.safetensors", "adapter_config.json"}
    assert record.files == bench.get("folder").files
    del adapter["adapter_config.json"]
    with pytest.raises(BadRequest, match="adapter_config"):
        bench.create("x", from_="folder", adapters=adapter)
