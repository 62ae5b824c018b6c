"""Models that are packaged as artifacts of other kinds: OCI's, and Docker's for models. Their weights are GGUF.

What is stored for them is a manifest of our own, with the same blobs; the one of the registry has layers that mean
nothing to a model store.
"""

from __future__ import annotations

import hashlib
import logging
import re
from typing import Any

import msgspec

from corectl.errors import BadModelFile
from corectl.model.manifest import CONFIG_TYPE, Layer, Manifest, MediaType, ModelConfig
from corectl.registry.remote import Offer
from corectl.store.encoding import layer_json

log = logging.getLogger("corectl.registry")

CONFIG_LIMIT = 2**20
OURS = "application/vnd.ollama.image."
TITLE = "org.opencontainers.image.title"
DOCKER = {
    "application/vnd.docker.ai.gguf.v3": MediaType.MODEL,
    "application/vnd.docker.ai.mmproj": MediaType.PROJECTOR,
    "application/vnd.docker.ai.gguf.v3.lora": MediaType.ADAPTER,
    "application/vnd.docker.ai.license": MediaType.LICENSE,
}

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


class WireLayer(msgspec.Struct, rename="camel"):
    media_type: str
    digest: str
    size: int
    annotations: dict[str, str] = {}


class Artifact(msgspec.Struct, rename="camel"):
    """A manifest as OCI has it."""

    config: WireLayer
    layers: list[WireLayer] = []


class Probe(msgspec.Struct, rename="camel"):
    media_type: str = ""
    manifests: Any = None
    config: Any = None
    layers: list[msgspec.Raw] = []


class WireDockerModel(msgspec.Struct):
    format: str = ""
    quantization: str = ""
    parameters: str = ""
    architecture: str = ""


class WireDockerConfig(msgspec.Struct):
    config: WireDockerModel = msgspec.field(default_factory=WireDockerModel)


def read_artifact(data: bytes) -> Artifact:
    """Raises `BadModelFile`. The digest of its config is one; those of layers are checked when it is a model."""
    try:
        artifact = msgspec.json.decode(data, type=Artifact)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise BadModelFile(f"the manifest is damaged: {exc}") from None
    if not _DIGEST.fullmatch(artifact.config.digest):
        raise BadModelFile("the manifest is damaged: invalid digest of its config")
    return artifact


def is_artifact(data: bytes) -> bool:
    """Whether a manifest is of another kind than ours. Raises `BadModelFile` for one that lists others."""
    try:
        probe = msgspec.json.decode(data, type=Probe)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise BadModelFile(f"the manifest is damaged: {exc}") from None
    if probe.manifests is not None:
        raise BadModelFile("this is an index of several manifests, not a model")
    # A model that runs elsewhere has no layers.
    return bool(probe.layers) and OURS.encode() not in b"".join(probe.layers)


def model_of(artifact: Artifact, config: bytes) -> Offer:
    """The model that an artifact holds. Raises `BadModelFile` if it holds none."""
    layers = []
    for layer in artifact.layers:
        kind = _kind(layer)
        if kind is None:
            log.info("a layer of the artifact is left out: %s", layer.media_type[:100])
        else:
            layers.append(Layer(media_type=kind, digest=layer.digest, size=layer.size))
    if not any(layer.media_type == MediaType.MODEL for layer in layers):
        kinds = ", ".join(sorted({layer.media_type[:100] for layer in artifact.layers[:10]}))
        raise BadModelFile(f"there is no model in this artifact; it has {kinds}")
    data = layer_json(msgspec.to_builtins(_config(config)))
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    bound = Layer(media_type=CONFIG_TYPE, digest=digest, size=len(data))
    return Offer(manifest=layer_json(Manifest(config=bound, layers=tuple(layers))), here={digest: data})


def _kind(layer: WireLayer) -> MediaType | None:
    known = DOCKER.get(layer.media_type)
    if known is not None:
        return known
    title = layer.annotations.get(TITLE, "").lower()
    if "gguf" in layer.media_type.lower() or title.endswith(".gguf"):
        return MediaType.PROJECTOR if "mmproj" in title else MediaType.MODEL
    return None


def _config(data: bytes) -> ModelConfig:
    try:
        says = msgspec.json.decode(data, type=WireDockerConfig).config
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        says = WireDockerModel()
    return ModelConfig(
        model_format="gguf",
        model_family=says.architecture[:64],
        model_families=(says.architecture[:64],) if says.architecture else None,
        model_type=says.parameters[:64].replace(" ", ""),
        file_type=says.quantization[:64],
        architecture="amd64",
        os="linux",
    )
