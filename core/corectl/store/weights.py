"""What uploaded weights are: a model, a projector or an adapter, judged by their checked headers."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from corectl.errors import BadModelFile, BadRequest, NotSupported
from corectl.model.details import human_number, quantization_level
from corectl.model.files import check_file_name
from corectl.model.gguf import Header, header_of
from corectl.model.manifest import Layer, MediaType
from corectl.store.blobs import BlobStore
from corectl.store.named_templates import NamedTemplate, detect

_QUANTIZE_TARGETS = ("F32", "F16", "Q4_K_S", "Q4_K_M", "Q8_0")
_ALSO_ACCEPTED = ("BF16", "Q4_K")
_QUANTIZE_SOURCES = ("F32", "F16", "BF16", "unknown")


class Weights(msgspec.Struct, frozen=True, kw_only=True):
    """One GGUF file. `template` is the known chat format that its own template has, if it has one."""

    layer: Layer
    media_type: MediaType
    family: str
    model_type: str
    file_type: str
    template: NamedTemplate | None = None

    @property
    def is_model(self) -> bool:
        return self.media_type == MediaType.MODEL


def is_gguf(blobs: BlobStore, files: dict[str, str]) -> bool:
    """Whether uploaded files are GGUF, by the name or the first bytes of one. Raises `BadRequest` for bad names."""
    check_files(blobs, files)
    return any(name.endswith(".gguf") or _has_magic(blobs, digest) for name, digest in files.items())


def read_files(blobs: BlobStore, files: dict[str, str], report: Callable[[str], None]) -> list[Weights]:
    """The files of a create request, the model first. Raises `BadRequest` and `NotSupported`."""
    if not files:
        raise BadRequest("unknown type")
    if any(name.endswith(".safetensors") for name in files):
        raise NotSupported(
            "these safetensors files are no model that can be imported (a config.json belongs to them); "
            "convert the model to GGUF first"
        )
    for name, digest in files.items():
        if not name.endswith(".gguf") and not _has_magic(blobs, digest):
            raise BadRequest("unknown type")
    report("parsing GGUF")
    found = [_read(blobs, digest) for digest in dict.fromkeys(files.values())]
    found.sort(key=lambda part: not part.is_model)
    if sum(part.is_model for part in found) > 1:
        raise BadRequest("the files hold more than one model")
    return found


def read_adapter(
    blobs: BlobStore, adapters: dict[str, str], report: Callable[[str], None], *, base_format: str
) -> list[Layer]:
    """The layers of the one adapter of a create request. Raises `BadRequest` and `NotSupported`."""
    check_files(blobs, adapters)
    if len(adapters) > 1 and not any(name.endswith((".safetensors", ".json")) for name in adapters):
        raise BadRequest("only one adapter is currently supported")
    if any(name.endswith(".safetensors") for name in adapters):
        return _adapter_folder(blobs, adapters, base_format)
    report("parsing GGUF")
    part = _read(blobs, next(iter(adapters.values())))
    if part.media_type != MediaType.ADAPTER:
        raise BadRequest("the file given as adapter is not an adapter: its general.type is not 'adapter'")
    return [part.layer]


def _adapter_folder(blobs: BlobStore, adapters: dict[str, str], base_format: str) -> list[Layer]:
    """An adapter of safetensors and a configuration, which is applied to weights of that kind only."""
    if base_format != "safetensors":
        raise NotSupported(
            "safetensors adapters are for safetensors models; convert the adapter to GGUF for this one"
        )
    if "adapter_config.json" not in adapters:
        raise BadRequest("the adapter has no adapter_config.json, which says how it is applied")
    return [
        Layer(
            media_type=MediaType.ADAPTER,
            digest=digest.replace("-", ":", 1),
            size=blobs.path_of(digest).stat().st_size,
            name=name,
        )
        for name, digest in sorted(adapters.items())
        if name.endswith(".safetensors") or name == "adapter_config.json"
    ]


def check_files(blobs: BlobStore, files: dict[str, str]) -> None:
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


def _read(blobs: BlobStore, digest: str) -> Weights:
    path = blobs.path_of(digest)
    header = header_of(path)
    if "split.count" in header.metadata and header.metadata["split.count"] != 1:
        raise NotSupported(
            "split GGUF files are not supported by this version; merge the parts into one file first"
        )
    media_type = _media_type(header)
    chat_template = header.metadata.get("tokenizer.chat_template")
    known = detect(chat_template) if isinstance(chat_template, str) else None
    return Weights(
        layer=Layer(media_type=media_type, digest=digest.replace("-", ":", 1), size=header.file_size),
        media_type=media_type,
        family=header.architecture,
        model_type=human_number(header.parameter_count),
        file_type=quantization_level(header),
        template=known if media_type == MediaType.MODEL else None,
    )


def _media_type(header: Header) -> MediaType:
    if header.metadata.get("general.type") == "adapter":
        return MediaType.ADAPTER
    return MediaType.PROJECTOR if header.architecture == "clip" else MediaType.MODEL


def check_quantize(target: str, source: str) -> None:
    """Raises for a request to quantise weights of type `source`, unless that is the `target` already."""
    wanted = target.upper()
    if wanted not in (*_QUANTIZE_TARGETS, *_ALSO_ACCEPTED):
        known = ", ".join(_QUANTIZE_TARGETS)
        raise BadRequest(f"unsupported quantization type {wanted[:32]} - supported types are {known}")
    if source not in _QUANTIZE_SOURCES:
        raise BadRequest("quantization is only supported for F16, BF16 and F32 models")
    if wanted != source:
        raise NotSupported(
            "quantize is not supported by this version; run llama-quantize and import what it writes"
        )
