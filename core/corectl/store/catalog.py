"""All models that this machine offers: those of the store, and those that registries offer in place."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from hashlib import sha256
from pathlib import Path

import msgspec

from corectl.errors import BadModelFile, BadRequest, CorectlError, NotFound
from corectl.model.files import read_small
from corectl.model.manifest import CONFIG_TYPE, Layer, Manifest, ModelConfig
from corectl.model.name import ModelName
from corectl.model.record import ModelRecord, StoredLayer
from corectl.registry.base import LocalRegistry
from corectl.store.blobs import BlobStore, StoredBlob
from corectl.store.encoding import layer_json
from corectl.store.holds import Holds
from corectl.store.kept_records import KeptRecords, file_states
from corectl.store.local_file import LocalFile
from corectl.store.lock import StoreLock
from corectl.store.manifests import MAX_MANIFEST, ManifestStore, StoredManifest, decode_manifest

_log = logging.getLogger(__name__)

# The class below has a method of the name `list`.
Digests = list[str]
Layers = list[Layer]

_MAX_CONFIG = 1 << 20
# An upload that no manifest names yet may still be waiting for its create request.
_GRACE_S = 3600.0
# A download that broke off goes on where it was, also after a weekend.
_PARTIAL_GRACE_S = 7 * 86400.0
_CONFIG_ALWAYS = ("model_format", "model_family", "model_families", "model_type", "file_type")


class Catalog:
    """Finds, lists, copies and deletes models. Methods block, and may be called from any thread.

    `root` is the models folder. `registries` are a `PluginHost`'s: they neither hang nor raise by mistake. With `prune`
    false no blob is ever removed. `lock` is held by what changes the store; hold it over several calls that belong
    together.
    """

    def __init__(self, root: Path, registries: Sequence[LocalRegistry] = (), *, prune: bool = True) -> None:
        self.blobs = BlobStore(root)
        self.manifests = ManifestStore(root)
        self.lock = StoreLock(root)
        self._holds = Holds(root)
        self._kept = KeptRecords()
        self.verifying = threading.Lock()
        self._registries = tuple(registries)
        self._prune = prune

    def start(self) -> None:
        """Tidy up after earlier runs: old blob names, abandoned files, unneeded blobs. Call it once."""
        try:
            with self.lock:
                self.blobs.rename_legacy()
                if self._prune:
                    self.blobs.remove_leftovers(older_than_s=_GRACE_S, partial_s=_PARTIAL_GRACE_S)
                    self.manifests.remove_leftovers(older_than_s=_GRACE_S)
                    # They may be the first of a pull that was not finished.
                    self._remove_unreferenced(self.blobs.digests(older_than_s=_PARTIAL_GRACE_S))
        except OSError as error:  # it may be somebody else's, to be read only
            _log.warning("the model store is not tidied up: %s", error)

    @contextmanager
    def holding(self, digests: Iterable[str]) -> Iterator[None]:
        """Keep blobs from being removed, by this server or another one, though no manifest needs them yet.

        For what takes long and must not hold the lock: a pull, for one. Raises `OSError`.
        """
        with ExitStack() as stack:
            with self.lock:
                stack.enter_context(self._holds.take(digests))
            yield

    def list(self) -> list[ModelRecord]:
        """All models, newest first. Broken ones are left out with a warning in the log."""
        found: dict[tuple[str, ...], ModelRecord] = {}
        for stored in self.manifests.all()[0]:
            try:
                found.setdefault(stored.name.key, self._record(stored))
            except (CorectlError, OSError) as error:
                _log.warning("skipped %s: %s", stored.name.short, error)
        for record in self._offered():
            found.setdefault(record.name.key, record)
        return sorted(found.values(), key=lambda record: record.modified_at, reverse=True)

    def _offered(self) -> Iterable[ModelRecord]:
        for registry in self._registries:
            yield from registry.list()

    def find(self, name: ModelName) -> ModelRecord | None:
        """The model of that name in any mix of upper and lower case; the stored one comes first.

        Raises `BadModelFile` if its manifest or config is broken.
        """
        try:
            return self._stored(name)
        except NotFound:
            return self._offered_in_place(name)

    def _stored(self, name: ModelName) -> ModelRecord:
        """Nobody holds the lock: what is replaced or removed while it is read is read again."""
        kept = self._kept.find(name)
        if kept is not None:
            return kept
        while True:
            stored = self.manifests.read(name)
            try:
                record = self._record(stored)
                states = file_states(record, self.manifests.path_of(stored.name))
                again = self._record(self.manifests.read(name))
            except BadModelFile:
                if self.manifests.read(name).data == stored.data:
                    raise
                continue
            # What it was made of may have been replaced before its state was taken.
            if again == record:
                self._kept.keep(record, states)
            return record

    def _offered_in_place(self, name: ModelName) -> ModelRecord | None:
        found = (registry.find(name) for registry in self._registries)
        return next((record for record in found if record is not None), None)

    def _offered_unless_stored(self, name: ModelName) -> ModelRecord | None:
        """To be asked before the lock is taken: a registry may wait for another machine."""
        return self._offered_in_place(name) if self.manifests.locate(name) is None else None

    def copy(self, source: ModelName, destination: ModelName) -> None:
        """Give a model a second name; its bytes are shared. A model with that name is replaced.

        Raises `NotFound` with the text `model "X" not found`.
        """
        record = self._offered_unless_stored(source)
        with self.lock:
            if self.manifests.locate(source) is not None:
                self.install(destination, self.manifests.read(source).data)
                return
        if record is None:
            raise NotFound(f'model "{source.short}" not found')
        created: Digests = []
        try:
            # The bytes may have to be copied, which takes as long as it takes: nobody is to wait for that.
            with self.holding(layer.digest for layer in record.layers):
                layers = self.adopt(record, created)
                with self.lock:
                    self.install(destination, self.manifest_bytes(record.config, layers, created))
        except BaseException:
            self.discard(created)
            raise

    def refer(self, file: LocalFile, digest: str) -> StoredBlob:
        """Make an open file a blob where it lies, while nobody tidies up; see `BlobStore.refer`."""
        with self.lock:
            return self.blobs.refer(file, digest)

    def adopt(self, record: ModelRecord, created: Digests) -> Layers:
        """The layers of a model, all of them in the store afterwards. New blobs are added to `created`.

        Raises `BadRequest` for one of the store whose file is not what it was: a digest that is trusted must be right.
        """
        record.check()
        layers = []
        for layer in record.layers:
            if record.origin == "store":
                self.blobs.require(layer.digest)
            elif not self.blobs.exists(layer.digest):
                self.blobs.link_or_copy(layer.path, layer.digest)
                created.append(layer.digest)
            layers.append(
                Layer(
                    media_type=layer.media_type,
                    digest=layer.digest,
                    size=layer.size,
                    from_=layer.from_,
                    name=layer.name,
                )
            )
        return layers

    def manifest_bytes(self, config: ModelConfig, layers: Sequence[Layer], created: Digests) -> bytes:
        """Store the config; returns the manifest of it and `layers`. New blobs are added to `created`.

        Raises `BadRequest` for one of the two that would be too large to be read again.
        """
        values = dict.fromkeys(_CONFIG_ALWAYS, "") | {"model_families": None}
        text = layer_json(values | msgspec.to_builtins(config))
        if len(text) > _MAX_CONFIG:
            raise BadRequest(
                f"the model's config would have {len(text)} bytes; at most {_MAX_CONFIG} can be read"
            )
        stored = self.blobs.put(text)
        if stored.created:
            created.append(stored.digest)
        bound = Layer(media_type=CONFIG_TYPE, digest=stored.digest, size=stored.size)
        data = layer_json(Manifest(config=bound, layers=tuple(layers)))
        if len(data) > MAX_MANIFEST:
            raise BadRequest(
                f"the model's manifest would have {len(data)} bytes; at most {MAX_MANIFEST} can be read"
            )
        return data

    def install(self, name: ModelName, data: bytes) -> ModelName:
        """Store a manifest whose blobs are all here, and remove what only its predecessor needed.

        Returns the name in its stored spelling. Raises `BadModelFile` for a damaged manifest, `BadRequest`
        for one whose blobs are missing.
        """
        manifest = decode_manifest(data)
        with self.lock:
            for layer in (*manifest.layers, manifest.config):
                self.blobs.require(layer.digest)
            before = self._digests(name)
            stored = self.manifests.write(name, data)
            self._remove_unreferenced(before)
            return stored

    def delete(self, name: ModelName) -> None:
        """Remove a model and the blobs that no other one needs.

        Raises `NotFound` (`model 'X' not found`), or `BadRequest` for one that a registry offers in place.
        """
        record = self._offered_unless_stored(name)
        with self.lock:
            if self.manifests.locate(name) is None:
                if record is not None and record.config.remote_host:
                    raise BadRequest(
                        f"model '{record.name.short}' is on another server ({record.config.remote_host}), not in the "
                        "model store; remove it there"
                    )
                if record is not None:
                    raise BadRequest(
                        f"model '{record.name.short}' does not come from the model store, but from {record.origin}; "
                        "remove it there"
                    )
                raise NotFound(f"model '{name.short}' not found")
            before = self._digests(name)
            self.manifests.delete(name)
            self._remove_unreferenced(before)

    def discard(self, digests: Iterable[str]) -> None:
        """Remove blobs that a failed operation made, unless a model has come to need them."""
        with self.lock:
            needed = self._needed()
            if needed is not None:
                self.blobs.remove_unreferenced(digests, needed)

    def _digests(self, name: ModelName) -> Digests:
        try:
            return self.manifests.read(name).digests
        except (NotFound, BadModelFile):
            return []

    def _remove_unreferenced(self, digests: Sequence[str]) -> None:
        if not self._prune or not digests:
            return
        needed = self._needed()
        if needed is not None:
            removed = self.blobs.remove_unreferenced(digests, needed)
            _log.info("removed %d blobs that no model needs", len(removed))

    def _needed(self) -> set[str] | None:
        """What models have or anybody holds; None, with a warning, if it is not known."""
        stored, complete = self.manifests.all()
        if not complete:
            _log.warning("no blobs are removed while a manifest cannot be read")
            return None
        try:
            return {digest for manifest in stored for digest in manifest.digests} | self._holds.all()
        except OSError as error:
            _log.warning("no blobs are removed while it is not known what others hold: %s", error)
            return None

    def _record(self, stored: StoredManifest) -> ModelRecord:
        manifest = stored.manifest
        layers = tuple(map(self._layer, manifest.layers))
        return ModelRecord(
            name=stored.name,
            digest=sha256(stored.data).hexdigest(),
            size=sum(layer.size for layer in layers) + manifest.config.size,
            modified_at=stored.modified_at,
            config=self._config(stored),
            layers=layers,
        )

    def _layer(self, layer: Layer) -> StoredLayer:
        path = self.blobs.path_of(layer.digest)
        reference = self.blobs.references.find(path)
        return StoredLayer(
            media_type=layer.media_type,
            digest=layer.digest.replace("-", ":", 1),
            size=layer.size,
            path=path if reference is None else Path(reference.path),
            from_=layer.from_,
            name=layer.name,
            problem="" if reference is None else reference.problem,
        )

    def _config(self, stored: StoredManifest) -> ModelConfig:
        path = self.blobs.path_of(stored.manifest.config.digest)
        try:
            return msgspec.json.decode(read_small(path, _MAX_CONFIG), type=ModelConfig)
        except OSError:
            raise BadModelFile(
                f"the config of '{stored.name.short}' is missing; pull or create the model again"
            ) from None
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise BadModelFile(f"the config of '{stored.name.short}' is damaged: {error}") from None
