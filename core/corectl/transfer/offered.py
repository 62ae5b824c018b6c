"""What registries say of a model, checked: nothing of it is believed."""

from __future__ import annotations

import msgspec

from corectl.errors import BadModelFile
from corectl.model.files import check_file_name
from corectl.model.manifest import Layer, Manifest
from corectl.store.manifests import decode_manifest

MAX_MANIFEST = 2**22
MAX_LAYERS = 10_000
MAX_BLOB = 2**44
"""16 TiB: no model is that large, and no sum of sizes overflows anything."""


def checked_manifest(data: bytes) -> Manifest:
    """A manifest that a registry offers. Raises `BadModelFile` that names what is wrong.

    Its digests are well formed, its sizes possible, its files inside their folder, and what it names twice is the same
    both times.
    """
    if len(data) > MAX_MANIFEST:
        raise BadModelFile(f"the manifest is larger than {MAX_MANIFEST} bytes")
    manifest = decode_manifest(data)
    if len(manifest.layers) > MAX_LAYERS:
        raise BadModelFile(f"the manifest has {len(manifest.layers)} layers; {MAX_LAYERS} are allowed")
    sizes: dict[str, int] = {}
    for layer in (*manifest.layers, manifest.config):
        if layer.size > MAX_BLOB:
            raise BadModelFile(f"the manifest says that {layer.digest} has {layer.size} bytes")
        if layer.name:
            check_file_name(layer.name)
        if sizes.setdefault(layer.digest, layer.size) != layer.size:
            raise BadModelFile(f"the manifest says two sizes for {layer.digest}")
    return manifest


def blobs_of(manifest: Manifest) -> list[Layer]:
    """The layers and then the config, each blob once, in the order in which they are fetched."""
    every = (*manifest.layers, manifest.config)
    named = [msgspec.structs.replace(layer, digest=layer.digest.replace("-", ":", 1)) for layer in every]
    return list({layer.digest: layer for layer in named}.values())
