"""Uploaded weights in other formats than GGUF: what the plugin of their format says of them, and their layers."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path, PurePosixPath
from typing import Protocol

import msgspec

from corectl.errors import LoadFailed
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


class Importer(Protocol):
    """What is known of formats and backends, for models that are made of files. Its methods block."""

    def recognise(self, files: ModelFiles) -> Recognised | None:
        """What a set of files is. Raises `BadModelFile`, and `NotSupported` for what no backend here can load."""
        ...

    def quantize(self, format: str, files: ModelFiles, target: str, folder: Path) -> None:
        """Writes the model to a folder with smaller weights. Raises `BadRequest`, `NotSupported`, `LoadFailed`."""
        ...


class Folder(msgspec.Struct, frozen=True):
    """A model of several files, as a create request brings it, and its layers."""

    found: Recognised
    files: ModelFiles
    layers: tuple[Layer, ...]


def read_folder(blobs: BlobStore, files: dict[str, str], importer: Importer) -> Folder | None:
    """The model that files in the store are, by their names and digests; None if no format claims them."""
    named = {PurePosixPath(name.replace("\\", "/")).as_posix(): digest for name, digest in files.items()}
    weights = sorted(name for name in named if not name.endswith(_BESIDE))
    if not weights:
        return None
    paths = {name: blobs.path_of(digest) for name, digest in named.items()}
    model = ModelFiles(weights=paths[weights[0]], named=paths)
    found = importer.recognise(model)
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
    return Folder(found, model, layers)


def quantized(
    blobs: BlobStore, folder: Folder, target: str, importer: Importer, created: list[str]
) -> Folder:
    """The same model with smaller weights, in the store. New blobs are added to `created`."""
    with blobs.scratch() as place:
        importer.quantize(folder.found.format, folder.files, target, place)
        files = {}
        for path in sorted(path for path in place.rglob("*") if path.is_file()):
            with path.open("rb") as file:
                digest = f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
                # A link makes it part of the store at once.
                os.fsync(file.fileno())
            if blobs.link_or_copy(path, digest).created:
                created.append(digest)
            files[path.relative_to(place).as_posix()] = digest
    found = read_folder(blobs, files, importer)
    if found is None:
        raise LoadFailed(f"the backend has quantised the model to something that is no {folder.found.format}")
    return found
