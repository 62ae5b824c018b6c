"""From folders of the cache to model records.

A repository lies in `models--<owner>--<name>`: `refs/main` holds the name of a revision, `snapshots/<revision>` its
files, which are links into `blobs`, where large files are named by their SHA-256.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
from collections.abc import Iterable
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path

import msgspec

from corectl.errors import CorectlError
from corectl.model.files import ModelFiles, read_small
from corectl.model.hf import config_of, whole_number
from corectl.model.manifest import CONFIG_TYPE, Layer, Manifest, MediaType, ModelConfig
from corectl.model.name import ModelName
from corectl.model.record import ModelRecord, StoredLayer

log = logging.getLogger(__name__)

HOST = "hf.co"
FOLDERS = "models--*--*"
WEIGHTS = ".safetensors"
BESIDE = (".json", ".jinja", ".model")
"""How the names of files end that belong to weights."""

_SHA256 = re.compile(r"[0-9a-f]{64}")
_REVISION = re.compile(r"[0-9a-f]{6,64}")


def cache_folder() -> Path:
    """Where huggingface_hub keeps what it has downloaded."""
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if place := os.environ.get(name):
            return Path(place).expanduser()
    home = os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "huggingface")
    return Path(home).expanduser() / "hub"


class HuggingFaceCache:
    """See `corectl.registry.base.LocalRegistry`. Models are named `hf.co/<owner>/<name>`."""

    name = "hfcache"

    def list(self) -> Iterable[ModelRecord]:
        """One that is incomplete or damaged is left out, and said in the debug log."""
        for folder in sorted(cache_folder().glob(FOLDERS)):
            record = self._record(folder)
            if record is not None:
                yield record

    def find(self, name: ModelName) -> ModelRecord | None:
        if name.host.casefold() != HOST or name.tag.casefold() != "latest":
            return None
        wanted = f"models--{name.namespace}--{name.model}".lower()
        folders = (folder for folder in cache_folder().glob(FOLDERS) if folder.name.lower() == wanted)
        return next((record for folder in folders if (record := self._record(folder)) is not None), None)

    def _record(self, folder: Path) -> ModelRecord | None:
        owner, _, model = folder.name.removeprefix("models--").partition("--")
        try:
            snapshot = _snapshot(folder)
            name = ModelName.parse(f"{HOST}/{owner}/{model}")
            return _record(name, snapshot) if snapshot is not None else None
        except (CorectlError, OSError) as exc:
            log.debug("%s of the Hugging Face cache is left out: %s", folder.name, exc)
            return None


def _snapshot(folder: Path) -> Path | None:
    """The files of the revision that is called main, or else of the newest; None if there are no weights."""
    try:
        revision = read_small(folder / "refs" / "main", 256).decode("ascii", "replace").strip()
    except OSError:
        revision = ""
    found = folder / "snapshots" / revision
    if not _REVISION.fullmatch(revision) or not found.is_dir():
        every = sorted((folder / "snapshots").glob("*"), key=lambda path: path.stat().st_mtime)
        if not every:
            return None
        found = every[-1]
    complete = (found / "config.json").exists() and any(found.glob(f"*{WEIGHTS}"))
    return found if complete else None


def _record(name: ModelName, snapshot: Path) -> ModelRecord:
    wanted = [path for path in sorted(snapshot.iterdir()) if path.name.endswith((WEIGHTS, *BESIDE))]
    wanted.sort(key=lambda path: not path.name.endswith(WEIGHTS))
    layers = tuple(map(_layer, wanted))
    named = {layer.name: layer.path for layer in layers}
    config = _config(ModelFiles(weights=layers[0].path, named=named))
    encoded = msgspec.json.encode(config)
    bound = Layer(
        media_type=CONFIG_TYPE, digest=f"sha256:{hashlib.sha256(encoded).hexdigest()}", size=len(encoded)
    )
    listed = tuple(
        Layer(media_type=layer.media_type, digest=layer.digest, size=layer.size, name=layer.name)
        for layer in layers
    )
    manifest = msgspec.json.encode(Manifest(config=bound, layers=listed))
    return ModelRecord(
        name=name,
        digest=hashlib.sha256(manifest).hexdigest(),
        size=sum(layer.size for layer in layers) + bound.size,
        modified_at=datetime.fromtimestamp(snapshot.stat().st_mtime, UTC),
        config=config,
        layers=layers,
        origin="the Hugging Face cache",
    )


def _layer(path: Path) -> StoredLayer:
    status = path.stat()
    target = path.resolve()
    digest = (
        target.name if _SHA256.fullmatch(target.name) else _hash(target, status.st_size, status.st_mtime_ns)
    )
    kind = MediaType.MODEL if path.name.endswith(WEIGHTS) else MediaType.JSON
    return StoredLayer(
        media_type=kind, digest=f"sha256:{digest}", size=status.st_size, path=path, name=path.name
    )


def _config(files: ModelFiles) -> ModelConfig:
    """What `corectl list` shows; the format's plugin says the rest when the model is used."""
    config = config_of(files)
    family = config.get("model_type")
    quantization = config.get("quantization")
    bits = whole_number(quantization.get("bits")) if isinstance(quantization, dict) else 0
    kind = config.get("torch_dtype") or config.get("dtype")
    names = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}
    return ModelConfig(
        model_format="safetensors",
        model_family=family if isinstance(family, str) else "",
        model_families=(family,) if isinstance(family, str) else None,
        file_type=f"int{bits}" if bits else names.get(str(kind), ""),
        context_length=whole_number(config.get("max_position_embeddings")),
        embedding_length=whole_number(config.get("hidden_size")),
    )


@lru_cache(maxsize=256)
def _hash(path: Path, size: int, mtime_ns: int) -> str:
    """The file's SHA-256 (hex); size and time of change are part of the key only."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
