"""The layout on disk, which other programs share: stores made elsewhere are read, and ours are such as theirs."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import time
from pathlib import Path
from typing import Any

import pytest

from corectl.errors import BadModelFile
from corectl.model.manifest import CONFIG_TYPE, MANIFEST_TYPE, MediaType
from corectl.store.catalog import Catalog
from corectl.store.manifests import ManifestStore
from corectl.store.verify import verify
from tests.core.create_kit import Bench, write_gguf
from tests.core.store_kit import digest_of, name

IMAGE = "application/vnd.ollama.image."


class Elsewhere:
    """A store as another program writes it: by hand."""

    def __init__(self, root: Path, separator: str = "-") -> None:
        self.root = root
        self._separator = separator
        (root / "blobs").mkdir(parents=True)

    def blob(self, data: bytes) -> dict[str, Any]:
        digest = digest_of(data)
        (self.root / "blobs" / digest.replace(":", self._separator)).write_bytes(data)
        return {"digest": digest, "size": len(data)}

    def manifest(self, path: str, config: bytes, *layers: tuple[str, bytes]) -> bytes:
        """The bytes that were written."""
        content = {
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "config": {"mediaType": CONFIG_TYPE, **self.blob(config)},
            "layers": [{"mediaType": IMAGE + kind, **self.blob(data)} for kind, data in layers],
            "annotations": {"of": "somebody"},
        }
        target = self.root / "manifests" / path
        target.parent.mkdir(parents=True, exist_ok=True)
        data = json.dumps(content, indent=3).encode()
        target.write_bytes(data)
        return data


CONFIG = {
    "model_format": "gguf",
    "model_family": "llama",
    "model_families": ["llama"],
    "model_type": "8",
    "file_type": "F16",
    "architecture": "amd64",
    "os": "linux",
    "rootfs": {"type": "layers", "diff_ids": ["sha256:1"]},
    "something_new": [1, {"x": None}],
}


def elsewhere(root: Path, weights: bytes, separator: str = "-") -> tuple[Elsewhere, bytes]:
    store = Elsewhere(root, separator)
    data = store.manifest(
        "registry.ollama.ai/library/Chat/8b-q4_K_M",
        json.dumps(CONFIG).encode(),
        ("model", weights),
        ("template", b"{{ .Prompt }}"),
        ("system", b"Be kind."),
        ("params", b'{"stop":["<|end|>"],"temperature":0.7,"num_ctx":4096}'),
        ("messages", b'[{"role":"user","content":"hi"}]'),
        ("license", b"MIT"),
        ("license", b"more"),
        ("prompt", b"an old kind"),
        ("embed", b"another"),
        ("nobody.knows", b"x"),
    )
    return store, data


@pytest.fixture
def weights(tmp_path: Path) -> bytes:
    return write_gguf(tmp_path / "w.gguf").read_bytes()


def check_served(catalog: Catalog, manifest: bytes) -> None:
    """The model of `elsewhere`, as the program sees it."""
    (record,) = catalog.list()
    assert record == catalog.find(name("chat:8B-Q4_k_m"))
    assert record.name.short == "Chat:8b-q4_K_M"
    assert record.digest == hashlib.sha256(manifest).hexdigest()
    assert (record.template, record.system, record.licenses) == ("{{ .Prompt }}", "Be kind.", ["MIT", "more"])
    assert record.parameters == {"stop": ["<|end|>"], "temperature": 0.7, "num_ctx": 4096}
    assert [(message.role, message.content) for message in record.messages] == [("user", "hi")]
    assert record.config.model_family == "llama"
    assert verify(catalog, [], lambda step: None).problems == ()


def test_a_store_made_elsewhere_is_served_as_it_is(tmp_path: Path, weights: bytes) -> None:
    store, manifest = elsewhere(tmp_path / "store", weights)
    before = {path: path.read_bytes() for path in store.root.rglob("*") if path.is_file()}
    catalog = Catalog(store.root)
    catalog.start()
    check_served(catalog, manifest)
    assert {path: path.read_bytes() for path in store.root.rglob("*") if path.is_file()} == before
    catalog.copy(name("Chat:8b-q4_K_M"), name("copy"))
    assert ManifestStore(store.root).read(name("copy")).data == manifest


@pytest.mark.parametrize("part", ["", "blobs", "manifests", "manifests/registry.ollama.ai/library"])
def test_any_folder_may_be_a_link(tmp_path: Path, weights: bytes, part: str) -> None:
    store, manifest = elsewhere(tmp_path / "store", weights)
    moved = (store.root / part).rename(tmp_path / "moved")
    (store.root / part).symlink_to(moved)
    catalog = Catalog(store.root)
    catalog.start()
    check_served(catalog, manifest)
    catalog.delete(name("Chat:8b-q4_K_M"))
    assert [path for path in store.root.rglob("*") if path.is_file()] == []


def test_old_names_of_blobs(tmp_path: Path, weights: bytes) -> None:
    store, manifest = elsewhere(tmp_path / "store", weights, ":")
    catalog = Catalog(store.root)
    catalog.start()
    check_served(catalog, manifest)


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes to everything")
def test_a_store_that_is_read_only(tmp_path: Path, weights: bytes) -> None:
    store, manifest = elsewhere(tmp_path / "store", weights)
    folders = [path for path in (store.root, *store.root.rglob("*")) if path.is_dir()]
    for folder in folders:
        folder.chmod(0o555)
    try:
        catalog = Catalog(store.root)
        catalog.start()
        check_served(catalog, manifest)
        with pytest.raises(OSError, match="denied"):
            catalog.delete(name("Chat:8b-q4_K_M"))
        check_served(catalog, manifest)
    finally:
        for folder in folders:
            folder.chmod(0o755)


def test_ours_is_such_as_theirs(bench: Bench) -> None:
    bench.create(
        "me/Tuned:v1",
        files={"m.gguf": bench.upload()},
        system="Be kind.",
        license=["MIT"],
        parameters={"temperature": 0.7, "stop": "<|end|>", "num_ctx": 4096},
    )
    path = bench.root / "manifests" / "registry.ollama.ai" / "me" / "Tuned" / "v1"
    data = path.read_bytes()
    content = json.loads(data)
    # Compact, in this order, with a newline: the digest of a model is that of these bytes.
    assert data == json.dumps(content, separators=(",", ":")).encode() + b"\n"
    assert list(content) == ["schemaVersion", "mediaType", "config", "layers"]
    assert (content["schemaVersion"], content["mediaType"]) == (2, MANIFEST_TYPE)
    assert list(content["config"]) == ["mediaType", "digest", "size"]
    assert content["config"]["mediaType"] == CONFIG_TYPE
    kinds = [layer["mediaType"].removeprefix(IMAGE) for layer in content["layers"]]
    assert kinds == ["model", "system", "license", "params"]
    for layer in (content["config"], *content["layers"]):
        blob = bench.root / "blobs" / layer["digest"].replace(":", "-")
        assert (blob.stat().st_size, digest_of(blob.read_bytes())) == (layer["size"], layer["digest"])
        assert blob.stat().st_mode & 0o777 == path.stat().st_mode & 0o777 == 0o644
    params = next(layer for layer in content["layers"] if layer["mediaType"] == MediaType.PARAMS)
    text = (bench.root / "blobs" / params["digest"].replace(":", "-")).read_bytes()
    assert json.loads(text) == {"num_ctx": 4096, "stop": ["<|end|>"], "temperature": 0.7}
    config = json.loads((bench.root / "blobs" / content["config"]["digest"].replace(":", "-")).read_bytes())
    assert config.keys() >= {"model_format", "model_family", "model_families", "model_type", "file_type"}
    assert (config["architecture"], config["os"]) == ("amd64", "linux")


LAYER = b'{"mediaType":"x","digest":"sha256:' + b"0" * 64 + b'","size":1}'


def manifest_of(layers: bytes) -> bytes:
    return b'{"schemaVersion":2,"mediaType":"x","config":' + LAYER + b',"layers":[' + layers + b"]}"


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(manifest_of(b",".join([LAYER] * 1_000_000)), id="a million layers"),
        pytest.param(manifest_of(LAYER.replace(b":1}", b":-1}")), id="negative"),
        pytest.param(manifest_of(LAYER.replace(b":1}", b":1e400}")), id="no number"),
        pytest.param(manifest_of(LAYER.replace(b":1}", b":99999999999999999999}")), id="too large a number"),
        pytest.param(manifest_of(LAYER.replace(b"sha256:", b"../../../")), id="a path"),
        pytest.param(manifest_of(LAYER[:-1] + b',"x":' + b"[" * 3_000_000), id="deep"),
        pytest.param(manifest_of(b"{" * 100_000), id="deep and broken"),
        pytest.param(b"\0" * (5 << 20), id="no JSON"),
    ],
)
def test_hostile_manifests_are_refused_soon(tmp_path: Path, data: bytes) -> None:
    catalog = Catalog(tmp_path)
    path = tmp_path / "manifests" / "registry.ollama.ai" / "library" / "m" / "latest"
    path.parent.mkdir(parents=True)
    path.write_bytes(data)
    del data
    started, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(BadModelFile):
        catalog.find(name("m"))
    assert catalog.list() == []
    catalog.start()
    assert time.process_time() - started < 1
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 << 10  # KiB
    catalog.delete(name("m"))


def test_as_many_layers_as_a_manifest_can_have(tmp_path: Path) -> None:
    """They are no more than its size allows, and each is looked at once."""
    catalog = Catalog(tmp_path)
    path = tmp_path / "manifests" / "registry.ollama.ai" / "library" / "m" / "latest"
    path.parent.mkdir(parents=True)
    path.write_bytes(manifest_of(b",".join([LAYER] * ((4 << 20) // (len(LAYER) + 1) - 2))))
    started = time.process_time()
    with pytest.raises(BadModelFile, match="config"):
        catalog.find(name("m"))
    assert time.process_time() - started < 5
