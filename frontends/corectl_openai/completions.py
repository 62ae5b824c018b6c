"""POST /v1/completions."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import msgspec
from litestar import Response

from corectl.errors import BadRequest
from corectl.messages import (
    ChatPrompt,
    Completion,
    Delta,
    Detokenize,
    Finish,
    Fit,
    Message,
    Prompt,
    RawPrompt,
    TextPrompt,
)
from corectl.messages import Usage as Spent
from corectl.model.record import ModelRecord
from corectl.server.asking import asking
from corectl.server.body import AnyRequest
from corectl.server.context import Clock, context_headers
from corectl.server.inference import Settled, completion, find_and_read, load, settle
from corectl.server.operation import SSE
from corectl.server.services import Services, require_name
from corectl.server.streaming import StreamedReply
from corectl.server.watch import while_connected
from corectl_openai.asked import load_options, read_keep_alive, sampling_options
from corectl_openai.choices import open_all, take_all, variants
from corectl_openai.errors import WrongField, error_event
from corectl_openai.inputs import Input, Tokens, read_inputs
from corectl_openai.objects import TextChoice, TextCompletion
from corectl_openai.replies import PING, Usage, reply, said_of, usage_of
from corectl_openai.schema import MAX_CHOICES, CompletionRequest
from corectl_openai.text import TextReply, text_choice

Result = tuple[Delta, Finish]

LOAD = "load"
"""Why a choice of an empty prompt has ended."""


class AskedCompletion(msgspec.Struct, frozen=True, kw_only=True):
    """A request as far as it is read without its model. `each` is how many completions each prompt gets.

    There is at least one prompt, if only an empty one.
    """

    body: CompletionRequest
    prompts: list[Input]
    each: int


def read_completion(body: CompletionRequest) -> AskedCompletion:
    """Checks what needs no model. Raises `BadRequest`."""
    require_name(body.model)
    prompts = read_inputs(body.prompt, "prompt") or [""]
    return AskedCompletion(body=body, prompts=prompts, each=_check(body, prompts))


async def complete(request: AnyRequest, services: Services, asked: AskedCompletion) -> Response[Any]:
    """Runs the request. If all prompts are empty, the model is loaded, and that is all."""
    clock, created = Clock(), int(time.time())
    body, prompts, each = asked.body, asked.prompts, asked.each
    options = load_options(request, body)

    def read(record: ModelRecord) -> tuple[Settled, list[Completion]]:
        settled = _settled(services, record, body, options)
        # Among others an empty one counts: choices are known by their numbers.
        full = prompts if any(prompts) else []
        return settled, [_work(services, settled, body, prompt, logprobs=each > body.n) for prompt in full]

    settled, works = await find_and_read(services, body.model, read)
    whole = TextReply(body.model, created, clock, prompts=len(prompts), n=body.n)
    if not works:
        await while_connected(request, load(services, settled))
        return _loaded(whole, body, len(prompts))
    shown = await _echoes(request, services, body, prompts) if body.echo else [""] * len(prompts)
    opened = await open_all(
        request, services, settled, [one for work in works for one in variants(work, each)], clock
    )
    headers = context_headers(opened[0].started, clock)
    if not body.stream:
        results = await take_all(request, opened)
        groups = [results[at : at + each] for at in range(0, len(results), each)]
        return reply(_whole(whole, body, groups, shown), headers)
    usage = bool(body.stream_options.include_usage)
    encoders = whole.encoders(shown, usage=usage)
    return StreamedReply(
        opened[0],
        media_type=SSE,
        headers=headers,
        encode=encoders[0],
        encode_error=error_event,
        ping=PING,
        beside=list(zip(opened[1:], encoders[1:], strict=True)),
    )


def _loaded(whole: TextReply, body: CompletionRequest, prompts: int) -> Response[bytes]:
    """The reply to so many empty prompts: each of their choices ends where it begins."""
    if not body.stream:
        choices = [TextChoice("", index, LOAD) for index in range(prompts * body.n)]
        return reply(whole.object(choices, Usage()))
    end = Finish(reason=LOAD, usage=Spent(), fit=Fit(num_ctx=0))
    encoders = whole.encoders([""] * prompts, usage=bool(body.stream_options.include_usage))
    return Response(
        b"".join(encode(end) for encode in encoders), headers={"content-type": SSE}, status_code=200
    )


def _check(body: CompletionRequest, prompts: Sequence[Input]) -> int:
    """How many completions each prompt gets. Raises `WrongField` for what does not go together."""
    each = body.n if body.best_of is None else body.best_of
    if each < body.n:
        raise WrongField("best_of", "best_of must not be smaller than n")
    if each > body.n and body.stream:
        raise WrongField("best_of", "best_of cannot be streamed: which is best is known at the end")
    if body.echo and body.logprobs is not None:
        raise WrongField("echo", "echo has no probabilities of the prompt; leave out echo or logprobs")
    if body.echo and body.suffix:
        raise WrongField("echo", "echo and suffix cannot be used together")
    if len(prompts) * each > MAX_CHOICES:
        raise WrongField(
            "prompt", f"prompt: {len(prompts) * each} completions at once; {MAX_CHOICES} are made"
        )
    if body.suffix and not all(isinstance(prompt, str) for prompt in prompts):
        raise WrongField("suffix", "suffix needs a prompt of text")
    return each


def _settled(
    services: Services, record: ModelRecord, body: CompletionRequest, options: dict[str, Any]
) -> Settled:
    return settle(
        services,
        record,
        name=body.model,
        options=options | sampling_options(record, body, body.max_tokens),
        keep_alive=read_keep_alive(body),
        # Thoughts have no place in this protocol. Another server is left to itself.
        think=None if record.config.remote_host else False,
        verb="generate",
        needs=["insert"] if body.suffix else [],
    )


def _work(
    services: Services, settled: Settled, body: CompletionRequest, prompt: Input, *, logprobs: bool
) -> Completion:
    """`logprobs` says that they are needed to find the best."""
    fields: dict[str, Any] = {
        "logprobs": logprobs or body.logprobs is not None,
        "top_logprobs": body.logprobs or 0,
    }
    if isinstance(prompt, str):
        return completion(services, settled, _prompt(services, settled, body, prompt), fields=fields)
    # Tokens are for the model as they are: they stand where an earlier reply's would.
    return completion(services, settled, RawPrompt(text=""), fields={**fields, "context": prompt})


def _prompt(services: Services, settled: Settled, body: CompletionRequest, prompt: str) -> Prompt:
    """A text goes through the model's template, as in the native API."""
    record = settled.model.record
    system = record.system or ""
    template = services.template(settled.model, suffix=bool(body.suffix))
    if body.suffix:
        return TextPrompt(
            template=template, prompt=prompt, system=system, suffix=body.suffix, think=settled.think
        )
    messages = [Message(role="system", content=system)] if system else []
    messages += [*record.messages, Message(role="user", content=prompt)]
    return ChatPrompt(template=template, messages=tuple(messages), think=settled.think)


