"""Models for the tests of the store."""

from __future__ import annotations

import hashlib

from corectl.model.manifest import CONFIG_TYPE, Layer, Manifest, MediaType, ModelConfig
from corectl.model.name import ModelName
from corectl.store.catalog import Catalog
from corectl.store.encoding import layer_json


def digest_of(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


HELLO = digest_of(b"hello")
"""The digest of these five letters."""


def name(text: str) -> ModelName:
    return ModelName.parse(text)


def add(catalog: Catalog, model: str, *layers: bytes, family: str = "llama") -> None:
    """Store a model whose licenses are `layers`."""
    stored = [catalog.blobs.put(data) for data in layers]
    entries = [Layer(media_type=MediaType.LICENSE, digest=one.digest, size=one.size) for one in stored]
    catalog.install(name(model), catalog.manifest_bytes(ModelConfig(model_family=family), entries, []))


def manifest_bytes(config: str = HELLO) -> bytes:
    return layer_json(Manifest(config=Layer(media_type=CONFIG_TYPE, digest=config, size=5), layers=()))
