"""The manifests of a model store: one file per name, replaced whole."""

from __future__ import annotations

import logging
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from corectl.errors import BadModelFile, BadRequest, NotFound
from corectl.model.files import read_small
from corectl.model.manifest import Manifest
from corectl.model.name import ModelName
from corectl.store.blobs import BlobStore
from corectl.store.disk import sync_directory

_log = logging.getLogger(__name__)

MAX_MANIFEST = 4 << 20
"""Bytes."""
_TEMPORARY = ".tmp-"


class StoredManifest(msgspec.Struct, frozen=True, kw_only=True):
    """A manifest as it lies in the store: `name` in its stored spelling, `data` the exact bytes."""

    name: ModelName
    data: bytes
    manifest: Manifest
    modified_at: datetime

    @property
    def digests(self) -> list[str]:
        """All layers and the config, as `sha256:<hex>`."""
        every = (*self.manifest.layers, self.manifest.config)
        return [layer.digest.replace("-", ":", 1) for layer in every]


def decode_manifest(data: bytes) -> Manifest:
    """The manifest in `data`. Raises `BadModelFile`, also for digests that are not well formed."""
    try:
        manifest = msgspec.json.decode(data, type=Manifest)
        for layer in (manifest.config, *manifest.layers):
            BlobStore(Path()).path_of(layer.digest)
            if layer.size < 0:
                raise BadRequest("a layer has a negative size")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadModelFile(f"the manifest is damaged: {error}") from None
    except BadRequest as error:
        raise BadModelFile(f"the manifest is damaged: {error.message}") from None
    return manifest


class ManifestStore:
    """The folder `manifests` under the models folder `root`. Names are found whatever their case."""

    def __init__(self, root: Path) -> None:
        self._folder = root / "manifests"

    def names(self) -> list[ModelName]:
        """All names with a manifest, whether it can be read or not; other files are passed over."""
        return self._names()[0]

    def _names(self) -> tuple[list[ModelName], bool]:
        """The names, and whether that is all there are: a folder that cannot be listed may have more."""
        found: list[ModelName] = []
        unlisted: list[Path] = []
        for path in _descend(self._folder, 4, unlisted):
            try:
                found.append(ModelName.from_path(path.relative_to(self._folder).parts))
            except BadRequest:
                _log.debug("not a manifest: %s", path)
        return found, not unlisted

    def locate(self, name: ModelName) -> ModelName | None:
        """The stored spelling of `name`, the exact one first; None if there is no such manifest.

        A file system that does not tell cases apart has any spelling.
        """
        if self.path_of(name).is_file():
            return name
        return next(iter(self._matches(name)), None)

    def _matches(self, name: ModelName) -> list[ModelName]:
        folders = [self._folder]
        for part in name.key:
            folders = [path for folder in folders for path in _children(folder, []) if _same(path.name, part)]
        paths = [path.relative_to(self._folder) for path in folders if path.is_file()]
        return [ModelName.from_path(path.parts) for path in paths]

    def read(self, name: ModelName) -> StoredManifest:
        """The manifest of `name`. Raises `NotFound`, `BadModelFile` for a broken one, `OSError`."""
        stored = self.locate(name)
        if stored is None:
            raise NotFound(f"model '{name.short}' not found")
        path = self.path_of(stored)
        try:
            data = read_small(path, MAX_MANIFEST)
            modified = datetime.fromtimestamp(path.stat().st_mtime, UTC)
        except FileNotFoundError:  # deleted meanwhile
            raise NotFound(f"model '{name.short}' not found") from None
        return StoredManifest(name=stored, data=data, manifest=decode_manifest(data), modified_at=modified)

    def all(self) -> tuple[list[StoredManifest], bool]:
        """All manifests that can be read, and whether that is all there are. Broken ones are logged."""
        names, complete = self._names()
        found = []
        for name in names:
            try:
                found.append(self.read(name))
            except NotFound:  # deleted meanwhile
                continue
            except (BadModelFile, OSError) as error:
                complete = False
                _log.warning("skipped the manifest of %s: %s", name.short, error)
        return found, complete

    def write(self, name: ModelName, data: bytes) -> ModelName:
        """Store `data` under `name` in one step; returns the stored spelling. Raises `OSError`."""
        stored = self.locate(name) or name
        target = self.path_of(stored)
        target.parent.mkdir(parents=True, exist_ok=True)
        # The dot keeps the temporary file from being taken for a tag.
        descriptor, temporary = tempfile.mkstemp(prefix=_TEMPORARY, dir=target.parent)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fchmod(descriptor, 0o644)
                os.fsync(descriptor)
            Path(temporary).replace(target)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
        sync_directory(target.parent)
        return stored

    def delete(self, name: ModelName) -> None:
        """Remove the manifest of `name` and the folders this leaves empty. Raises `NotFound`, `OSError`."""
        stored = self.locate(name)
        if stored is None:
            raise NotFound(f"model '{name.short}' not found")
        path = self.path_of(stored)
        path.unlink()
        sync_directory(path.parent)
        for parent in list(path.parents)[:3]:
            try:
                parent.rmdir()
            except OSError:  # not empty, or a link
                break

    def remove_leftovers(self, *, older_than_s: float) -> None:
        """Remove temporary files that nobody has written to for that long."""
        newest = time.time() - older_than_s
        for path in self._folder.glob(f"*/*/*/{_TEMPORARY}*"):
            # Another server may be done with it in this moment.
            with suppress(FileNotFoundError):
                if path.stat().st_mtime <= newest:
                    path.unlink()

    def path_of(self, name: ModelName) -> Path:
        """Where the manifest of a name lies, if it is stored in that spelling."""
        return self._folder / name.relative_path


def _same(name: str, part: str) -> bool:
    # Without the first test a Kelvin sign would be a k.
    return name.isascii() and name.casefold() == part


def _descend(folder: Path, levels: int, unlisted: list[Path]) -> Iterator[Path]:
    for path in _children(folder, unlisted):
        if levels > 1:
            yield from _descend(path, levels - 1, unlisted)
        elif path.is_file():
            yield path


def _children(folder: Path, unlisted: list[Path]) -> list[Path]:
    """What is in a folder; one that may be there and cannot be read is added to `unlisted`."""
    try:
        return sorted(folder.iterdir())
    except NotADirectoryError:
        return []
    except OSError as error:
        # A link to nothing may lead to a disk that is not mounted.
        if not isinstance(error, FileNotFoundError) or folder.is_symlink():
            _log.warning("the manifests in %s cannot be listed: %s", folder, error.strerror)
            unlisted.append(folder)
        return []
