"""POST /api/render: the prompt that a request to generate or chat comes to. An addition of ours."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
from litestar import Response

from corectl.errors import BadRequest
from corectl.messages import Rendered
from corectl.server.body import AnyRequest, decode, read_body
from corectl.server.context import Clock, ContextFit, context_fit
from corectl.server.services import Services
from corectl_ollama.chat import ChatForm, chat
from corectl_ollama.generate import GenerateForm, generate
from corectl_ollama.question import Durations, durations
from corectl_ollama.schema import ChatRequest, GenerateRequest


class RenderReply(Durations, kw_only=True, omit_defaults=True):
    model: str
    prompt: str
    prompt_eval_count: int
    context_fit: ContextFit
    image_count: int = 0


class _Kind(msgspec.Struct):
    """What tells the two requests apart."""

    messages: msgspec.Raw = msgspec.Raw()


def _reply(model: str, prompt: Rendered, clock: Clock) -> RenderReply:
    return RenderReply(
        model=model,
        prompt=prompt.text,
        prompt_eval_count=prompt.prompt_tokens,
        context_fit=context_fit(prompt.fit, clock),
        image_count=prompt.images,
        **durations(clock),
    )


class _Chat(ChatForm):
    def rendered(self, prompt: Rendered, clock: Clock) -> Any:
        return _reply(self.model, prompt, clock)


class _Generate(GenerateForm):
    def rendered(self, prompt: Rendered, clock: Clock) -> Any:
        return _reply(self.model, prompt, clock)


async def render(request: AnyRequest, services: Services) -> Response[Any]:
    """Takes the body of either request, with the checks of that."""
    body = await asyncio.to_thread(_decode, await read_body(request, services.settings.max_body))
    body.debug_render_only = True
    if isinstance(body, ChatRequest):
        return await chat(request, services, body, _Chat(body.model))
    return await generate(request, services, body, _Generate(body.model))


def _decode(data: bytes) -> ChatRequest | GenerateRequest:
    if not bytes(decode(data, _Kind).messages):
        generating = decode(data, GenerateRequest)
        if not generating.prompt:
            raise BadRequest("prompt or messages is required")
        return generating
    chatting = decode(data, ChatRequest)
    if not chatting.messages:
        raise BadRequest("messages must have at least one message")
    return chatting
