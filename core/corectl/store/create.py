"""Creates models: from another model, from uploaded files, or as a stub for a model that runs elsewhere.

First everything is read and checked, and what takes long is done: weights are converted and quantised by jobs in a
scratch folder. Only then the store is locked, for as long as it takes to rename files and write small ones. Meanwhile
nobody removes the blobs that the model will need. Nothing is visible before the manifest replaces its predecessor in
one step; what fails leaves no blob behind.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import msgspec

from corectl.errors import BadRequest, CorectlError, NotFound
from corectl.messages import Message
from corectl.model.details import human_number
from corectl.model.files import ModelFiles
from corectl.model.manifest import MediaType, ModelConfig
from corectl.model.name import ModelName, Reference, own_name, parse_reference
from corectl.model.record import ModelRecord
from corectl.progress import Progress, Report
from corectl.store.catalog import Catalog
from corectl.store.encoding import layer_json
from corectl.store.importer import Importer, Wish
from corectl.store.making import Maker
from corectl.store.named_templates import NamedTemplate
from corectl.store.parts import Part, Parts, text_part
from corectl.store.remote import CLOUD, remote_url
from corectl.store.request import check_requires, config_of_info, normal_license, normal_parameters
from corectl.store.weights import GGUF, Beside, Weights, weights_of


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

    @property
    def digests(self) -> list[str]:
        """The blobs that it names."""
        return [*(self.files or {}).values(), *(self.adapters or {}).values()]


def create(
    catalog: Catalog,
    spec: CreateSpec,
    report: Report,
    *,
    importer: Importer,
    check_template: Callable[[str], None] | None = None,
) -> ModelName:
    """Create the model that `spec` asks for; returns its name as stored. `report` hears of each step.

    `importer` knows about formats and runs jobs; `check_template` raises for a template that does not parse. Raises
    `BadRequest` (nothing is changed then), `BadModelFile`, `NotFound` if `from_` names no model here, `NotSupported`,
    `LoadFailed` for a job that failed, `Canceled` when the server stops, and `OSError`.
    """
    name = own_name(spec.model)
    created: list[str] = []
    try:
        with ExitStack() as stack:
            maker = Maker(catalog, importer, report, stack)
            draft = _Draft(catalog, spec, name, maker, report, created)
            draft.start()
            draft.describe(check_template)
            stored = draft.finish()
    except BaseException:
        catalog.discard(created)
        raise
    report(Progress("success"))
    return stored


class _Draft:
    """A model in the making: its layers in order, its config, and the blobs that did not exist before."""

    def __init__(
        self,
        catalog: Catalog,
        spec: CreateSpec,
        name: ModelName,
        maker: Maker,
        report: Report,
        created: list[str],
    ) -> None:
        self._catalog = catalog
        self._spec = spec
        self._name = name
        self._maker = maker
        self._report = report
        self._created = created
        self._parts = Parts()
        self._parameters: dict[str, Any] = {}
        self._config = ModelConfig()
        self._files: ModelFiles | None = None
        """The weights as they are now, for what is made to fit them."""

    def start(self) -> None:
        """Take the weights and everything else that the base brings."""
        spec = self._spec
        check_requires(spec.requires)
        info = config_of_info(spec.info)
        reference = parse_reference(spec.from_) if spec.from_ else None
        if spec.remote_host or (reference is not None and reference.source == "cloud"):
            self._config = _stub(info, reference, spec.remote_host)
        elif reference is None and spec.files is None:
            raise BadRequest("neither 'from' or 'files' was specified")
        else:
            self._config = info
            self._maker.hold(spec.digests)
            if reference is not None:
                self._take_model(reference.name)
            if spec.files is not None:
                self._take_files(spec.files, has_base=reference is not None)
            if spec.adapters:
                self._take_adapter(spec.adapters)
        self._config = _config_with(self._config, architecture="amd64", os="linux")

    def _wish(self) -> Wish:
        given = (self._parameters | self._spec.parameters).get("backend")
        return Wish(
            name=self._name, backend=given if isinstance(given, str) else "", target=self._spec.quantize
        )

    def _take_model(self, name: ModelName) -> None:
        record = self._catalog.find(name)
        if record is None:
            raise NotFound(f"model '{name.short}' not found")
        record.check()
        self._maker.hold(layer.digest for layer in record.layers)
        if not all(layer.path.is_file() for layer in record.layers):
            raise NotFound(f"files of '{record.name.short}' are missing; pull or create it again")
        self._parameters = dict(record.parameters)
        self._files = record.files
        inherited = {key: value for key, value in msgspec.structs.asdict(record.config).items() if value}
        if self._spec.quantize and record.files is not None:
            weights = weights_of(record, record.files)
            made = self._maker.finished(weights, self._wish())
            if made is not weights:
                self._take_made(made)
                record = _without_weights(record)
                inherited |= {"file_type": made.kind, "model_format": made.format}
        self._take_layers(record)
        if self._config.capabilities is not None:
            inherited.pop("capabilities", None)
        self._config = _config_with(self._config, **inherited)

    def _take_layers(self, record: ModelRecord) -> None:
        """Everything but the parameters, which are laid over one another."""
        before = len(self._created)
        for layer in self._catalog.adopt(record, self._created):
            if layer.media_type == MediaType.PARAMS:
                continue
            weights = layer.media_type == MediaType.MODEL
            self._parts.add(
                Part(
                    media_type=layer.media_type,
                    digest=layer.digest,
                    size=layer.size,
                    name=layer.name,
                    from_=record.name.short if weights else layer.from_,
                    new=layer.digest in self._created[before:],
                )
            )

    def _take_files(self, files: dict[str, str], *, has_base: bool) -> None:
        found = self._maker.read(files)
        if has_base and found.model is not None:
            raise BadRequest("both 'from' and 'files' bring model weights")
        if found.model is None:
            if not has_base:
                raise BadRequest("the files hold no model weights")
            self._report(Progress("verifying conversion"))
        else:
            self._take_weights(self._maker.finished(found.model, self._wish()))
        for beside in found.beside:
            self._take_beside(beside)

    def _take_made(self, made: Weights) -> None:
        """Weights that were checked, in the place of all others."""
        self._report(Progress("verifying conversion"))
        self._files = made.files
        self._parts.add(*made.parts)

    def _take_weights(self, weights: Weights) -> None:
        self._take_made(weights)
        says = weights.description
        self._config = _config_with(
            self._config,
            model_format=weights.format,
            model_family=says.architecture,
            model_families=weights.families,
            model_type=human_number(says.parameter_count),
            file_type=says.quantization,
            context_length=says.context_length,
            embedding_length=says.embedding_length,
        )
        self._take_template(weights.template)

    def _take_beside(self, beside: Beside) -> None:
        self._parts.add(beside.part)
        if beside.part.media_type == MediaType.PROJECTOR:
            families = dict.fromkeys((*(self._config.model_families or ()), beside.family))
            self._config = _config_with(self._config, model_families=tuple(families))

    def _take_template(self, known: NamedTemplate | None) -> None:
        if known is not None:
            self._parts.say(f"using autodetected template {known.name}")
            self._parts.replace(text_part(MediaType.TEMPLATE, known.template.encode(), told=False))
            self._parameters["stop"] = list(known.stop)

    def _take_adapter(self, adapters: dict[str, str]) -> None:
        if self._files is None:
            raise BadRequest(
                "an adapter needs weights, and this model has none here; give files, or another 'from'"
            )
        format = self._config.model_format or GGUF
        self._parts.replace(*self._maker.adapter(adapters, self._files, format))

    def describe(self, check_template: Callable[[str], None] | None) -> None:
        """Lay what the request gives over what the base brought."""
        spec = self._spec
        if spec.template:
            if check_template is not None:
                _check(check_template, spec.template)
            self._parts.replace(text_part(MediaType.TEMPLATE, spec.template.encode()))
        if spec.system:
            self._parts.replace(text_part(MediaType.SYSTEM, spec.system.encode()))
        known = self._parts.digests(MediaType.LICENSE)
        for text in normal_license(spec.license):
            part = text_part(MediaType.LICENSE, text.encode())
            if part.digest not in known:
                known.add(part.digest)
                self._parts.add(part)
        self._parameters |= normal_parameters(spec.parameters)
        if self._parameters:
            self._parts.replace(text_part(MediaType.PARAMS, layer_json(self._parameters, sort=True)))
        if spec.messages:
            self._parts.replace(text_part(MediaType.MESSAGES, layer_json(spec.messages)))
        given = {"renderer": spec.renderer, "parser": spec.parser, "requires": spec.requires}
        self._config = _config_with(self._config, **{key: value for key, value in given.items() if value})

    def finish(self) -> ModelName:
        """Store what is not stored yet, and make it a model. The store is locked meanwhile."""
        with self._catalog.lock:
            self._maker.let_go()
            layers = self._parts.store(self._catalog.blobs, self._report, self._created)
            data = self._catalog.manifest_bytes(self._config, layers, self._created)
            self._report(Progress("writing manifest"))
            return self._catalog.install(self._name, data)


def _stub(info: ModelConfig, reference: Reference | None, remote_host: str) -> ModelConfig:
    """The config of a model that runs elsewhere. Raises `BadRequest`."""
    if reference is None:
        raise BadRequest("bad remote")
    host = remote_url(remote_host) if remote_host else CLOUD
    return _config_with(info, remote_host=host, remote_model=reference.base)


def _without_weights(record: ModelRecord) -> ModelRecord:
    layers = tuple(
        layer for layer in record.layers if layer.media_type not in (MediaType.MODEL, MediaType.JSON)
    )
    return msgspec.structs.replace(record, layers=layers)


def _config_with(config: ModelConfig, **changes: Any) -> ModelConfig:
    return msgspec.structs.replace(config, **changes)


def _check(check_template: Callable[[str], None], text: str) -> None:
    try:
        check_template(text)
    except CorectlError as error:
        raise BadRequest(f"template error: {error.message.removeprefix('template error: ')}") from error
