"""The replies of the native API, as corectl and Ollama send them: a JSON object a line."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from corectl.errors import RemoteError
from corectl.messages import (
    Delta,
    Finish,
    Fit,
    Logprob,
    Notice,
    Started,
    TokenLogprob,
    ToolCallDelta,
    Usage,
)
from corectl.output.calls import call_id
from corectl.remote.backend import RemoteServer
from corectl_remote.connection import Head
from corectl_remote.failure import MAX_TEXT, broken, decode
from corectl_remote.wire import Emit, count

MAX_NOTICES = 64
_CODE = re.compile(r"[a-z][a-z0-9_]{0,63}")
_PAIR = re.compile(r"([a-z_]{1,32})=([0-9]{1,12})(?:, |$)")

Number = int | float | None


class WireFunction(msgspec.Struct):
    name: str | None = None
    arguments: msgspec.Raw = msgspec.Raw(b"{}")


class WireCall(msgspec.Struct):
    id: str | None = None
    function: WireFunction | None = None


class WireMessage(msgspec.Struct):
    content: str | None = None
    thinking: str | None = None
    tool_calls: list[WireCall] | None = None


class WireTop(msgspec.Struct):
    token: str
    logprob: float
    bytes: list[int] | None = None


class WireLogprob(WireTop):
    top_logprobs: list[WireTop] | None = None


class WireFit(msgspec.Struct):
    num_ctx: Number = 0
    dropped_messages: Number = 0
    dropped_tokens: Number = 0
    shifts: Number = 0

    def fit(self) -> Fit:
        return Fit(
            num_ctx=count(self.num_ctx),
            dropped_messages=count(self.dropped_messages),
            dropped_tokens=count(self.dropped_tokens),
            shifts=count(self.shifts),
        )


class WireNotice(msgspec.Struct):
    code: str
    message: str


class WireLine(msgspec.Struct):
    """One object of a stream of chat (`message`) or generate (`response`)."""

    message: WireMessage | None = None
    response: str | None = None
    thinking: str | None = None
    tool_calls: list[WireCall] | None = None
    logprobs: list[WireLogprob] | None = None
    done: bool | None = False
    done_reason: str | None = None
    prompt_eval_count: Number = None
    prompt_cached_count: Number = None
    prompt_eval_duration: Number = None
    eval_count: Number = None
    eval_duration: Number = None
    context: list[int] | None = None
    context_fit: WireFit | None = None
    warnings: list[WireNotice] | None = None
    error: Any = None


_line = msgspec.json.Decoder(WireLine)
_arguments = msgspec.json.Decoder(dict[str, Any])


class NativeReader:
    """See `corectl_remote.wire.Reader`. `notices` are what is to be said of the request anyway."""

    def __init__(self, server: RemoteServer, emit: Emit, notices: list[Notice]) -> None:
        self._server = server
        self._emit = emit
        self._notices = notices
        self._calls = 0
        self._finished = False

    def begins(self, head: Head) -> None:
        said = {name: int(value) for name, value in _PAIR.findall(head.context[:1024])}
        fit = Fit(
            num_ctx=said.get("num_ctx", 0),
            dropped_messages=said.get("dropped_messages", 0),
            dropped_tokens=said.get("dropped_tokens", 0),
        )
        self._emit(Started(prompt_tokens=said.get("prompt_tokens", 0), fit=fit))

    def line(self, line: bytes) -> None:
        if self._finished:
            return
        found = decode(self._server, _line, line)
        if found.error is not None:
            raise broken(self._server, found.error)
        message = found.message
        text = (message.content if message else found.response) or ""
        thinking = (message.thinking if message else found.thinking) or ""
        calls = (message.tool_calls if message else found.tool_calls) or ()
        logprobs = tuple(map(_logprob, found.logprobs)) if found.logprobs else ()
        pieces: list[ToolCallDelta] = []
        for call in calls:
            piece, raw = self._call(call)
            pieces += [piece] if piece else []
            text += raw
        if text or thinking or pieces or logprobs:
            self._emit(Delta(text, logprobs, thinking, tuple(pieces)))
        if found.done:
            self._finished = True
            self._emit(self._finish(found))

    def ended(self) -> None:
        if not self._finished:
            raise RemoteError(f"remote server {self._server.label} ended its reply before it was complete")

    def _call(self, call: WireCall) -> tuple[ToolCallDelta | None, str]:
        """A whole call; what cannot be one is left as text."""
        function = call.function or WireFunction()
        arguments = bytes(function.arguments)
        try:
            _arguments.decode(arguments)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
            return None, self._left(call, f"its arguments are no object ({exc})")
        if not function.name:
            return None, self._left(call, "it has no name")
        index, self._calls = self._calls, self._calls + 1
        return ToolCallDelta(index, call.id or call_id(), function.name, arguments.decode(), True), ""

    def _left(self, call: WireCall, why: str) -> str:
        message = f"a tool call could not be read and is left in the content: {why}"[:MAX_TEXT]
        self._notices.append(Notice(code="tool_call_not_parsed", message=message))
        return msgspec.json.encode(call).decode()

    def _finish(self, last: WireLine) -> Finish:
        said = [
            Notice(code=notice.code, message=notice.message[:MAX_TEXT])
            for notice in (last.warnings or ())[:MAX_NOTICES]
            if _CODE.fullmatch(notice.code)
        ]
        usage = Usage(
            prompt_tokens=count(last.prompt_eval_count),
            cached_tokens=count(last.prompt_cached_count),
            prompt_ns=count(last.prompt_eval_duration),
            output_tokens=count(last.eval_count),
            output_ns=count(last.eval_duration),
        )
        return Finish(
            reason="length" if last.done_reason == "length" else "stop",
            usage=usage,
            fit=(last.context_fit or WireFit()).fit(),
            context=tuple(last.context or ()),
            notices=(*self._notices[:MAX_NOTICES], *said),
        )


def _logprob(item: WireLogprob) -> Logprob:
    return Logprob(token_logprob(item), tuple(map(token_logprob, item.top_logprobs or ())))


def token_logprob(item: WireTop) -> TokenLogprob:
    """A token's probability, with the bytes of its text where the server does not give them."""
    given = item.bytes
    valid = given is not None and all(0 <= byte < 256 for byte in given)
    return TokenLogprob(item.token, item.logprob, bytes(given or ()) if valid else item.token.encode())
