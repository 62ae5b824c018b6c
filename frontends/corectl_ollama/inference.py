"""What generate and chat share: finding the model, checking the request, and running it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
from litestar import Response

from corectl.errors import BadRequest, Forbidden, NotFound
from corectl.messages import Completion, LoadOptions, Prompt, Rendered, SamplingOptions, Think
from corectl.model.name import parse_reference
from corectl.model.record import ModelRecord
from corectl.remote.model import RemoteModel
from corectl.scheduler.state import AnyModel
from corectl.server.body import AnyRequest
from corectl.server.services import Services
from corectl.server.streaming import OpenCompletion, StreamedReply
from corectl.server.watch import while_connected
from corectl_ollama.answer import Answer, Form
from corectl_ollama.replies import NDJSON, Clock, Remote, context_headers, line, reply
from corectl_ollama.schema import InferenceRequest, read_grammar, read_think

CLOUD_DISABLED = "ollama cloud is disabled: remote model is unavailable"


class Settled(msgspec.Struct, frozen=True, kw_only=True):
    """A request whose model is known and whose options are checked."""

    model: AnyModel
    load: LoadOptions
    sampling: SamplingOptions
    keep_alive: float | None
    think: Think


async def find_model(services: Services, name: str, *, missing: Callable[[str], str]) -> ModelRecord:
    """The record for a name in a request. Raises `BadRequest`, `Forbidden` (cloud), `NotFound` (text by `missing`)."""
    reference = parse_reference(name)
    if reference.source == "cloud":
        raise Forbidden(CLOUD_DISABLED)
    record = await services.find(reference.name)
    if record is None:
        raise NotFound(missing(name))
    return record


def single_quoted(name: str) -> str:
    return f"model '{name}' not found"


def try_pulling(name: str) -> str:
    return f'model "{name}" not found, try pulling it first'


def settle(
    services: Services,
    record: ModelRecord,
    body: InferenceRequest,
    keep_alive: float | None,
    *,
    verb: str,
    needs: list[str],
) -> Settled:
    """Checks what the model can do and the options; a remote model's server does the former. Raises `BadRequest`.

    For worker threads: it reads files.
    """
    if record.config.remote_host:
        think = read_think(body.think)
    else:
        think = _check_capabilities(services, record, body, verb=verb, needs=needs)
    model = services.read_model(record)
    load, sampling = services.options(record, body.options)
    return Settled(model=model, load=load, sampling=sampling, keep_alive=keep_alive, think=think)


def _check_capabilities(
    services: Services, record: ModelRecord, body: InferenceRequest, *, verb: str, needs: list[str]
) -> Think:
    """Whether the model is to think: one that can does, unless the request says otherwise."""
    can = services.capabilities(record)
    think = read_think(body.think)
    if (think or body.think_budget is not None) and "thinking" not in can:
        raise BadRequest(f'"{body.model}" does not support thinking')
    if "completion" not in can:
        raise BadRequest(f'"{body.model}" does not support {verb}')
    lacking = [need for need in needs if need not in can]
    if lacking:
        full = record.name.full
        raise BadRequest("\n".join(f"{full} does not support {need}" for need in lacking))
    if think is None and "thinking" in can:
        return True
    return think


def completion(
    services: Services, settled: Settled, body: InferenceRequest, prompt: Prompt, **extra: Any
) -> Completion:
    """The work for a runner. A strict server drops nothing, whatever the request says."""
    strict = services.settings.strict_context
    return Completion(
        prompt=prompt,
        sampling=settled.sampling,
        parser=settled.model.record.config.parser,
        grammar=read_grammar(body.format, body.grammar),
        think_budget=-1 if body.think_budget is None else body.think_budget,
        truncate=body.truncate and not strict,
        shift=body.shift and not strict,
        logprobs=body.logprobs,
        top_logprobs=body.top_logprobs,
        render_only=body.debug_render_only,
        cache_salt=body.cache_salt,
        **extra,
    )


async def load(services: Services, settled: Settled) -> None:
    """Loads the model, and keeps it for as long as the request says."""
    async with services.scheduler.lease(settled.model, settled.load, settled.keep_alive) as lease:
        await lease.runner.ready()


async def run(
    request: AnyRequest,
    services: Services,
    settled: Settled,
    work: Completion,
    form: Form,
    clock: Clock,
    *,
    stream: bool,
) -> Response[Any]:
    """Runs a completion and answers it: streamed, or as one object. An early error gets its own status."""
    if work.render_only:
        prompt = await while_connected(request, _render(services, settled, work, clock))
        return reply(form.rendered(prompt, clock))
    opened = await while_connected(
        request,
        OpenCompletion.open(services.scheduler, settled.model, settled.load, settled.keep_alive, work),
    )
    clock.load, clock.requested_ctx = opened.load_ns, settled.load.num_ctx or 0
    if isinstance(settled.model, RemoteModel):
        form.remote = Remote.of(settled.model.record)
    headers = context_headers(opened.started, clock)
    answer = Answer(form, clock)
    if stream:
        return StreamedReply(
            opened,
            media_type=NDJSON,
            headers=headers,
            encode=answer.lines,
            encode_error=lambda error: line({"error": error.message}),
        )
    try:
        return reply(await while_connected(request, answer.whole(opened)), headers=headers)
    finally:
        await opened.close()


async def _render(services: Services, settled: Settled, work: Completion, clock: Clock) -> Rendered:
    async with services.scheduler.lease(settled.model, settled.load, settled.keep_alive) as lease:
        clock.load, clock.requested_ctx = lease.load_ns, settled.load.num_ctx or 0
        return await lease.runner.render(work)


async def unload(services: Services, record: ModelRecord) -> None:
    await services.scheduler.unload(await services.model(record))
