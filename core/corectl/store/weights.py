"""What GGUF files are: a model, a part of one, a projector or an adapter, judged by their checked headers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import msgspec

from corectl.errors import BadModelFile, BadRequest, NotSupported
from corectl.jobs.messages import Made
from corectl.model import split
from corectl.model.details import quantization_level
from corectl.model.files import ModelFiles, check_file_name
from corectl.model.formats import ModelDescription
from corectl.model.gguf import Header, header_of
from corectl.model.manifest import MediaType
from corectl.model.record import ModelRecord
from corectl.progress import Progress, Report
from corectl.store.blobs import BlobStore
from corectl.store.named_templates import NamedTemplate, detect
from corectl.store.parts import Part

GGUF = "gguf"
UNQUANTIZED = ("F32", "F16", "BF16")
MOST_FILES = split.MOST_PARTS + 16
MOST_TENSORS = 1 << 17
"""Each far above what any published model has, with all its parts and projectors."""

NOT_UNQUANTIZED = "quantization is only supported for F16, BF16 and F32 models"


class Weights(msgspec.Struct, frozen=True, kw_only=True):
    """A model's weights: their files and layers, and what their headers say of them.

    `kind` is how they are stored (such as F16). `template` is the known chat format that their own template has, if it
    has one. `files` has all of them for whoever reads or changes them.
    """

    format: str
    files: ModelFiles
    parts: tuple[Part, ...]
    families: tuple[str, ...]
    kind: str
    description: ModelDescription
    template: NamedTemplate | None = None


class Beside(msgspec.Struct, frozen=True):
    """A projector or an adapter in GGUF: its layer, and its architecture."""

    part: Part
    family: str


class GgufFiles(msgspec.Struct, frozen=True):
    """What the GGUF files of a request are."""

    model: Weights | None
    beside: tuple[Beside, ...]


def is_gguf(blobs: BlobStore, files: Mapping[str, str]) -> bool:
    """Whether uploaded files are GGUF, by the name or the first bytes of one."""
    return any(name.endswith(split.SUFFIX) or _has_magic(blobs, digest) for name, digest in files.items())


def read_files(blobs: BlobStore, files: Mapping[str, str], report: Report) -> GgufFiles:
    """The files of a create request. Raises `BadRequest`, `BadModelFile` and `NotSupported`."""
    if not files:
        raise BadRequest("unknown type")
    if any(name.endswith(".safetensors") for name in files):
        raise NotSupported(
            "these safetensors files are no model that can be imported (a config.json belongs to them); "
            "convert the model to GGUF first"
        )
    for name, digest in files.items():
        if not name.endswith(split.SUFFIX) and not _has_magic(blobs, digest):
            raise BadRequest("unknown type")
    report(Progress("parsing GGUF"))
    named: dict[str, Part] = {}
    for name, digest in files.items():
        path = blobs.path_of(digest)
        part = Part(media_type="", digest=digest.replace("-", ":", 1), size=path.stat().st_size, name=name)
        if part.digest not in {known.digest for known in named.values()}:
            named[name] = part
    return sort_out(named, {name: blobs.path_of(part.digest) for name, part in named.items()})


def made_gguf(made: Made, folder: Path) -> Weights:
    """The model that a job has written. Raises `BadModelFile`."""
    named = {
        file.name: Part(media_type="", digest=file.digest, size=file.size, path=folder / file.name)
        for file in made.files
    }
    found = sort_out(named, {name: folder / name for name in named}).model
    if found is None:
        raise BadModelFile("what was made holds no model weights")
    return msgspec.structs.replace(
        found, description=msgspec.structs.replace(found.description, quantization=found.kind)
    )


def weights_of(record: ModelRecord, files: ModelFiles) -> Weights:
    """Those of a model that is here. Raises `BadModelFile` and `OSError`."""
    format = record.config.model_format or GGUF
    if format == GGUF:
        return _weights(split.whole_header(files), parts=(), files=files)
    return Weights(
        format=format,
        files=files,
        parts=(),
        families=record.config.model_families or (),
        kind=record.config.file_type,
        description=ModelDescription(architecture=record.config.model_family),
    )


def sort_out(parts: Mapping[str, Part], paths: Mapping[str, Path]) -> GgufFiles:
    """What GGUF files are, by name: at most one model, which may be split. Raises `BadRequest` and `BadModelFile`."""
    headers = _read_headers(paths)
    kinds = {name: media_type_of(header) for name, header in headers.items()}
    beside = tuple(
        Beside(msgspec.structs.replace(parts[name], media_type=kind, name=""), headers[name].architecture)
        for name, kind in kinds.items()
        if kind != MediaType.MODEL
    )
    model = [name for name, kind in kinds.items() if kind == MediaType.MODEL]
    if not model:
        return GgufFiles(None, beside)
    shards = [name for name in model if split.is_part(headers[name])]
    if shards and len(shards) == len(model):
        model = split.ordered({name: headers[name] for name in shards})
    elif len(model) > 1:
        raise BadRequest("the files hold more than one model")
    header = split.joined([headers[name] for name in model])
    names = _names(model)
    return GgufFiles(
        _weights(
            header,
            parts=tuple(
                msgspec.structs.replace(parts[name], media_type=MediaType.MODEL, name=own)
                for name, own in zip(model, names, strict=True)
            ),
            files=ModelFiles(
                weights=paths[model[0]],
                named={own: paths[name] for name, own in zip(model, names, strict=True) if own},
            ),
        ),
        beside,
    )


def _read_headers(paths: Mapping[str, Path]) -> dict[str, Header]:
    """Each costs little, but a request may name any number of files."""
    if len(paths) > MOST_FILES:
        raise BadRequest(f"the request names {len(paths)} GGUF files, at most {MOST_FILES} are allowed")
    headers: dict[str, Header] = {}
    tensors = 0
    for name, path in paths.items():
        headers[name] = header_of(path)
        tensors += len(headers[name].tensors)
        if tensors > MOST_TENSORS:
            raise BadModelFile(f"the files have more than {MOST_TENSORS} tensors together")
    return headers


def _names(model: list[str]) -> list[str]:
    """What the files of a model are called in the store: nothing, or for parts names that say their order."""
    if len(model) == 1:
        return [""]
    said = [split.split_name(name.rpartition("/")[2]) for name in model]
    stems = {found[0] if found is not None else "model" for found in said}
    stem = stems.pop() if len(stems) == 1 else "model"
    return [split.part_name(stem, number, len(model)) for number in range(1, len(model) + 1)]


def _weights(header: Header, *, parts: tuple[Part, ...], files: ModelFiles) -> Weights:
    template = header.metadata.get("tokenizer.chat_template")
    return Weights(
        format=GGUF,
        files=files,
        parts=parts,
        families=(header.architecture,),
        kind=kind_of(header),
        description=ModelDescription(
            architecture=header.architecture,
            parameter_count=header.parameter_count,
            quantization=quantization_level(header),
        ),
        template=detect(template) if isinstance(template, str) else None,
    )


def kind_of(header: Header) -> str:
    """How the weights are stored. Files that do not say it are asked for the kind of most of their weights."""
    said = quantization_level(header)
    if said != "unknown":
        return said
    values: Counter[str] = Counter()
    for tensor in header.tensors:
        values[tensor.type_name] += tensor.elements
    return max(values, key=values.__getitem__, default=said)


def media_type_of(header: Header) -> MediaType:
    if header.metadata.get("general.type") == "adapter":
        return MediaType.ADAPTER
    return MediaType.PROJECTOR if header.architecture == "clip" else MediaType.MODEL


def check_files(blobs: BlobStore, files: Mapping[str, str]) -> None:
    """Raises `BadRequest` for a name that is no path inside a folder, and for a blob that is not there."""
    for name in files:
        try:
            check_file_name(name)
        except BadModelFile as exc:
            raise BadRequest(exc.message) from exc
    for digest in files.values():
        if not blobs.exists(digest):
            raise BadRequest(f'blob "{digest}" not found; upload it before creating the model')


def _has_magic(blobs: BlobStore, digest: str) -> bool:
    with blobs.path_of(digest).open("rb") as file:
        return file.read(4) == b"GGUF"
