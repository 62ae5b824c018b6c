"""POST /api/generate."""

from __future__ import annotations

from typing import Any

import msgspec
from litestar import Response

from corectl.errors import BadRequest, NotFound
from corectl.messages import (
    ChatPrompt,
    Delta,
    Finish,
    Message,
    Prompt,
    RawPrompt,
    Rendered,
    Template,
    TextPrompt,
)
from corectl.model.record import ModelRecord
from corectl.prompt.render import check_template
from corectl.server.body import AnyRequest
from corectl.server.context import Clock
from corectl.server.fields import check_top_logprobs, keep_alive_seconds
from corectl.server.inference import Settled, find_and_read, not_found
from corectl.server.services import Services
from corectl_ollama.answer import Form
from corectl_ollama.calls import WireToolCall
from corectl_ollama.inference import completion, load_or_unload, run, settle
from corectl_ollama.replies import (
    DebugInfo,
    Metrics,
    Moment,
    Remote,
    WireLogprob,
    debug_info,
    metrics,
    now,
    wire_logprobs,
)
from corectl_ollama.schema import GenerateRequest


class GenerateChunk(msgspec.Struct, kw_only=True):
    model: str
    created_at: Moment
    response: str
    done: bool


class GenerateFullChunk(GenerateChunk, kw_only=True, omit_defaults=True):
    thinking: str = ""
    logprobs: list[WireLogprob] = []


class GenerateRemoteChunk(GenerateFullChunk, kw_only=True, omit_defaults=True):
    remote_model: str
    remote_host: str


class GenerateFinal(Metrics, kw_only=True, omit_defaults=True):
    response: str
    done: bool
    thinking: str = ""
    logprobs: list[WireLogprob] = []


class GenerateDebug(GenerateChunk, kw_only=True):
    """What there is instead of an answer where only the prompt is wanted."""

    debug_info: DebugInfo = msgspec.field(name="_debug_info")


class GenerateForm:
    """See `corectl_ollama.answer.Form`. There are no tools here, and so no calls."""

    remote: Remote | None = None

    def __init__(self, model: str) -> None:
        self.model = model

    def chunk(self, delta: Delta, calls: list[WireToolCall]) -> Any:
        if self.remote is not None:
            return GenerateRemoteChunk(
                model=self.model,
                remote_model=self.remote.model,
                remote_host=self.remote.host,
                created_at=now(),
                response=delta.text,
                done=False,
                thinking=delta.thinking,
                logprobs=wire_logprobs(delta.logprobs),
            )
        if not (delta.thinking or delta.logprobs):
            return GenerateChunk(model=self.model, created_at=now(), response=delta.text, done=False)
        return GenerateFullChunk(
            model=self.model,
            created_at=now(),
            response=delta.text,
            done=False,
            thinking=delta.thinking,
            logprobs=wire_logprobs(delta.logprobs),
        )

    def final(self, finish: Finish, clock: Clock, delta: Delta, calls: list[WireToolCall]) -> Any:
        return GenerateFinal(
            model=self.model,
            created_at=now(),
            response=delta.text,
            done=True,
            thinking=delta.thinking,
            logprobs=wire_logprobs(delta.logprobs),
            **metrics(finish, clock, self.remote),
        )

    def done(self, reason: str) -> Any:
        return GenerateFinal(model=self.model, created_at=now(), response="", done=True, done_reason=reason)

    def rendered(self, prompt: Rendered, clock: Clock) -> Any:
        return GenerateDebug(
            model=self.model, created_at=now(), response="", done=False, debug_info=debug_info(prompt)
        )


async def generate(
    request: AnyRequest, services: Services, body: GenerateRequest, form: Form | None = None
) -> Response[Any]:
    """Checks in the contract's order; the first that fails answers. `form` is for a reply in another one."""
    clock = Clock()
    form = form or GenerateForm(body.model)
    check_top_logprobs(body.top_logprobs)
    keep_alive = keep_alive_seconds(body.keep_alive)
    if not body.model:
        raise NotFound(not_found(""))
    needs = (["insert"] if body.suffix else []) + (["vision"] if body.images else [])

    def settled_for(record: ModelRecord) -> Settled:
        if body.raw and (body.template or body.system or body.context):
            raise BadRequest("raw mode does not support template, system, or context")
        return settle(services, record, body, keep_alive, verb="generate", needs=needs)

    if not body.prompt:
        return await load_or_unload(request, services, body.model, keep_alive, settled_for, form)

    def read(record: ModelRecord) -> tuple[Settled, Prompt]:
        settled = settled_for(record)
        return settled, _prompt(services, settled, body)

    settled, prompt = await find_and_read(services, body.model, read)
    work = completion(
        services,
        settled,
        body,
        prompt,
        context=tuple(body.context),
        want_context=not body.raw,
    )
    return await run(request, services, settled, work, form, clock, stream=body.stream)


def _prompt(services: Services, settled: Settled, body: GenerateRequest) -> Prompt:
    images = tuple(body.images)
    if body.raw:
        return RawPrompt(text=body.prompt, images=images)
    record = settled.model.record
    system = body.system or record.system or ""
    if body.template:
        check_template(body.template)
        template = Template(kind="go", text=body.template)
    else:
        template = services.template(settled.model, suffix=bool(body.suffix))
    if body.template or body.suffix:
        return TextPrompt(
            template=template,
            prompt=body.prompt,
            system=system,
            suffix=body.suffix,
            images=images,
            think=settled.think,
        )
    messages = [Message(role="system", content=system)] if system else []
    messages += [] if body.context else record.messages
    messages.append(Message(role="user", content=body.prompt, images=images))
    return ChatPrompt(template=template, messages=tuple(messages), think=settled.think)
