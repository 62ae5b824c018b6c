"""POST /api/chat."""

from __future__ import annotations

from typing import Any

import msgspec
from litestar import Response

from corectl.messages import ChatPrompt, Delta, Finish, Message, Rendered
from corectl.model.record import ModelRecord
from corectl.server.body import AnyRequest
from corectl.server.context import Clock
from corectl.server.fields import check_top_logprobs, keep_alive_seconds, read_tool_choice, read_tools
from corectl.server.inference import Settled, chat_needs, chat_prompt, find_and_read
from corectl.server.services import Services, require_name
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
from corectl_ollama.schema import ChatRequest


class WireReply(msgspec.Struct, omit_defaults=True):
    role: str
    content: str
    thinking: str = ""
    tool_calls: list[WireToolCall] = []


class ChatChunk(msgspec.Struct, kw_only=True):
    model: str
    created_at: Moment
    message: WireReply
    done: bool


class ChatLogprobChunk(ChatChunk, kw_only=True):
    logprobs: list[WireLogprob]


class ChatRemoteChunk(ChatChunk, kw_only=True, omit_defaults=True):
    remote_model: str
    remote_host: str
    logprobs: list[WireLogprob] = []


class ChatFinal(Metrics, kw_only=True, omit_defaults=True):
    message: WireReply
    done: bool
    logprobs: list[WireLogprob] = []


class ChatDebug(ChatChunk, kw_only=True):
    """What there is instead of an answer where only the prompt is wanted."""

    debug_info: DebugInfo = msgspec.field(name="_debug_info")


class ChatForm:
    """See `corectl_ollama.answer.Form`."""

    remote: Remote | None = None

    def __init__(self, model: str) -> None:
        self.model = model

    def chunk(self, delta: Delta, calls: list[WireToolCall]) -> Any:
        message = WireReply("assistant", delta.text, delta.thinking, calls)
        logprobs = wire_logprobs(delta.logprobs) if delta.logprobs else []
        if self.remote is not None:
            return ChatRemoteChunk(
                model=self.model,
                remote_model=self.remote.model,
                remote_host=self.remote.host,
                created_at=now(),
                message=message,
                done=False,
                logprobs=logprobs,
            )
        if logprobs:
            return ChatLogprobChunk(
                model=self.model, created_at=now(), message=message, done=False, logprobs=logprobs
            )
        return ChatChunk(model=self.model, created_at=now(), message=message, done=False)

    def final(self, finish: Finish, clock: Clock, delta: Delta, calls: list[WireToolCall]) -> Any:
        return ChatFinal(
            model=self.model,
            created_at=now(),
            message=WireReply("assistant", delta.text, delta.thinking, calls),
            done=True,
            logprobs=wire_logprobs(delta.logprobs),
            **metrics(finish, clock, self.remote),
        )

    def done(self, reason: str) -> Any:
        return ChatFinal(
            model=self.model,
            created_at=now(),
            message=WireReply("assistant", ""),
            done=True,
            done_reason=reason,
        )

    def rendered(self, prompt: Rendered, clock: Clock) -> Any:
        return ChatDebug(
            model=self.model,
            created_at=now(),
            message=WireReply("", ""),
            done=False,
            debug_info=debug_info(prompt),
        )


async def chat(
    request: AnyRequest, services: Services, body: ChatRequest, form: Form | None = None
) -> Response[Any]:
    """Checks in the contract's order; the first that fails answers. `form` is for a reply in another one."""
    clock = Clock()
    form = form or ChatForm(body.model)
    check_top_logprobs(body.top_logprobs)
    keep_alive = keep_alive_seconds(body.keep_alive)
    require_name(body.model)

    def settled_for(record: ModelRecord, messages: list[Message]) -> Settled:
        needs = chat_needs(messages, tools=bool(body.tools))
        return settle(services, record, body, keep_alive, verb="chat", needs=needs)

    if not body.messages:
        return await load_or_unload(
            request, services, body.model, keep_alive, lambda record: settled_for(record, []), form
        )

    def read(record: ModelRecord) -> tuple[Settled, ChatPrompt]:
        messages = [wire.message() for wire in body.messages]
        settled = settled_for(record, messages)
        return settled, chat_prompt(services, settled, messages, read_tools(body.tools))

    settled, prompt = await find_and_read(services, body.model, read)
    work = completion(
        services,
        settled,
        body,
        prompt,
        tool_choice=read_tool_choice(body.tool_choice, body.tools),
    )
    return await run(request, services, settled, work, form, clock, stream=body.stream)
