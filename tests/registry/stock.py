"""Models for registries: manifests and blobs, put there past all layers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx

from tests.registry.docker import DockerRegistry

MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
CONFIG = "application/vnd.docker.container.image.v1+json"
IMAGE = "application/vnd.ollama.image."


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def layer(data: bytes, kind: str = "model", **more: Any) -> dict[str, Any]:
    """A layer of a manifest; `kind` is a whole media type, or the last word of one of Ollama's."""
    media = kind if "/" in kind else IMAGE + kind
    return {"mediaType": media, "digest": digest_of(data), "size": len(data), **more}


@dataclass(frozen=True)
class Model:
    """A manifest and its blobs, by digest."""

    manifest: bytes
    blobs: Mapping[str, bytes]

    @property
    def layers(self) -> list[str]:
        """The digests of the layers, without that of the config."""
        return [entry["digest"] for entry in json.loads(self.manifest)["layers"]]


def model(*layers: tuple[str, bytes], config: Mapping[str, Any] | None = None) -> Model:
    """A model of these kinds of layers (see `layer`) and their bytes."""
    config_bytes = json.dumps(
        config or {"model_format": "gguf", "architecture": "amd64", "os": "linux"}
    ).encode()
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": layer(config_bytes, CONFIG),
        "layers": [layer(data, kind) for kind, data in layers],
    }
    blobs = {digest_of(data): data for data in (*(data for _, data in layers), config_bytes)}
    return Model(json.dumps(manifest).encode(), blobs)


def put(registry: DockerRegistry, name: str, model: Model, tag: str = "latest") -> None:
    """Pushes a model into a registry, as `name`, such as `library/smol`."""
    with httpx.Client(base_url=f"{registry.url}/v2/{name}/", trust_env=False, timeout=60) as client:
        for digest, data in model.blobs.items():
            started = client.post("blobs/uploads/").raise_for_status()
            where = httpx.URL(registry.url).join(started.headers["location"])
            client.put(where.copy_merge_params({"digest": digest}), content=data).raise_for_status()
        client.put(
            f"manifests/{tag}", content=model.manifest, headers={"content-type": MANIFEST}
        ).raise_for_status()


def remove_blob(registry: DockerRegistry, name: str, digest: str) -> None:
    """The registry does not have this blob any more; manifests that name it stay."""
    httpx.delete(f"{registry.url}/v2/{name}/blobs/{digest}", trust_env=False).raise_for_status()
