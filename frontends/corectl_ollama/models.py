"""Routes about models on this machine: tags, show, ps, copy, delete."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
from litestar import Response

from corectl.errors import BadRequest, CorectlError, Forbidden, LoadFailed, NotFound
from corectl.messages import Message, Notice
from corectl.model.details import Details, details_of, gguf_parts, model_info, tensor_list
from corectl.model.formats import TensorSummary
from corectl.model.manifest import MediaType
from corectl.model.modelfile import parameters_text, show_modelfile, template_text
from corectl.model.name import ModelName, own_name, parse_reference, split_source
from corectl.model.record import ModelRecord
from corectl.scheduler.state import LoadedModel
from corectl.server.inference import not_found
from corectl.server.services import Services, require_name
from corectl.store.catalog import Catalog
from corectl_ollama.replies import local_time, reply
from corectl_ollama.schema import CopyRequest, DeleteRequest, ShowRequest

log = logging.getLogger(__name__)

FOREVER = timedelta(days=292 * 365)
"""How far ahead `expires_at` lies for a model that stays loaded; clients show it as "Forever"."""


class TagEntry(msgspec.Struct, kw_only=True, omit_defaults=True):
    name: str
    model: str
    modified_at: str
    size: int
    digest: str
    details: Details
    remote_model: str = ""
    remote_host: str = ""
    capabilities: list[str] = []


class TagsReply(msgspec.Struct):
    models: list[TagEntry]


class BackendSummary(msgspec.Struct, kw_only=True, omit_defaults=True):
    """Our addition: what would load the model now, how it computes, and why it; or why nothing can."""

    name: str = ""
    variant: str = ""
    reason: str


class ShowReply(msgspec.Struct, kw_only=True, omit_defaults=True):
    details: Details
    model_info: dict[str, Any]
    modified_at: str
    license: str = ""
    modelfile: str = ""
    parameters: str = ""
    template: str = ""
    system: str = ""
    messages: list[Message] = []
    remote_model: str = ""
    remote_host: str = ""
    projector_info: dict[str, Any] = {}
    tensors: list[TensorSummary] = []
    capabilities: list[str] = []
    requires: str = ""
    origin: str = ""
    backend: BackendSummary | None = None


class RunnerCounts(msgspec.Struct, kw_only=True):
    """Our addition: what the runner has done. `largest_step` is the most sequences of one engine step."""

    pid: int
    backend: str
    variant: str
    backend_reason: str
    steps: int
    step_sequences: int
    step_tokens: int
    largest_step: int


class DeviceMemory(msgspec.Struct, kw_only=True):
    """Bytes on one device: as they were estimated before the load, and as they were measured after it."""

    device: str
    estimated: int
    measured: int


class PsEntry(msgspec.Struct, kw_only=True):
    """`memory`, `warnings` and `runner` are additions of ours."""

    name: str
    model: str
    size: int
    digest: str
    details: Details
    expires_at: str
    size_vram: int
    context_length: int
    memory: list[DeviceMemory]
    warnings: list[Notice]
    runner: RunnerCounts


class PsReply(msgspec.Struct):
    models: list[PsEntry]


async def tags(services: Services) -> Response[bytes]:
    records = await services.list()
    entries = await asyncio.to_thread(
        lambda: [entry for record in records if (entry := _tag(services, record))]
    )
    return reply(TagsReply(entries))


def _tag(services: Services, record: ModelRecord) -> TagEntry | None:
    """One line of the list; None, and a warning, for a model whose files are damaged.

    One that uses a file where it lies is there in any case, for somebody to find and remove.
    """
    try:
        return TagEntry(
            name=record.name.short,
            model=record.name.short,
            modified_at=local_time(record.modified_at),
            size=record.size,
            digest=record.digest,
            details=details_of(record, lengths=not record.problem),
            remote_model=record.config.remote_model,
            remote_host=record.config.remote_host,
            capabilities=[] if record.problem else services.capabilities(record),
        )
    except (CorectlError, OSError) as exc:
        log.warning("%s is left out of the list: %s", record.name.short, exc)
        return None


async def show(services: Services, body: ShowRequest) -> Response[bytes]:
    reference = parse_reference(require_name(body.model or body.name))
    if reference.source == "cloud":
        raise Forbidden("ollama cloud is disabled: remote model details are unavailable")
    record = await services.find(reference.name)
    if record is None:
        raise NotFound(not_found(reference.name.short))
    record.check()
    if record.config.remote_host:
        record = await services.remotes.described(record)
    try:
        return reply(await asyncio.to_thread(_show, services, record, body))
    except OSError as exc:
        raise LoadFailed(f"a file of {reference.name.short} cannot be read: {exc.strerror}") from exc


def _show(services: Services, record: ModelRecord, body: ShowRequest) -> ShowReply:
    projectors = record.paths(MediaType.PROJECTOR)
    more = services.details(record)
    return ShowReply(
        details=details_of(record),
        model_info={**model_info(record, verbose=body.verbose), **more.metadata},
        modified_at=local_time(record.modified_at),
        license="\n".join(record.licenses),
        modelfile=show_modelfile(record, system=body.system, options=body.options),
        parameters=parameters_text({**record.parameters, **body.options}),
        template=template_text(record),
        system=body.system or record.system or "",
        messages=list(record.messages),
        remote_model=record.config.remote_model,
        remote_host=record.config.remote_host,
        projector_info=model_info(projectors[0], verbose=body.verbose) if projectors else {},
        tensors=[*tensor_list(gguf_parts(record)), *more.tensors],
        capabilities=services.capabilities(record),
        requires=record.config.requires,
        origin="" if record.origin == "store" else record.origin,
        backend=_backend(services, record) if record.weights or record.config.remote_host else None,
    )


def _backend(services: Services, record: ModelRecord) -> BackendSummary:
    try:
        if record.config.remote_host:
            elsewhere = services.remotes.model(record)
            return BackendSummary(name=elsewhere.server.backend, variant="", reason=elsewhere.reason)
        choice = services.backend(record)
    except CorectlError as exc:
        return BackendSummary(reason=exc.message)
    return BackendSummary(name=choice.backend.name, variant=choice.variant, reason=choice.reason)


async def ps(services: Services) -> Response[bytes]:
    return reply(PsReply([_ps(model) for model in services.scheduler.loaded()]))


def _ps(model: LoadedModel) -> PsEntry:
    name = model.record.name.short
    return PsEntry(
        name=name,
        model=name,
        size=model.info.memory,
        digest=model.record.digest,
        details=details_of(model.record),
        expires_at=local_time(model.expires_at or datetime.now(UTC) + FOREVER),
        size_vram=model.info.gpu_memory,
        context_length=model.info.num_ctx,
        memory=_memory(model),
        warnings=list(model.notices),
        runner=RunnerCounts(
            pid=model.pid,
            backend=model.backend,
            variant=model.variant,
            backend_reason=model.backend_reason,
            steps=model.stats.steps,
            step_sequences=model.stats.sequences,
            step_tokens=model.stats.tokens,
            largest_step=model.stats.largest,
        ),
    )


def _memory(model: LoadedModel) -> list[DeviceMemory]:
    estimated = {use.device: use.total for use in model.placement.estimated}
    measured = {use.device: use.total for use in model.info.measured}
    return [
        DeviceMemory(device=id, estimated=estimated.get(id, 0), measured=measured.get(id, 0))
        for id in estimated | measured
    ]


async def copy(services: Services, body: CopyRequest) -> Response[bytes]:
    source = _checked(body.source, f'source "{body.source}" is invalid')
    destination = _checked(body.destination, f'destination "{body.destination}" is invalid', own_name)
    if await services.find(source) is None:
        raise NotFound(f'model "{body.source}" not found')
    await asyncio.to_thread(services.catalog.copy, source, destination)
    return Response(b"", status_code=200)


async def delete(services: Services, body: DeleteRequest) -> Response[bytes]:
    asked = require_name(body.model or body.name)
    names = [_checked(asked, f'name "{asked}" is invalid')]
    base, source = split_source(asked)
    if source == "local":
        # One with that very tag comes first.
        names.append(ModelName.parse(base))
    try:
        # Not looked up before: a model with a damaged manifest can be removed, too.
        await asyncio.to_thread(_delete_first, services.catalog, names)
    except NotFound as exc:
        raise NotFound(not_found(asked)) from exc
    return Response(b"", status_code=200)


def _delete_first(catalog: Catalog, names: Sequence[ModelName]) -> None:
    try:
        catalog.delete(names[0])
    except NotFound:
        catalog.delete(names[-1])


def _checked(text: str, message: str, parse: Callable[[str], ModelName] = ModelName.parse) -> ModelName:
    split_source(text)
    try:
        return parse(text)
    except BadRequest as exc:
        raise BadRequest(message) from exc
