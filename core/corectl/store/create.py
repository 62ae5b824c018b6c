"""Creates models: from another model, from uploaded files, or as a stub for a model that runs elsewhere.

Nothing is visible before the manifest replaces its predecessor in one step; what fails leaves no blob behind.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from corectl.errors import BadRequest, CorectlError, NotFound
from corectl.messages import Message
from corectl.model.details import human_number
from corectl.model.manifest import Layer, MediaType, ModelConfig
from corectl.model.name import ModelName, parse_reference
from corectl.model.record import ModelRecord
from corectl.store.catalog import Catalog
from corectl.store.encoding import layer_json
from corectl.store.folder import Folder, Importer, quantized, read_folder
from corectl.store.named_templates import NamedTemplate, detect
from corectl.store.remote import CLOUD, remote_url
from corectl.store.request import check_requires, config_of_info, normal_license, normal_parameters
from corectl.store.weights import Weights, check_quantize, is_gguf, read_adapter, read_files

Report = Callable[[str], None]


class CreateSpec(msgspec.Struct, frozen=True, kw_only=True):
    """A create request. `files` and `adapters` map file names to digests of blobs; None means not given.

    `license` is a text or a list of texts. Empty texts leave what the base model has.
    """

    model: str
    from_: str = ""
    files: dict[str, str] | None = None
    adapters: dict[str, str] | None = None
    template: str = ""
    system: str = ""
    license: Any = None
    parameters: dict[str, Any] = {}
    messages: tuple[Message, ...] = ()
    quantize: str = ""
    renderer: str = ""
    parser: str = ""
    requires: str = ""
    info: dict[str, Any] = {}
    remote_host: str = ""


def create(
    catalog: Catalog,
    spec: CreateSpec,
    report: Report,
    *,
    check_template: Callable[[str], None] | None = None,
    importer: Importer | None = None,
) -> ModelName:
    """Create the model that `spec` asks for; returns its name as stored. `report` is called with each status.

    `check_template` raises for a template that does not parse; `importer` knows about files that are not GGUF.
    Raises `BadRequest` (nothing is changed then), `BadModelFile`, `NotFound` if `from_` names no model here,
    `NotSupported`, `OSError`.
    """
    name = ModelName.parse(spec.model)
    # Held throughout: a delete in between could take a blob that was just found to exist.
    with catalog.lock:
        draft = _Draft(catalog, spec, report, importer)
        try:
            draft.start()
            draft.describe(check_template)
            return draft.finish(name)
        except BaseException:
            catalog.discard(draft.created)
            raise


class _Draft:
    """A model in the making: its layers in order, its config, and the blobs that did not exist before."""

    def __init__(self, catalog: Catalog, spec: CreateSpec, report: Report, importer: Importer | None) -> None:
        self.created: list[str] = []
        self._importer = importer
        self._catalog = catalog
        self._spec = spec
        self._report = report
        self._layers: list[Layer] = []
        self._unreported: list[str] = []
        self._parameters: dict[str, Any] = {}
        self._config = ModelConfig()

    def start(self) -> None:
        """Take the weights and everything else that the base brings."""
        spec = self._spec
        check_requires(spec.requires)
        info = config_of_info(spec.info)
        reference = parse_reference(spec.from_) if spec.from_ else None
        if spec.remote_host or (reference is not None and reference.source == "cloud"):
            if reference is None:
                raise BadRequest("bad remote")
            host = remote_url(spec.remote_host) if spec.remote_host else CLOUD
            self._config = _config_with(info, remote_host=host, remote_model=reference.base)
        elif reference is None and spec.files is None:
            raise BadRequest("neither 'from' or 'files' was specified")
        else:
            self._config = info
            if reference is not None:
                self._take_model(reference.name)
            if spec.files is not None:
                self._take_files(spec.files, has_base=reference is not None)
            self._take_adapter()
        self._config = _config_with(self._config, architecture="amd64", os="linux")

    def _take_model(self, name: ModelName) -> None:
        record = self._catalog.find(name)
        if record is None:
            raise NotFound(f"model '{name.short}' not found")
        self._refuse_quantize(record)
        self._parameters = dict(record.parameters)
        for layer in self._catalog.adopt(record, self.created):
            if layer.media_type == MediaType.PARAMS:
                continue
            if layer.media_type == MediaType.MODEL:
                layer = msgspec.structs.replace(layer, from_=record.name.short)
            self._layers.append(layer)
            self._unreported.append(_status(layer.digest, layer.digest in self.created))
        inherited = {key: value for key, value in msgspec.structs.asdict(record.config).items() if value}
        if self._config.capabilities is not None:
            inherited.pop("capabilities", None)
        self._config = _config_with(self._config, **inherited)

    def _refuse_quantize(self, record: ModelRecord) -> None:
        if self._spec.quantize:
            check_quantize(self._spec.quantize, record.config.file_type)

    def _take_files(self, files: dict[str, str], *, has_base: bool) -> None:
        if not is_gguf(self._catalog.blobs, files) and self._importer is not None:
            folder = read_folder(self._catalog.blobs, files, self._importer)
            if folder is not None:
                self._take_folder(folder, self._importer, has_base=has_base)
                return
        found = read_files(self._catalog.blobs, files, self._report)
        if has_base and any(part.media_type == MediaType.MODEL for part in found):
            raise BadRequest("both 'from' and 'files' bring model weights")
        if not has_base and not any(part.media_type == MediaType.MODEL for part in found):
            raise BadRequest("the files hold no model weights")
        if self._spec.quantize and not has_base:
            check_quantize(self._spec.quantize, next(part for part in found if part.is_model).file_type)
        self._report("verifying conversion")
        for part in found:
            self._layers.append(part.layer)
            self._report(_status(part.layer.digest, False))
            self._describe_weights(part)

    def _take_folder(self, folder: Folder, importer: Importer, *, has_base: bool) -> None:
        if has_base:
            raise BadRequest("both 'from' and 'files' bring model weights")
        if target := self._spec.quantize.lower():
            self._report(f"quantizing {folder.found.description.quantization} model to {target}")
            folder = quantized(self._catalog.blobs, folder, target, importer, self.created)
        format, says = folder.found.format, folder.found.description
        for layer in folder.layers:
            self._layers.append(layer)
            self._report(_status(layer.digest, False))
        self._config = _config_with(
            self._config,
            model_format=format,
            model_family=says.architecture,
            model_families=(says.architecture,),
            model_type=human_number(says.parameter_count),
            file_type=says.quantization,
            context_length=says.context_length,
            embedding_length=says.embedding_length,
        )
        self._take_template(detect(says.chat_template))

    def _describe_weights(self, part: Weights) -> None:
        families = tuple(dict.fromkeys((*(self._config.model_families or ()), part.family)))
        if not part.is_model:
            if part.media_type == MediaType.PROJECTOR:
                self._config = _config_with(self._config, model_families=families)
            return
        self._config = _config_with(
            self._config,
            model_format="gguf",
            model_family=part.family,
            model_families=families,
            model_type=part.model_type,
            file_type=part.file_type,
        )
        self._take_template(part.template)

    def _take_template(self, known: NamedTemplate | None) -> None:
        if known is not None:
            self._report(f"using autodetected template {known.name}")
            self._set(MediaType.TEMPLATE, known.template.encode())
            self._unreported.pop()  # the line above says it
            self._parameters["stop"] = list(known.stop)

    def _take_adapter(self) -> None:
        if self._spec.adapters:
            layers = read_adapter(
                self._catalog.blobs,
                self._spec.adapters,
                self._report,
                base_format=self._config.model_format,
            )
            self._remove(MediaType.ADAPTER)
            self._layers += layers
            self._unreported += [_status(layer.digest, False) for layer in layers]

    def describe(self, check_template: Callable[[str], None] | None) -> None:
        """Lay what the request gives over what the base brought."""
        spec = self._spec
        if spec.template:
            if check_template is not None:
                _check(check_template, spec.template)
            self._set(MediaType.TEMPLATE, spec.template.encode())
        if spec.system:
            self._set(MediaType.SYSTEM, spec.system.encode())
        known = {layer.digest for layer in self._layers if layer.media_type == MediaType.LICENSE}
        for text in normal_license(spec.license):
            self._add_license(text.encode(), known)
        self._parameters |= normal_parameters(spec.parameters)
        if self._parameters:
            self._set(MediaType.PARAMS, layer_json(self._parameters, sort=True))
        if spec.messages:
            self._set(MediaType.MESSAGES, layer_json(spec.messages))
        given = {"renderer": spec.renderer, "parser": spec.parser, "requires": spec.requires}
        self._config = _config_with(self._config, **{key: value for key, value in given.items() if value})

    def finish(self, name: ModelName) -> ModelName:
        for status in self._unreported:
            self._report(status)
        data = self._catalog.manifest_bytes(self._config, self._layers, self.created)
        self._report("writing manifest")
        stored = self._catalog.install(name, data)
        # A template that was detected and then replaced, for one, is in no manifest.
        self._catalog.discard(self.created)
        self._report("success")
        return stored

    def _add_license(self, data: bytes, known: set[str]) -> None:
        layer = self._put(MediaType.LICENSE, data)
        if layer.digest in known:
            self._unreported.pop()
            return
        known.add(layer.digest)
        self._layers.append(layer)

    def _set(self, media_type: MediaType, data: bytes) -> None:
        self._remove(media_type)
        self._layers.append(self._put(media_type, data))

    def _put(self, media_type: MediaType, data: bytes) -> Layer:
        stored = self._catalog.blobs.put(data)
        if stored.created:
            self.created.append(stored.digest)
        self._unreported.append(_status(stored.digest, stored.created))
        return Layer(media_type=media_type, digest=stored.digest, size=stored.size)

    def _remove(self, media_type: MediaType) -> None:
        gone = {layer.digest for layer in self._layers if layer.media_type == media_type}
        self._layers = [layer for layer in self._layers if layer.media_type != media_type]
        self._unreported = [line for line in self._unreported if line.rpartition(" ")[2] not in gone]


def _status(digest: str, created: bool) -> str:
    return f"{'creating new' if created else 'using existing'} layer {digest}"


def _config_with(config: ModelConfig, **changes: Any) -> ModelConfig:
    return msgspec.structs.replace(config, **changes)


def _check(check_template: Callable[[str], None], text: str) -> None:
    try:
        check_template(text)
    except CorectlError as error:
        raise BadRequest(f"template error: {error.message.removeprefix('template error: ')}") from error
