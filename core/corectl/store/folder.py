"""Uploaded weights in other formats than GGUF: what the plugin of their format says of them, and their layers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import PurePosixPath

import msgspec

from corectl.model.files import ModelFiles
from corectl.model.formats import ModelDescription
from corectl.model.manifest import Layer, MediaType
from corectl.store.blobs import BlobStore

_BESIDE = (".json", ".jinja", ".model", ".txt")
"""How files end that weights need beside them."""


class Recognised(msgspec.Struct, frozen=True):
    """Files that are a model: the name of their format, and what it says of them."""

    format: str
    description: ModelDescription


Recognise = Callable[[ModelFiles], Recognised | None]
"""What a set of files is, or None. Raises `BadModelFile`, and `NotSupported` for what no backend here can load."""


class Folder(msgspec.Struct, frozen=True):
    """A model of several files, as a create request brings it."""

    found: Recognised
    layers: tuple[Layer, ...]


def read_folder(blobs: BlobStore, files: dict[str, str], recognise: Recognise) -> Folder | None:
    """The model that uploaded files are, by their names and digests; None if no format claims them."""
    named = {PurePosixPath(name.replace("\\", "/")).as_posix(): digest for name, digest in files.items()}
    weights = sorted(name for name in named if not name.endswith(_BESIDE))
    if not weights:
        return None
    paths = {name: blobs.path_of(digest) for name, digest in named.items()}
    found = recognise(ModelFiles(weights=paths[weights[0]], named=paths))
    if found is None:
        return None
    layers = tuple(
        Layer(
            media_type=MediaType.MODEL if name in weights else MediaType.JSON,
            digest=named[name].replace("-", ":", 1),
            size=paths[name].stat().st_size,
            name=name,
        )
        for name in (*weights, *sorted(named.keys() - set(weights)))
    )
    return Folder(found, layers)
