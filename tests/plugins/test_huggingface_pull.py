"""Models of a hub on loopback are pulled through a running server, shown, and used."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from gguf import GGUFWriter

from tests.conftest import DATA, GREEDY, Server
from tests.forms import Forms, Source
from tests.plugins.hub_kit import TOKEN, Hub
from tests.projector import Siglip, write_projector
from tests.registry import faults
from tests.registry.served import names, steps, transfer_server

LAYERS = 2
SMALL = (DATA / "tinybert.gguf").read_bytes()


@pytest.fixture(scope="module")
def hub() -> Iterator[Hub]:
    with Hub() as running:
        yield running


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hf")


@pytest.fixture(scope="module")
def server(hub: Hub, home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server whose hub is that one."""
    unset = {name: "" for name in os.environ if name.startswith(("HF_", "HUGGING"))}
    environment = {
        **unset,
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(home),
        "HF_TOKEN": TOKEN,
        "OLLAMA_DEBUG": "1",
    }
    running = transfer_server(tmp_path_factory.mktemp("served"), **environment)
    yield running
    assert running.stop() == 0, running.log


def pull(server: Server, name: str) -> list[dict[str, Any]]:
    found = steps(server, "/api/pull", model=name)
    assert found[-1] == {"status": "success"}, found[-1]
    return found


def show(server: Server, name: str) -> dict[str, Any]:
    return dict(server.client.post("/api/show", json={"model": name}).raise_for_status().json())


def blob(server: Server, data: bytes) -> Path:
    return server.models / "blobs" / f"sha256-{hashlib.sha256(data).hexdigest()}"


def manifest(server: Server, path: str) -> dict[str, Any]:
    return dict(json.loads((server.models / "manifests" / path).read_bytes()))


def split(source: Path, folder: Path) -> dict[str, bytes]:
    """The same model in several files, by their names."""
    whole = Source(source)
    folder.mkdir()
    writer = GGUFWriter(folder / "smol-F16.gguf", "llama", split_max_tensors=8)
    for key, value, kind, items in whole.metadata():
        writer.add_key_value(key, value, kind, items)
    for name, values in whole.tensors():
        writer.add_tensor(name, values if values.ndim == 1 else values.astype("float16"))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_a_gguf_model_is_pulled_shown_and_run(server: Server, hub: Hub, forms: Forms) -> None:
    weights = forms.gguf(LAYERS).read_bytes()
    facts = {"gguf": {"total": 35_400_000, "architecture": "llama", "context_length": 8192}}
    files = {
        "smol-F16.gguf": weights,
        "smol-Q4_K_M.gguf": b"other",
        "system": b"Be brief.",
        "params": b'{"top_k": 7}',
    }
    hub.add("maker/smol.two-GGUF", files, private=True, facts=facts)
    found = pull(server, "hf.co/maker/smol.two-GGUF:f16")
    assert found[0] == {"status": "pulling manifest"}
    assert blob(server, weights).read_bytes() == weights and not blob(server, b"other").exists()
    assert "hf.co/maker/smol.two-GGUF:f16" in names(server)
    shown = show(server, "hf.co/maker/smol.two-GGUF:F16")
    assert (shown["details"]["family"], shown["details"]["parameter_size"]) == ("llama", "35.40M")
    assert (shown["details"]["quantization_level"], shown["system"]) == ("F16", "Be brief.")
    assert shown["model_info"]["llama.block_count"] == LAYERS and "completion" in shown["capabilities"]
    reply = server.generate(model="hf.co/maker/smol.two-GGUF:f16", options={**GREEDY, "num_predict": 3})
    assert reply["eval_count"] == 3
    assert set(hub.host.received("authorization")) == {f"Bearer {TOKEN}"}
    assert hub.cdn.received("authorization") == []
    assert "maker/smol" in server.log and TOKEN not in server.log and "Signature" not in server.log


def test_without_facts_of_the_hub_the_weights_tell(server: Server, hub: Hub) -> None:
    hub.add("maker/bare", {"model.gguf": SMALL})
    pull(server, "huggingface.co/maker/bare")
    shown = show(server, "huggingface.co/maker/bare")
    assert shown["model_info"]["general.architecture"] == "bert" and shown["capabilities"] == ["embedding"]
    entry = next(
        model for model in server.client.get("/api/tags").json()["models"] if "maker/bare" in model["name"]
    )
    assert entry["size"] > len(SMALL) and entry["details"]["format"] == "gguf"