async def _echoes(
    request: AnyRequest, services: Services, body: CompletionRequest, prompts: Sequence[Input]
) -> list[str]:
    """The prompts as texts."""

    async def texts() -> list[str]:
        if all(isinstance(prompt, str) for prompt in prompts):
            return [str(prompt) for prompt in prompts]
        options = load_options(request, body)
        return await detokenized(services, body.model, prompts, "prompt", options, read_keep_alive(body))

    return await while_connected(request, texts())


async def detokenized(
    services: Services,
    model: str,
    inputs: Sequence[Input],
    where: str,
    options: dict[str, Any],
    keep_alive: float | None,
) -> list[str]:
    """Inputs as texts, those of tokens by the model's own vocabulary. `where` names them in errors."""
    async with asking(services, Clock(), model, options=options, keep_alive=keep_alive) as (_, runner):

        async def text(tokens: Tokens) -> str:
            try:
                return (await runner.detokenize(Detokenize(tokens=tokens))).text
            except BadRequest as exc:
                raise WrongField(where, f"{where}: {exc.message}") from exc

        return [item if isinstance(item, str) else await text(item) for item in inputs]


def _whole(
    whole: TextReply, body: CompletionRequest, groups: Sequence[Sequence[Result]], shown: Sequence[str]
) -> TextCompletion:
    choices: list[TextChoice] = []
    for text, group in zip(shown, groups, strict=True):
        for delta, finish in _best(group, body.n):
            named = msgspec.structs.replace(delta, text=text + delta.text)
            choices.append(text_choice(len(choices), named, finish, logprobs=body.logprobs is not None))
    ends = [[finish for _, finish in group] for group in groups]
    said = said_of([finish for group in ends for finish in group], whole.clock)
    return whole.object(choices, usage_of(ends), **said)


def _best(results: Sequence[Result], count: int) -> Sequence[Result]:
    """Those whose tokens were the likeliest, by the mean of their logarithms."""
    if count == len(results):
        return results

    def likely(result: Result) -> float:
        found = result[0].logprobs
        return sum(item.chosen.logprob for item in found) / len(found) if found else 0.0

    return sorted(results, key=likely, reverse=True)[:count]
