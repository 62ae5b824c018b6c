"""Streams of OpenAI's protocol: server-sent events with a JSON object each."""

from __future__ import annotations

import time
from typing import Any

import msgspec

from corectl.errors import RemoteError
from corectl.messages import Delta, Finish, Fit, Logprob, Notice, Started, TokenLogprob, Usage
from corectl.remote.backend import RemoteServer
from corectl_remote.connection import Head
from corectl_remote.failure import broken, decode
from corectl_remote.native_reply import Number, WireLogprob, token_logprob
from corectl_remote.openai_calls import CallJoiner, WireFragment
from corectl_remote.wire import Emit, count

_UNKNOWN = Fit(num_ctx=0)
_REASONS = {"length": "length", "max_tokens": "length"}
_ENDS = ("stop", "eos", "eos_token", "stop_sequence", "tool_calls", "function_call", *_REASONS)


class WireDelta(msgspec.Struct):
    """Thoughts have two names, by the server."""

    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    refusal: str | None = None
    tool_calls: list[WireFragment] | None = None


class WireLogprobs(msgspec.Struct):
    """Of chats `content`; of completions the lists."""

    content: list[WireLogprob] | None = None
    tokens: list[str] | None = None
    token_logprobs: list[float | None] | None = None
    top_logprobs: list[dict[str, float] | None] | None = None


class WireChoice(msgspec.Struct):
    """A server that does not stream has a whole `message` in its only chunk."""

    delta: WireDelta | None = None
    message: WireDelta | None = None
    text: str | None = None
    finish_reason: str | None = None
    logprobs: WireLogprobs | None = None


class WireCached(msgspec.Struct):
    cached_tokens: Number = None


class WireUsage(msgspec.Struct):
    prompt_tokens: Number = None
    completion_tokens: Number = None
    prompt_tokens_details: WireCached | None = None


class WireTimings(msgspec.Struct):
    """What llama-server adds, in milliseconds."""

    prompt_ms: Number = None
    predicted_ms: Number = None


class WireChunk(msgspec.Struct):
    """Errors have `error`, or are an `object` of that kind."""

    choices: list[WireChoice] | None = None
    usage: WireUsage | None = None
    timings: WireTimings | None = None
    error: Any = None
    object: str | None = None
    message: Any = None


_chunk = msgspec.json.Decoder(WireChunk)


class OpenAiReader:
    """See `corectl_remote.wire.Reader`. The protocol has no times; where a server adds none, they are taken here."""

    def __init__(self, server: RemoteServer, emit: Emit, notices: list[Notice]) -> None:
        self._server = server
        self._emit = emit
        self._notices = notices
        self._calls = CallJoiner(notices)
        self._usage = WireUsage()
        self._timings: WireTimings | None = None
        self._reason = ""
        self._finished = False
        self._asked = self._first = self._last = time.monotonic_ns()

    def begins(self, head: Head) -> None:
        self._emit(Started(prompt_tokens=0, fit=_UNKNOWN))

    def line(self, line: bytes) -> None:
        if line.startswith(b"data:"):
            data = line[5:].strip()
        elif line.startswith((b"{", b"error:")):
            # Errors come like this from servers that have forgotten that they stream.
            data = line.removeprefix(b"error:").strip()
        else:
            return  # a comment, or another field of the event
        if data == b"[DONE]":
            self._finish()
        elif data and not self._finished:
            self._take(decode(self._server, _chunk, data))

    def ended(self) -> None:
        if not (self._finished or self._reason):
            raise RemoteError(f"remote server {self._server.label} ended its reply before it was complete")
        self._finish()

    def _take(self, chunk: WireChunk) -> None:
        if chunk.error is not None or chunk.object == "error":
            raise broken(self._server, chunk.error or chunk.message)
        self._usage = chunk.usage or self._usage
        self._timings = chunk.timings or self._timings
        if not chunk.choices:
            return
        choice = chunk.choices[0]
        delta = choice.delta or choice.message or WireDelta()
        text = (delta.content or "") + (delta.refusal or "") + (choice.text or "")
        thinking = delta.reasoning_content or delta.reasoning or ""
        pieces = self._calls.take(delta.tool_calls) if delta.tool_calls else ()
        logprobs = _logprobs(choice.logprobs) if choice.logprobs else ()
        if text or thinking or pieces or logprobs:
            self._last = time.monotonic_ns()
            if self._first == self._asked:
                self._first = self._last
            self._emit(Delta(text, logprobs, thinking, tuple(pieces)))
        self._reason = choice.finish_reason or self._reason

    def _finish(self) -> None:
        if self._finished:
            return
        self._finished = True
        pieces, text = self._calls.end()
        if pieces or text:
            self._emit(Delta(text, (), "", tuple(pieces)))
        if self._reason and self._reason not in _ENDS:
            message = f"the output ended for a reason of the remote server's own: {self._reason[:64]}"
            self._notices.append(Notice(code="other_end", message=message))
        reason = _REASONS.get(self._reason, "stop")
        self._emit(Finish(reason=reason, usage=self._counted(), fit=_UNKNOWN, notices=tuple(self._notices)))

    def _counted(self) -> Usage:
        usage, cached, timings = self._usage, self._usage.prompt_tokens_details, self._timings
        prompt_ns, output_ns = self._first - self._asked, self._last - self._first
        if timings is not None:
            prompt_ns = count((timings.prompt_ms or 0) * 1e6)
            output_ns = count((timings.predicted_ms or 0) * 1e6)
        return Usage(
            prompt_tokens=count(usage.prompt_tokens),
            cached_tokens=count(cached.cached_tokens) if cached else 0,
            prompt_ns=prompt_ns,
            output_tokens=count(usage.completion_tokens),
            output_ns=output_ns,
        )


def _logprobs(found: WireLogprobs) -> tuple[Logprob, ...]:
    if found.content:
        return tuple(
            Logprob(token_logprob(item), tuple(map(token_logprob, item.top_logprobs or ())))
            for item in found.content
        )
    tops = found.top_logprobs or []
    return tuple(
        Logprob(_plain(token, value), tuple(_plain(*top) for top in _best(tops, at)))
        for at, (token, value) in enumerate(zip(found.tokens or (), found.token_logprobs or (), strict=False))
        if value is not None
    )


def _best(tops: list[dict[str, float] | None], at: int) -> list[tuple[str, float]]:
    found = tops[at] if at < len(tops) else None
    return sorted((found or {}).items(), key=lambda item: -item[1])


def _plain(token: str, logprob: float) -> TokenLogprob:
    return TokenLogprob(token, logprob, token.encode())
