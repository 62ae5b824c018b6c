"""The local registry: models in the cache of huggingface_hub, where they lie."""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from corectl.errors import Busy, CorectlError, NotFound
from corectl.model.files import read_small
from corectl.model.gguf import header_of
from corectl.model.hf import MAX_CONFIG
from corectl.model.manifest import Layer, ModelConfig
from corectl.model.name import ModelName
from corectl.model.record import ModelRecord, StoredLayer
from corectl.model.split import joined
from corectl_huggingface import parts, quants, snapshots
from corectl_huggingface.documents import (
    MAX_INDEX,
    encoded,
    folder_config,
    gguf_config,
    json_object,
    modules_of,
    shards_of,
)
from corectl_huggingface.hashes import Hashes

log = logging.getLogger(__name__)

HOST = "hf.co"
LATEST = "latest"

_MOST_SEEN = 1000

_SHA256 = re.compile(r"[0-9a-f]{64}")

Records = Iterator[ModelRecord]
State = tuple[tuple[str, int, int], ...]


class _Seen(msgspec.Struct, frozen=True):
    """What a model was found to be, and what its files were then: names, sizes and times of change."""

    state: State
    record: ModelRecord


class HuggingFaceCache:
    """See `corectl.registry.base.LocalRegistry`.

    Models are named `hf.co/<owner>/<name>`; one in GGUF has its quantisation as the tag. Files are only read when they
    have changed.
    """

    name = "hfcache"

    def __init__(self, hashes: Hashes | None = None) -> None:
        self._hashes = hashes or Hashes()
        self._seen: dict[tuple[Path, str], _Seen] = {}

    def list(self) -> Records:
        """One that is incomplete or damaged is left out, and said in the debug log.

        So is one with large files whose digests are not known yet; it is there when they have been read.
        """
        for folder in snapshots.repositories():
            try:
                snapshot = _Snapshot.of(folder, self._hashes)
            except (CorectlError, OSError) as exc:
                log.debug("%s of the Hugging Face cache is left out: %s", folder.name, exc)
                continue
            if snapshot is None:
                continue
            for tag in snapshot.tags:
                try:
                    yield self._record(snapshot, tag)
                except (CorectlError, OSError) as exc:
                    log.debug("%s:%s of the Hugging Face cache is left out: %s", folder.name, tag, exc)

    def find(self, name: ModelName) -> ModelRecord | None:
        """Raises `Busy` for a model with large files whose digests are not known yet."""
        if name.host.casefold() != HOST:
            return None
        for folder in snapshots.repositories_of(name.namespace, name.model):
            try:
                snapshot = _Snapshot.of(folder, self._hashes)
                if snapshot is not None:
                    return self._record(snapshot, name.tag)
            except Busy:
                raise
            except (CorectlError, OSError) as exc:
                log.debug("%s of the Hugging Face cache is left out: %s", folder.name, exc)
        return None

    def _record(self, snapshot: _Snapshot, tag: str) -> ModelRecord:
        key, state = (snapshot.folder, tag.casefold()), snapshot.state()
        known = self._seen.get(key)
        if known is not None and known.state == state:
            return known.record
        if len(self._seen) >= _MOST_SEEN:
            self._seen.clear()
        record = snapshot.record(tag)
        self._seen[key] = _Seen(state, record)
        return record


class _Snapshot:
    """The files of one revision."""

    def __init__(self, owner: str, model: str, folder: Path, hashes: Hashes) -> None:
        self._owner, self._model, self.folder, self._hashes = owner, model, folder, hashes
        self._files = snapshots.files(folder)
        self._variants = quants.variants(self._files)

    @classmethod
    def of(cls, repository: Path, hashes: Hashes) -> _Snapshot | None:
        owner, _, model = repository.name.removeprefix("models--").partition("--")
        folder = snapshots.newest(repository)
        return cls(owner, model, folder, hashes) if folder is not None else None

    @property
    def tags(self) -> list[str]:
        """What `record` may be asked for, apart from other names for the same."""
        return [variant.label for variant in self._variants] or [LATEST]

    def state(self) -> State:
        """What changes whenever a file does. Raises `OSError`."""
        found = ((name, path.stat()) for name, path in self._files.items())
        return tuple((name, status.st_size, status.st_mtime_ns) for name, status in found)

    def record(self, tag: str) -> ModelRecord:
        """Raises `NotFound` where there is no such model, other `CorectlError`, `OSError`."""
        if self._variants:
            variant = quants.choose(self._variants, tag)
            name = LATEST if tag.casefold() == LATEST else variant.label
            return self._record(name, parts.gguf_parts(self._files, variant), self._gguf_config(variant))
        if tag.casefold() != LATEST:
            raise NotFound("a repository without GGUF files has the tag latest only")
        found = parts.folder_parts(self._files, self._shards(), self._modules())
        if not found:
            raise NotFound("there are no weights, or not all of them")
        return self._record(LATEST, found, folder_config(self._json(parts.CONFIG)))

    def _gguf_config(self, variant: quants.Variant) -> ModelConfig:
        header = joined([header_of(self._files[path]) for path in variant.files])
        context_length = header.number("context_length")
        return gguf_config(
            header.architecture, header.parameter_count, variant.quant, context_length=context_length
        )

    def _shards(self) -> set[str] | None:
        index = self._files.get(parts.INDEX)
        return shards_of(read_small(index, MAX_INDEX)) if index else None

    def _modules(self) -> tuple[str, ...]:
        modules = self._files.get(parts.MODULES)
        return modules_of(read_small(modules, MAX_CONFIG)) if modules else ()

    def _json(self, name: str) -> dict[str, object]:
        return json_object(read_small(self._files[name], MAX_CONFIG), name)

    def _record(self, tag: str, found: tuple[parts.Part, ...], config: ModelConfig) -> ModelRecord:
        name = ModelName.parse(f"{HOST}/{self._owner}/{self._model}:{tag}")
        layers = tuple(map(self._layer, found))
        listed = tuple(
            Layer(media_type=layer.media_type, digest=layer.digest, size=layer.size, name=layer.name)
            for layer in layers
        )
        manifest, bound, _ = encoded(config, listed)
        return ModelRecord(
            name=name,
            digest=hashlib.sha256(manifest).hexdigest(),
            size=sum(layer.size for layer in layers) + bound.size,
            modified_at=datetime.fromtimestamp(self.folder.stat().st_mtime, UTC),
            config=config,
            layers=layers,
            origin="the Hugging Face cache",
        )

    def _layer(self, part: parts.Part) -> StoredLayer:
        path = self._files[part.path]
        target = path.resolve()
        named = _SHA256.fullmatch(target.name)
        return StoredLayer(
            media_type=part.media_type,
            digest=f"sha256:{target.name if named else self._hashes.sha256(target)}",
            size=path.stat().st_size,
            path=path,
            name=part.name,
        )
