"""What every frontend of chats needs: finding the model, settling what it is asked, and opening the completion."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import msgspec

from corectl.errors import BadRequest, Forbidden, NotFound
from corectl.messages import (
    ChatPrompt,
    Completion,
    LoadOptions,
    Message,
    Prompt,
    Rendered,
    SamplingOptions,
    Think,
    Tool,
)
from corectl.model.name import ModelName, parse_reference
from corectl.model.record import ModelRecord
from corectl.scheduler.state import AnyModel
from corectl.server.body import AnyRequest
from corectl.server.context import Clock
from corectl.server.services import Services
from corectl.server.streaming import OpenCompletion
from corectl.server.watch import while_connected

T = TypeVar("T")

CLOUD_DISABLED = "ollama cloud is disabled: remote model is unavailable"


class Settled(msgspec.Struct, frozen=True, kw_only=True):
    """A request whose model is known and whose options are checked."""

    model: AnyModel
    load: LoadOptions
    sampling: SamplingOptions
    keep_alive: float | None
    think: Think


def not_found(name: str) -> str:
    """What most clients know as the text of a model that is not here."""
    return f"model '{name}' not found"


async def find_model(
    services: Services, name: str, *, missing: Callable[[str], str] = not_found
) -> ModelRecord:
    """The record for a name in a request. Raises `BadRequest`, `Forbidden` (cloud), `NotFound` (text by `missing`)."""
    return await find_and_read(services, name, lambda record: record, missing=missing)


def _local_name(name: str) -> ModelName:
    reference = parse_reference(name)
    if reference.source == "cloud":
        raise Forbidden(CLOUD_DISABLED)
    return reference.name


async def find_and_read(
    services: Services,
    name: str,
    read: Callable[[ModelRecord], T],
    *,
    missing: Callable[[str], str] = not_found,
) -> T:
    """What `read` makes of the record for a name; it is called on a worker thread. Raises as `find_model` does.

    All in one visit: each way to a worker thread and back takes longer than the reading.
    """
    local = _local_name(name)

    def work() -> T:
        record = services.catalog.find(local)
        if record is None:
            raise NotFound(missing(name))
        return read(record)

    return await asyncio.to_thread(work)


def chat_needs(messages: Sequence[Message], *, tools: bool) -> list[str]:
    """The capabilities that a chat takes of its model besides that of answering."""
    images = any(message.images for message in messages)
    return (["tools"] if tools else []) + (["vision"] if images else [])


def settle(
    services: Services,
    record: ModelRecord,
    *,
    name: str,
    options: dict[str, Any],
    keep_alive: float | None,
    think: Think,
    think_budget: int | None = None,
    verb: str,
    needs: Sequence[str],
) -> Settled:
    """Checks what the model can do and the options; a remote model's server does the former. Raises `BadRequest`.

    `name` is what the request calls the model, `verb` what it wants of it, and `needs` the capabilities that it takes
    besides. For worker threads: it reads files.
    """
    if not record.config.remote_host:
        thinking = bool(think) or think_budget is not None
        think = _check_capabilities(services, record, name, think, thinking, verb, needs)
    model = services.read_model(record)
    load, sampling = services.options(record, options)
    return Settled(model=model, load=load, sampling=sampling, keep_alive=keep_alive, think=think)


def _check_capabilities(
    services: Services,
    record: ModelRecord,
    name: str,
    think: Think,
    thinking: bool,
    verb: str,
    needs: Sequence[str],
) -> Think:
    """Whether the model is to think: one that can does, unless the request says otherwise."""
    can = services.capabilities(record)
    if thinking and "thinking" not in can:
        raise BadRequest(f'"{name}" does not support thinking')
    if "completion" not in can:
        raise BadRequest(f'"{name}" does not support {verb}')
    lacking = [need for need in needs if need not in can]
    if lacking:
        full = record.name.full
        raise BadRequest("\n".join(f"{full} does not support {need}" for need in lacking))
    if think is None and "thinking" in can:
        return True
    return think


def chat_prompt(
    services: Services, settled: Settled, messages: Sequence[Message], tools: tuple[Tool, ...]
) -> ChatPrompt:
    """The model's SYSTEM (unless the request has its own in front), its MESSAGEs, then the request's.

    For worker threads, as `settle` is.
    """
    record = settled.model.record
    own_system = messages[0].role == "system"
    head = [Message(role="system", content=record.system)] if record.system and not own_system else []
    return ChatPrompt(
        template=services.template(settled.model),
        messages=(*head, *record.messages, *messages),
        given=len(messages),
        tools=tools,
        think=settled.think,
    )


def completion(
    services: Services,
    settled: Settled,
    prompt: Prompt,
    *,
    truncate: bool = True,
    shift: bool = True,
    fields: Mapping[str, Any],
) -> Completion:
    """The work for a runner; `fields` are further ones of `Completion`.

    A strict server drops nothing, whatever the request says.
    """
    strict = services.settings.strict_context
    return Completion(
        prompt=prompt,
        sampling=settled.sampling,
        parser=settled.model.record.config.parser,
        truncate=truncate and not strict,
        shift=shift and not strict,
        **fields,
    )


async def open_completion(
    request: AnyRequest, services: Services, settled: Settled, work: Completion, clock: Clock
) -> OpenCompletion:
    """Starts a completion, until its prompt has been fitted, and notes how long its model took to be ready.

    A client that leaves meanwhile ends it. It must be closed; see `OpenCompletion`.
    """
    opened = await while_connected(
        request,
        OpenCompletion.open(services.scheduler, settled.model, settled.load, settled.keep_alive, work),
    )
    clock.load, clock.requested_ctx = opened.load_ns, settled.load.num_ctx or 0
    return opened


async def render(services: Services, settled: Settled, work: Completion, clock: Clock) -> Rendered:
    """The prompt that a completion comes to, by the model's own runner."""
    async with services.scheduler.lease(settled.model, settled.load, settled.keep_alive) as lease:
        clock.load, clock.requested_ctx = lease.load_ns, settled.load.num_ctx or 0
        return await lease.runner.render(lease.within(work))


async def load(services: Services, settled: Settled) -> None:
    """Loads the model, and keeps it for as long as the request says."""
    async with services.scheduler.lease(settled.model, settled.load, settled.keep_alive) as lease:
        await lease.runner.ready()


async def unload(services: Services, record: ModelRecord) -> None:
    await services.scheduler.unload(await services.model(record))
