"""What generate and chat share: from the native request to a completion, and from that to the reply."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from litestar import Response

from corectl.messages import Completion, Prompt
from corectl.model.record import ModelRecord
from corectl.remote.model import RemoteModel
from corectl.server import inference
from corectl.server.body import AnyRequest
from corectl.server.context import Clock, context_headers
from corectl.server.failures import Failure
from corectl.server.inference import (
    Settled,
    find_and_read,
    find_model,
    load,
    open_completion,
    render,
    unload,
)
from corectl.server.operation import NDJSON
from corectl.server.services import Services
from corectl.server.streaming import StreamedReply
from corectl.server.watch import while_connected
from corectl_ollama.answer import Answer, Form
from corectl_ollama.replies import Remote, line, reply
from corectl_ollama.schema import InferenceRequest, read_grammar, read_think


def settle(
    services: Services,
    record: ModelRecord,
    body: InferenceRequest,
    keep_alive: float | None,
    *,
    verb: str,
    needs: list[str],
) -> Settled:
    """See `corectl.server.inference.settle`."""
    return inference.settle(
        services,
        record,
        name=body.model,
        options=body.options,
        keep_alive=keep_alive,
        think=read_think(body.think),
        think_budget=body.think_budget,
        verb=verb,
        needs=needs,
    )


async def load_or_unload(
    request: AnyRequest,
    services: Services,
    name: str,
    keep_alive: float | None,
    read: Callable[[ModelRecord], Settled],
    form: Form,
) -> Response[Any]:
    """Answers a request without a prompt: it loads the model, or ends it if it is to be kept for no time."""
    if keep_alive == 0:
        await unload(services, await find_model(services, name))
        return reply(form.done("unload"))
    settled = await find_and_read(services, name, read)
    await while_connected(request, load(services, settled))
    return reply(form.done("load"))


def completion(
    services: Services, settled: Settled, body: InferenceRequest, prompt: Prompt, **extra: Any
) -> Completion:
    """See `corectl.server.inference.completion`."""
    fields = {
        "grammar": read_grammar(body.format, body.grammar),
        "think_budget": -1 if body.think_budget is None else body.think_budget,
        "logprobs": body.logprobs,
        "top_logprobs": body.top_logprobs,
        "render_only": body.debug_render_only,
        "cache_salt": body.cache_salt,
        **extra,
    }
    return inference.completion(
        services, settled, prompt, truncate=body.truncate, shift=body.shift, fields=fields
    )


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
        prompt = await while_connected(request, render(services, settled, work, clock))
        return reply(form.rendered(prompt, clock))
    opened = await open_completion(request, services, settled, work, clock)
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
            encode_error=lambda error: line(Failure(error.message)),
        )
    try:
        return reply(await while_connected(request, answer.whole(opened)), headers=headers)
    finally:
        await opened.close()
