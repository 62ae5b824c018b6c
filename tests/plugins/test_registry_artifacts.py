"""Artifacts of other kinds that hold a model, and those that hold none."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from corectl.errors import BadModelFile, RemoteError
from corectl.model.manifest import MediaType
from corectl.model.name import ModelName
from corectl.transfer.body import DigestMismatch
from corectl_registry.artifacts import is_artifact, model_of, read_artifact
from corectl_registry.registry import OciRegistry
from tests.core.transfer_kit import FakeOrigin, Puller, Reply, digest_of, failure_of, running_origin

OCI = "application/vnd.oci.image.manifest.v1+json"
GGUF = "application/vnd.docker.ai.gguf.v3"
DOCKER_CONFIG = {
    "config": {"format": "gguf", "quantization": "Q4_K_M", "parameters": "361.82 M", "architecture": "llama"},
    "descriptor": {"created": "2025-01-01T00:00:00Z"},
    "rootfs": {"type": "rootfs", "diff_ids": []},
}


@pytest.fixture
def origin() -> Iterator[FakeOrigin]:
    with running_origin() as origin:
        yield origin


def described(origin: FakeOrigin, data: bytes, media_type: str, title: str = "") -> dict[str, Any]:
    layer = origin.add(data)
    origin.content[f"/v2/ai/m/blobs/{layer.digest}"] = data
    found: dict[str, Any] = {"mediaType": media_type, "digest": layer.digest, "size": len(data)}
    return found | ({"annotations": {"org.opencontainers.image.title": title}} if title else {})


def offered(origin: FakeOrigin, config: dict[str, Any], *layers: dict[str, Any]) -> str:
    manifest = {"schemaVersion": 2, "mediaType": OCI, "config": config, "layers": layers}
    origin.content["/v2/ai/m/manifests/latest"] = json.dumps(manifest).encode()
    return f"{origin.host}/ai/m"


def test_a_model_of_dockers(tmp_path: Path, origin: FakeOrigin) -> None:
    config = described(
        origin, json.dumps(DOCKER_CONFIG).encode(), "application/vnd.docker.ai.model.config.v0.1+json"
    )
    weights = described(origin, b"GGUF weights", GGUF)
    seeing = described(origin, b"GGUF projector", "application/vnd.docker.ai.mmproj")
    licence = described(origin, b"free", "application/vnd.docker.ai.license")
    other = described(origin, b"{}", "application/vnd.docker.ai.something")
    name = offered(origin, config, weights, seeing, licence, other)

    puller = Puller(tmp_path, OciRegistry())  # type: ignore[arg-type]
    assert puller.pull(name, insecure=True)[-1].status == "success"
    assert OCI in origin.log[0].headers["accept"]
    record = puller.catalog.find(ModelName.parse(name))
    assert record is not None
    assert [(layer.media_type, layer.digest) for layer in record.layers] == [
        (MediaType.MODEL, weights["digest"]),
        (MediaType.PROJECTOR, seeing["digest"]),
        (MediaType.LICENSE, licence["digest"]),
    ]
    assert record.config.model_format == "gguf" and record.config.model_family == "llama"
    assert (record.config.model_type, record.config.file_type) == ("361.82M", "Q4_K_M")


def _model_of_dockers(origin: FakeOrigin, **config: Any) -> str:
    told = described(
        origin, json.dumps(DOCKER_CONFIG).encode(), "application/vnd.docker.ai.model.config.v0.1+json"
    )
    return offered(origin, told | config, described(origin, b"GGUF weights", GGUF))


def test_a_configuration_that_lies_elsewhere(tmp_path: Path, origin: FakeOrigin) -> None:
    """Docker Hub redirects all blobs."""
    name = _model_of_dockers(origin)
    with running_origin() as other:
        other.content = {path: data for path, data in origin.content.items() if "/blobs/" in path}

        def redirect(reply: Reply) -> bool:
            if "/blobs/" not in reply.path:
                return False
            reply.send(307, b"", {"location": other.url + reply.path})
            return True

        origin.faults.append(redirect)
        puller = Puller(tmp_path, OciRegistry())  # type: ignore[arg-type]
        puller.pull(name, insecure=True)
    record = puller.catalog.find(ModelName.parse(name))
    assert record is not None and record.config.model_family == "llama"


@pytest.mark.parametrize(
    "digest", ["sha256:1", "../../../../elsewhere", "", f"sha256:{'0' * 64}\n", "sha512:" + "0" * 128]
)
def test_no_address_is_made_of_what_is_no_digest(tmp_path: Path, origin: FakeOrigin, digest: str) -> None:
    name = _model_of_dockers(origin, digest=digest)
    _, error = failure_of(Puller(tmp_path, OciRegistry()), name, insecure=True)  # type: ignore[arg-type]
    assert isinstance(error, BadModelFile) and "digest" in error.message
    assert [asked.path for asked in origin.log] == ["/v2/ai/m/manifests/latest"]


def test_a_configuration_with_other_bytes(tmp_path: Path, origin: FakeOrigin) -> None:
    config = described(origin, b"{}", "application/vnd.docker.ai.model.config.v0.1+json")
    name = offered(origin, config, described(origin, b"GGUF weights", GGUF))
    origin.content[f"/v2/ai/m/blobs/{config['digest']}"] = b"[]"
    _, error = failure_of(Puller(tmp_path, OciRegistry()), name, insecure=True)  # type: ignore[arg-type]
    assert isinstance(error, DigestMismatch)


def test_a_configuration_that_is_not_there_says_nothing(tmp_path: Path, origin: FakeOrigin) -> None:
    name = _model_of_dockers(origin, digest=digest_of(b"gone"))
    puller = Puller(tmp_path, OciRegistry())  # type: ignore[arg-type]
    assert puller.pull(name, insecure=True)[-1].status == "success"


def test_a_configuration_that_has_no_end(tmp_path: Path, origin: FakeOrigin) -> None:
    name = _model_of_dockers(origin, size=2**19)

    def flood(reply: Reply) -> bool:
        if "/blobs/" not in reply.path or reply.path.endswith(digest_of(b"GGUF weights")):
            return False
        reply.send(200, b" " * 2**24)
        return True

    origin.faults.append(flood)
    _, error = failure_of(Puller(tmp_path, OciRegistry()), name, insecure=True)  # type: ignore[arg-type]
    assert isinstance(error, RemoteError)


def test_an_artifact_that_somebody_has_packed(tmp_path: Path, origin: FakeOrigin) -> None:
    config = described(origin, b"{}", "application/vnd.oci.empty.v1+json")
    readme = described(origin, b"# Read me", "text/markdown", "README.md")
    weights = described(origin, b"GGUF weights", "application/octet-stream", "model.GGUF")
    name = offered(origin, config, readme, weights)
    puller = Puller(tmp_path, OciRegistry())  # type: ignore[arg-type]
    puller.pull(name, insecure=True)
    record = puller.catalog.find(ModelName.parse(name))
    assert record is not None and [layer.digest for layer in record.layers] == [weights["digest"]]


def test_an_image_of_a_container_is_no_model(tmp_path: Path, origin: FakeOrigin) -> None:
    config = described(origin, b"{}", "application/vnd.docker.container.image.v1+json")
    tar = described(origin, b"tar", "application/vnd.docker.image.rootfs.diff.tar.gzip")
    name = offered(origin, config, tar)
    _, error = failure_of(Puller(tmp_path, OciRegistry()), name, insecure=True)  # type: ignore[arg-type]
    assert isinstance(error, BadModelFile)
    assert error.message == (
        "pull model manifest: there is no model in this artifact; "
        "it has application/vnd.docker.image.rootfs.diff.tar.gzip"
    )


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b'{"manifests": []}', "an index"),
        (b'{"layers": 7}', "damaged"),
        (b"\xff", "damaged"),
        (b"[" * 10_000, "damaged"),
    ],
)
def test_what_is_no_manifest(data: bytes, says: str) -> None:
    with pytest.raises(BadModelFile, match=says):
        is_artifact(data)


def test_a_model_that_runs_elsewhere_has_no_layers() -> None:
    config = {
        "mediaType": "application/vnd.docker.container.image.v1+json",
        "digest": digest_of(b""),
        "size": 0,
    }
    assert not is_artifact(json.dumps({"config": config, "layers": []}).encode())


def test_configurations_that_say_nothing() -> None:
    layer = {"mediaType": GGUF, "digest": digest_of(b"x"), "size": 1}
    artifact = read_artifact(json.dumps({"config": layer, "layers": [layer]}).encode())
    for config in (b"", b"\xff", b"[]", b'{"config": {"architecture": 7}}'):
        assert b'"model_format":"gguf"' in next(iter(model_of(artifact, config).here.values()))  # type: ignore[operator]
