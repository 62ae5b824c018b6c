"""The adapter of a create request: GGUF, or a folder of safetensors that is kept or converted, as its base is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from corectl.errors import BadModelFile, BadRequest, NotSupported
from corectl.jobs.messages import Made
from corectl.model.files import ModelFiles
from corectl.model.gguf import header_of
from corectl.model.manifest import MediaType
from corectl.progress import Progress, Report
from corectl.store.blobs import BlobStore
from corectl.store.folder import model_files
from corectl.store.parts import Part
from corectl.store.weights import GGUF, media_type_of

SAFETENSORS = "safetensors"
CONFIG = "adapter_config.json"

Convert = Callable[[ModelFiles], tuple[Made, Path]]
"""Makes an adapter one of its base's format: what was made, and the folder where it lies."""


def read_adapter(
    blobs: BlobStore, adapters: Mapping[str, str], base_format: str, report: Report, convert: Convert
) -> tuple[Part, ...]:
    """The layers of the one adapter of a request. Raises `BadRequest`, `BadModelFile` and `NotSupported`."""
    if any(name.endswith(f".{SAFETENSORS}") for name in adapters):
        return _folder(blobs, adapters, base_format, convert)
    if len(adapters) > 1 and not any(name.endswith(".json") for name in adapters):
        raise BadRequest("only one adapter is currently supported")
    report(Progress("parsing GGUF"))
    # A folder's configuration may lie beside it, which a GGUF file does not need.
    digest = min(adapters.items(), key=lambda item: item[0].endswith(".json"))[1]
    path = blobs.path_of(digest)
    if media_type_of(header_of(path)) != MediaType.ADAPTER:
        raise BadRequest("the file given as adapter is not an adapter: its general.type is not 'adapter'")
    return (_part(digest, path.stat().st_size),)


def _folder(
    blobs: BlobStore, adapters: Mapping[str, str], base_format: str, convert: Convert
) -> tuple[Part, ...]:
    if CONFIG not in adapters:
        raise BadRequest(f"the adapter has no {CONFIG}, which says how it is applied")
    named = {
        name: digest
        for name, digest in sorted(adapters.items())
        if name.endswith(f".{SAFETENSORS}") or name == CONFIG
    }
    if base_format == SAFETENSORS:
        return tuple(
            msgspec.structs.replace(_part(digest, blobs.path_of(digest).stat().st_size), name=name)
            for name, digest in named.items()
        )
    if base_format != GGUF:
        raise NotSupported(f"safetensors adapters cannot be applied to {base_format or 'remote'} models")
    files = model_files({name: blobs.path_of(digest) for name, digest in named.items()})
    assert files is not None, "one of them is safetensors"
    made, folder = convert(files)
    return tuple(_made(file.digest, file.size, folder / file.name) for file in made.files)


def _made(digest: str, size: int, path: Path) -> Part:
    if media_type_of(header_of(path)) != MediaType.ADAPTER:
        raise BadModelFile("what was made of the adapter is no adapter")
    return msgspec.structs.replace(_part(digest, size), path=path)


def _part(digest: str, size: int) -> Part:
    return Part(media_type=MediaType.ADAPTER, digest=digest.replace("-", ":", 1), size=size)
