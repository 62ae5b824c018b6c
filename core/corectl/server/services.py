"""What a frontend may use: the models on this machine, and the scheduler that runs them."""

from __future__ import annotations

import asyncio
import builtins
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

from corectl.config import Settings
from corectl.errors import BadRequest, LoadFailed, NotSupported
from corectl.messages import LoadOptions, SamplingOptions, Template
from corectl.model.capabilities import capabilities
from corectl.model.described import Descriptions
from corectl.model.details import gguf_of
from corectl.model.files import ModelFiles
from corectl.model.formats import DetailedFormat, ModelDescription, ModelDetails
from corectl.model.manifest import MediaType
from corectl.model.name import ModelName
from corectl.model.options import read_given_options, read_options
from corectl.model.record import ModelRecord
from corectl.model.templates import Templates, chat_template, fill_template, template_fields
from corectl.plugins import PluginHost
from corectl.remote.model import RemoteModel
from corectl.remote.remotes import Remotes
from corectl.runner.engine import ModelSpec
from corectl.scheduler.backends import Choice, wanted_backend
from corectl.scheduler.machine import Machine
from corectl.scheduler.scheduler import Scheduler
from corectl.scheduler.state import AnyModel, Model
from corectl.server.workshop import Workshop
from corectl.store.catalog import Catalog
from corectl.transfer.service import Transfers

T = TypeVar("T")

DEFAULT_FORMAT = "gguf"


class Services(msgspec.Struct, frozen=True, kw_only=True):
    """One server's parts. Methods that read files do so on worker threads; the event loop is never blocked."""

    settings: Settings
    plugins: PluginHost
    catalog: Catalog
    scheduler: Scheduler
    transfers: Transfers
    remotes: Remotes = msgspec.field(default_factory=lambda: Remotes(Settings(), {}))
    workshop: Workshop = msgspec.field(
        default_factory=lambda: Workshop(Settings(), PluginHost(), Machine(Settings(), PluginHost()))
    )

    descriptions: Descriptions = msgspec.field(default_factory=Descriptions)

    async def find(self, name: ModelName) -> ModelRecord | None:
        """The model of that name, stored or offered by a registry."""
        return await asyncio.to_thread(self.catalog.find, name)

    async def list(self) -> list[ModelRecord]:
        """All models, newest first."""
        return await asyncio.to_thread(self.catalog.list)

    async def reading(self, record: ModelRecord, work: Callable[[], T]) -> T:
        """The result of work that reads a model's files, or makes the way to its server: on a worker thread.

        Where there are no files, and the way is known, it is done at once.
        """
        slow = record.layers or not self.remotes.at_hand(record)
        return await asyncio.to_thread(work) if slow else work()

    async def model(self, record: ModelRecord) -> AnyModel:
        """A record as the scheduler takes it. Raises `BadModelFile`, and `BadRequest` if it may not run there."""
        return await self.reading(record, lambda: self.read_model(record))

    def read_model(self, record: ModelRecord) -> AnyModel:
        """The same for worker threads: it reads files."""
        record.check()
        # Read here, on a worker thread: later they are only looked at.
        for text in ("template", "system", "parameters", "messages"):
            getattr(record, text)
        return self.remotes.model(record) if record.config.remote_host else self._read_weights(record)

    def _read_weights(self, record: ModelRecord) -> Model:
        name, files = record.name.short, record.files
        if files is None:
            raise NotSupported(f"{name} has no weights; create it again")
        format_name = record.config.model_format or DEFAULT_FORMAT
        try:
            description = self._describe(files, format_name)
        except OSError as exc:
            raise LoadFailed(
                f"the weights of {name} cannot be read: {exc.strerror}; create it again"
            ) from exc
        spec = ModelSpec(
            format=format_name,
            weights=files.weights,
            named=files.named,
            projectors=tuple(record.paths(MediaType.PROJECTOR)),
            adapters=tuple(record.paths(MediaType.ADAPTER)),
            adapter_named=record.named(MediaType.ADAPTER),
            embedding=not {"embedding", "rerank"}.isdisjoint(description.capabilities),
        )
        return Model(record=record, spec=spec, description=description)

    def _describe(self, files: ModelFiles, format_name: str) -> ModelDescription:
        kind = self.plugins.formats.get(format_name)
        if kind is None:
            known = ", ".join(sorted(self.plugins.formats)) or "none"
            raise NotSupported(f"no plugin knows the model format {format_name!r}; known: {known}")
        return self.descriptions.of(kind, files)

    def backend(self, record: ModelRecord) -> Choice:
        """The backend that a model would be loaded with now. For worker threads: it may ask the hardware probes.

        Raises `NotSupported`.
        """
        machine, option = self.scheduler.machine, record.parameters.get("backend")
        known = machine.inventory.devices
        return machine.backends.choose(
            format=record.config.model_format or DEFAULT_FORMAT,
            wanted=wanted_backend(self.settings, record.name, option if isinstance(option, str) else None),
            devices=machine.inventory.probe() if known is None else known,
            adapters=bool(record.paths(MediaType.ADAPTER)),
        )

    def options(self, record: ModelRecord, requested: dict[str, Any]) -> tuple[LoadOptions, SamplingOptions]:
        """The options in force for one request. Raises `BadRequest` that names the option."""
        read = read_given_options if record.config.remote_host else read_options
        return read(record.parameters, requested)

    def capabilities(self, record: ModelRecord) -> builtins.list[str]:
        """What a model can do, in a fixed order. For worker threads: it reads files.

        Raises `BadModelFile` and `OSError`.
        """
        files, kind = record.files, self.plugins.formats.get(record.config.model_format)
        foreign = files is not None and kind is not None and gguf_of(record) is None
        description = self.descriptions.of(kind, files) if foreign and kind and files else None
        return capabilities(record, description, prefer_go=self.settings.go_template)

    def details(self, record: ModelRecord) -> ModelDetails:
        """Metadata and tensors of a model in another format than GGUF, as far as its plugin tells. For worker threads.

        Raises `BadModelFile` and `OSError`.
        """
        kind = self.plugins.formats.get(record.config.model_format)
        if record.files is None or gguf_of(record) is not None or not isinstance(kind, DetailedFormat):
            return ModelDetails()
        return kind.details(record.files)

    def embedding_template(self, record: ModelRecord) -> str:
        """The TEMPLATE that each text to embed is put into, such as `search_query: {{ .Prompt }}`, or an empty text.

        One that mentions anything else is for chats; it came with the weights of a decoder.
        """
        text = record.template or ""
        return text if template_fields(text) == {"prompt", "response"} else ""

    def template(self, model: AnyModel, *, suffix: bool = False) -> Template:
        """How the model wants its chats, or its prompts with a suffix; empty where another server knows.

        Raises `BadRequest` for an unknown RENDERER, and `NotSupported` for one that there is nothing for.
        """
        if isinstance(model, RemoteModel):
            return Template(kind="go", text=model.record.template or "")
        templates = Templates(
            config=model.record.config,
            name=model.record.name.model,
            go=model.record.template,
            jinja=model.description.chat_template,
            prefer_go=self.settings.go_template,
        )
        return fill_template(templates) if suffix else chat_template(templates)


def require_name(name: str) -> str:
    """A model name that is there at all. Raises `BadRequest`."""
    if not name:
        raise BadRequest("model is required")
    return name