def test_shards_are_pulled_together_and_run(server: Server, hub: Hub, forms: Forms, tmp_path: Path) -> None:
    shards = split(forms.gguf(LAYERS), tmp_path / "shards")
    assert len(shards) > 1
    hub.add("maker/split", {f"F16/{name}": data for name, data in shards.items()})
    pull(server, "hf.co/maker/split")
    layers = manifest(server, "hf.co/maker/split/latest")["layers"]
    assert [layer["name"] for layer in layers] == list(shards)
    assert show(server, "hf.co/maker/split")["model_info"]["llama.block_count"] == LAYERS
    options = {**GREEDY, "num_predict": 8}
    hub.add("maker/whole", {"m.gguf": forms.gguf(LAYERS).read_bytes()})
    pull(server, "hf.co/maker/whole")
    replies = [server.generate(model=f"hf.co/maker/{name}", options=options) for name in ("split", "whole")]
    assert replies[0]["response"] == replies[1]["response"] and replies[0]["eval_count"] == 8


def test_a_projector_makes_a_model_see(server: Server, hub: Hub, forms: Forms, tmp_path: Path) -> None:
    eyes = write_projector(Siglip(64), tmp_path / "eyes.gguf").read_bytes()
    hub.add("maker/seeing", {"m.gguf": forms.gguf(LAYERS).read_bytes(), "mmproj-F16.gguf": eyes})
    pull(server, "hf.co/maker/seeing")
    shown = show(server, "hf.co/maker/seeing")
    assert "vision" in shown["capabilities"] and shown["projector_info"]["general.architecture"] == "clip"


def test_safetensors_are_pulled_as_a_folder(server: Server, hub: Hub, forms: Forms) -> None:
    folder = forms.safetensors(LAYERS)
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    hub.add("maker/smol", {**files, "pytorch_model.bin": b"\x80\x04.", "README.md": b"# Smol"})
    pull(server, "hf.co/maker/smol")
    layers = manifest(server, "hf.co/maker/smol/latest")["layers"]
    assert {layer["name"] for layer in layers} == set(files)
    shown = show(server, "hf.co/maker/smol")
    assert (shown["details"]["format"], shown["details"]["family"]) == ("safetensors", "llama")
    pytest.importorskip("mlx_lm")
    reply = server.generate(model="hf.co/maker/smol", options={**GREEDY, "num_predict": 3})
    assert reply["eval_count"] == 3


def test_a_pull_that_was_given_up_goes_on(server: Server, hub: Hub) -> None:
    weights = SMALL + os.urandom(4 * 2**20)
    hub.add("maker/broken", {"m.gguf": weights})
    hub.cdn.layers = [faults.stalling(3 * 2**20)]
    with server.client.stream("POST", "/api/pull", json={"model": "hf.co/maker/broken"}) as reply:
        came = next(
            completed for line in reply.iter_lines() if (completed := json.loads(line).get("completed", 0))
        )
    hub.cdn.layers = []
    pull(server, "hf.co/maker/broken")
    start, _, end = hub.cdn.asked[-1].headers["range"].removeprefix("bytes=").partition("-")
    assert 0 < came <= int(start) and int(end) == len(weights) - 1
    assert blob(server, weights).read_bytes() == weights


def test_what_the_cache_has_is_linked(server: Server, hub: Hub, home: Path) -> None:
    weights = SMALL + b"cached"
    hub.add("maker/cached", {"m-Q8_0.gguf": weights, "m-Q4_0.gguf": SMALL + b"damaged"})
    blobs = home / "hub" / "models--maker--cached" / "blobs"
    blobs.mkdir(parents=True)
    cached = blobs / hashlib.sha256(weights).hexdigest()
    cached.write_bytes(weights)
    (blobs / hashlib.sha256(SMALL + b"damaged").hexdigest()).write_bytes(SMALL + b"changed")
    before = len(hub.cdn.asked)
    pull(server, "hf.co/maker/cached:q8_0")
    assert len(hub.cdn.asked) == before and blob(server, weights).read_bytes() == weights
    pull(server, "hf.co/maker/cached:q4_0")
    assert len(hub.cdn.asked) > before and blob(server, SMALL + b"damaged").exists()


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("hf.co/maker/none", "pull model manifest: file does not exist"),
        ("hf.co/maker/some:q9_0", 'no quantization "q9_0"; it has Q8_0'),
        ("hf.co/maker/hostile", "a name that is none: '../../x.gguf'"),
    ],
)
def test_what_cannot_be_pulled_leaves_nothing(server: Server, hub: Hub, name: str, error: str) -> None:
    hub.add("maker/some", {"m-Q8_0.gguf": SMALL})
    hub.add("maker/hostile", {"../../x.gguf": SMALL})
    before = sorted(server.models.rglob("*"))
    with server.client.stream("POST", "/api/pull", json={"model": name}) as reply:
        last = json.loads(list(reply.iter_lines())[-1])
    assert error in last["error"]
    assert sorted(server.models.rglob("*")) == before
