"""Weights in other formats than GGUF: folders of files, and what the plugin of their format says of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from corectl.errors import LoadFailed
from corectl.jobs.messages import Made
from corectl.model.files import ModelFiles
from corectl.model.manifest import MediaType
from corectl.store.blobs import BlobStore
from corectl.store.importer import Importer
from corectl.store.named_templates import detect
from corectl.store.parts import Part
from corectl.store.weights import Weights

_BESIDE = (".json", ".jinja", ".model", ".txt", ".md")
"""How files end that weights need beside them, or have there."""


def read_folder(blobs: BlobStore, files: Mapping[str, str], importer: Importer) -> Weights | None:
    """The model that uploaded files are; None if no format claims them. Raises `BadModelFile`."""
    parts = {}
    for name, digest in files.items():
        path = blobs.path_of(digest)
        parts[PurePosixPath(name.replace("\\", "/")).as_posix()] = Part(
            media_type="", digest=digest.replace("-", ":", 1), size=path.stat().st_size
        )
    return _recognised(parts, {name: blobs.path_of(part.digest) for name, part in parts.items()}, importer)


def made_folder(made: Made, folder: Path, format: str, importer: Importer) -> Weights:
    """The model that a job has written. Raises `LoadFailed`."""
    paths = {file.name: folder / file.name for file in made.files}
    parts = {
        file.name: Part(media_type="", digest=file.digest, size=file.size, path=paths[file.name])
        for file in made.files
    }
    found = _recognised(parts, paths, importer)
    if found is None or found.format != format:
        raise LoadFailed(f"what was made of the model is no {format}")
    return found


def model_files(paths: Mapping[str, Path]) -> ModelFiles | None:
    """Files by their names in a folder; None where none of them can be weights.

    The first weights are those that lie highest: what lies in folders is the smaller part of a model.
    """
    weights = sorted((name for name in paths if not name.endswith(_BESIDE)), key=_depth)
    return ModelFiles(weights=paths[weights[0]], named=dict(paths)) if weights else None


def _recognised(parts: Mapping[str, Part], paths: Mapping[str, Path], importer: Importer) -> Weights | None:
    files = model_files(paths)
    found = importer.recognise(files) if files is not None else None
    if files is None or found is None:
        return None
    says = found.description
    return Weights(
        format=found.format,
        files=files,
        parts=tuple(_named(part, name) for name, part in sorted(parts.items(), key=_order)),
        families=(says.architecture,),
        kind=says.quantization,
        description=says,
        template=detect(says.chat_template),
    )


def _named(part: Part, name: str) -> Part:
    kind = MediaType.JSON if name.endswith(_BESIDE) else MediaType.MODEL
    return Part(media_type=kind, digest=part.digest, size=part.size, name=name, path=part.path)


def _order(item: tuple[str, Part]) -> tuple[bool, int, str]:
    """Weights first: the first of them is the one that stands for the model."""
    name = item[0]
    return (name.endswith(_BESIDE), *_depth(name))


def _depth(name: str) -> tuple[int, str]:
    return name.count("/"), name
