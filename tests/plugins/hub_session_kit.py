"""A session with the hub on loopback: what it offers for a repository, taken apart."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Mapping

import msgspec

from corectl.model.manifest import Layer, Manifest, MediaType, ModelConfig
from corectl.model.name import ModelName
from corectl.registry.remote import Location, Offer, Origin
from corectl.transfer.client import make_client
from corectl_huggingface.registry import HuggingFace

CONFIG = json.dumps({"model_type": "llama", "torch_dtype": "float16", "max_position_embeddings": 64}).encode()


FOLDER = {
    "README.md": b"# Words",
    "config.json": CONFIG,
    "tokenizer.json": b'{"version": "1.0"}',
    "model.safetensors": b"weights",
}


GGUF = {"m-Q4_K_M.gguf": b"four bits", "m-Q8_0.gguf": b"eight bits", "README.md": b"# Words"}


class Pulled:
    """An offer, taken apart."""

    def __init__(self, offer: Offer, locations: Mapping[str, Location]) -> None:
        self.offer, self.locations = offer, locations
        manifest = msgspec.json.decode(offer.manifest, type=Manifest)
        self.layers = manifest.layers
        self.config = msgspec.json.decode(self.bytes(manifest.config), type=ModelConfig)

    def of(self, media_type: MediaType) -> list[Layer]:
        return [layer for layer in self.layers if layer.media_type == media_type]

    def bytes(self, layer: Layer) -> bytes:
        """Of one that is here."""
        data = self.offer.here[layer.digest]
        assert isinstance(data, bytes) and len(data) == layer.size
        assert layer.digest == f"sha256:{hashlib.sha256(data).hexdigest()}"
        return data


def pull(name: str) -> Pulled:
    """Asks for an offer, and where all is that is not in it."""

    async def ask() -> Pulled:
        async with make_client() as http:
            session = HuggingFace().session(Origin(ModelName.parse(name)), http)
            offer = await session.offer()
            layers = msgspec.json.decode(offer.manifest, type=Manifest).layers
            wanted = [layer for layer in layers if layer.digest not in offer.here]
            return Pulled(offer, {layer.digest: await session.locate(layer) for layer in wanted})

    return asyncio.run(ask())
