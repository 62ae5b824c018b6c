"""From a request to tokens, in the runner, on a thread that does nothing else: the engine never waits for it."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from corectl.constrain.build import build_constraint, compiler_of
from corectl.constrain.tools import Enforceable, enforceable
from corectl.errors import BadRequest
from corectl.messages import ChatPrompt, Completion, Fit, Notice, RawPrompt, Rendered, Tool
from corectl.output.choose import choose_dialect
from corectl.output.dialect import Dialect, OutputReader, OutputRequest
from corectl.prompt.fit import Fitted, fit
from corectl.prompt.images import PlacedImages
from corectl.prompt.render import render
from corectl.runner.engine import EngineInfo, Tokenizer
from corectl.runner.job import Job
from corectl.runner.sequence import SequenceBuilder
from corectl.runner.vision import Vision


class Prepared(msgspec.Struct, frozen=True, kw_only=True):
    """A job for the batch loop, what was done to make it fit, and how its output is read.

    `markers` are the texts of control tokens that the reader must see.
    """

    job: Job
    fit: Fit
    reader: OutputReader
    markers: frozenset[bytes] = frozenset()
    notices: tuple[Notice, ...] = ()


def render_prompt(
    request: Completion, tokenizer: Tokenizer, info: EngineInfo, vision: Vision | None = None
) -> Rendered:
    """A request's prompt as people see it, made to fit. Raises as `prepare_completion` does for a prompt."""
    num_ctx = _context(request, info)
    builder, fitted = _fitted(request, tokenizer, num_ctx, vision)
    placed = builder.placed
    return Rendered(
        text=placed.shown(fitted.text),
        images=len(placed.images) - len(placed.missing(fitted.text)),
        prompt_tokens=len(fitted.tokens),
        fit=_report(fitted, num_ctx),
    )


def prepare_completion(
    id: int,
    request: Completion,
    tokenizer: Tokenizer,
    info: EngineInfo,
    dialects: Mapping[str, Dialect],
    vision: Vision | None = None,
) -> Prepared:
    """Renders, tokenises and fits a prompt, and says how its output is read and constrained.

    Raises `BadRequest` if the prompt is too long and may not be cut, for images that cannot be seen, and for a grammar
    that cannot be enforced.
    """
    num_ctx = _context(request, info)
    builder, fitted = _fitted(request, tokenizer, num_ctx, vision)
    if not fitted.tokens:
        raise BadRequest("the prompt is empty and this model has no begin token; send some text in 'prompt'")
    output = _output_request(request, builder.placed.shown(fitted.text))
    dialect, unknown = choose_dialect(dialects, request.parser, output.template)
    tools = Enforceable(output, output)
    if output.tools:
        tools = enforceable(output, dialect, compiler_of(tokenizer))
    shape = dialect.shape(tools.enforced)
    job = Job(
        id=id,
        tokens=fitted.tokens,
        spans=builder.spans(fitted.text, fitted.tokens),
        num_ctx=num_ctx,
        sampling=request.sampling,
        shift=request.shift,
        cache_salt=request.cache_salt,
        top_logprobs=request.top_logprobs if request.logprobs else -1,
        constraint=build_constraint(
            shape,
            tokenizer,
            grammar=request.grammar,
            choice=request.tool_choice,
            think_budget=request.think_budget,
        ),
    )
    return Prepared(
        job=job,
        fit=_report(fitted, num_ctx),
        reader=dialect.reader(tools.read),
        markers=frozenset(marker.encode() for marker in shape.markers),
        notices=(*unknown, *_unseen(builder.placed, fitted), *tools.notices),
    )


def _context(request: Completion, info: EngineInfo) -> int:
    """The longest that the sequence may become, in tokens."""
    return min(request.num_ctx or info.num_ctx, info.num_ctx)


def _fitted(
    request: Completion, tokenizer: Tokenizer, num_ctx: int, vision: Vision | None
) -> tuple[SequenceBuilder, Fitted]:
    for token in request.context:
        if not 0 <= token < tokenizer.size:
            raise BadRequest(f"context: {token} is not a token of this model (0 to {tokenizer.size - 1})")

    for token in request.sampling.logit_bias:
        if token >= tokenizer.size:
            raise BadRequest(f"logit_bias: {token} is not a token of this model (0 to {tokenizer.size - 1})")
    builder = SequenceBuilder(
        request.prompt, tokenizer, vision, context=request.context, salt=request.cache_salt
    )
    fitted = fit(
        builder.placed.prompt,
        builder.tokens,
        lambda prompt: render(prompt, bos_token=tokenizer.bos_token, eos_token=tokenizer.eos_token),
        num_ctx=num_ctx,
        num_keep=request.sampling.num_keep,
        bos=tokenizer.adds_bos,
        truncate=request.truncate,
        shift=request.shift,
        cuttable=lambda text: not builder.has_images(text),
    )
    return builder, fitted


def _report(fitted: Fitted, num_ctx: int) -> Fit:
    return Fit(
        num_ctx=num_ctx,
        dropped_messages=fitted.dropped_messages,
        dropped_tokens=fitted.dropped_tokens,
    )


def _unseen(placed: PlacedImages, fitted: Fitted) -> tuple[Notice, ...]:
    """Whether the template has left images out, and not only those of messages that were dropped."""
    missing = placed.missing(fitted.text)
    if not missing or fitted.dropped_messages:
        return ()
    fields = ", ".join(placed.fields[number] for number in missing)
    return (Notice(code="images_not_rendered", message=f"the template leaves out {fields}"),)


def _output_request(request: Completion, text: str) -> OutputRequest:
    """What the dialect may know. `text` is the rendered prompt."""
    prompt = request.prompt
    if isinstance(prompt, RawPrompt):
        return OutputRequest(template=None)
    tools = _callable_tools(request, prompt) if isinstance(prompt, ChatPrompt) else ()
    return OutputRequest(
        template=prompt.template,
        prompt=text,
        tools=tools,
        think=prompt.think is not False,
        parallel=request.tool_choice.parallel,
    )


def _callable_tools(request: Completion, prompt: ChatPrompt) -> tuple[Tool, ...]:
    choice = request.tool_choice
    if choice.mode == "none":
        return ()
    if not choice.name:
        return prompt.tools
    chosen = tuple(tool for tool in prompt.tools if tool["function"]["name"] == choice.name)
    if not chosen:
        raise BadRequest(f"tool_choice: there is no tool named {choice.name!r}")
    return chosen
