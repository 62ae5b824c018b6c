"""The bench's own client: one request over a bare socket, timed chunk by chunk, in each server's own form.

A client library takes more of the processor than the server does, and on the same machine that would be counted against
the server.
"""

from __future__ import annotations

import copy
import json
import secrets
import socket
import threading
import time
from collections.abc import Mapping
from typing import Any, Protocol
from urllib.parse import urlsplit

import msgspec

SAMPLING = {"temperature": 0.8, "top_k": 40, "top_p": 0.9, "min_p": 0.0, "seed": 42}
GREEDY = {"temperature": 0.0}
TIMEOUT = 600.0


class Counts(msgspec.Struct, frozen=True):
    """What a server says of a request in the end: tokens of the answer, of the prompt, and of those that it computed.

    `computing` is how many seconds its engine took for these. None is what it does not say.
    """

    output: int
    prompt: int | None = None
    evaluated: int | None = None
    computing: float | None = None


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """A streamed answer: when it was asked for, when each chunk came (seconds of `perf_counter`), and its text."""

    sent: float
    times: tuple[float, ...]
    text: str
    counts: Counts

    @property
    def first(self) -> float:
        """Seconds to the first token."""
        return self.times[0] - self.sent

    @property
    def tokens_per_chunk(self) -> float:
        return self.counts.output / len(self.times)


class Form(Protocol):
    """How a server wants its requests, and how its chunks and its last one are known."""

    path: str
    chunk: bytes
    end: bytes

    def uncached(self) -> Form:
        """The same form, asking that the whole prompt be computed, if the server can be asked for that."""
        ...

    def body(self, prompt: str, tokens: int) -> dict[str, Any]: ...

    def text(self, line: dict[str, Any]) -> str: ...

    def counts(self, lines: list[dict[str, Any]], tokens: int) -> Counts: ...


class NativeForm:
    """The server of this project."""

    path = "/api/generate"
    chunk = b'"done":false'
    end = b'"done":true'

    def __init__(
        self, model: str, *, threads: int | None, num_ctx: int, sampling: Mapping[str, float] = SAMPLING
    ) -> None:
        self._model = model
        # None leaves the number to the server.
        self._options = {**sampling, "num_thread": threads, "num_ctx": num_ctx}
        self._cached = True

    def uncached(self) -> NativeForm:
        form = copy.copy(self)
        form._cached = False
        return form

    def body(self, prompt: str, tokens: int) -> dict[str, Any]:
        options = {**self._options, "num_predict": tokens}
        salt = "" if self._cached else secrets.token_hex(8)
        own = {"raw": True, "keep_alive": -1, "cache_salt": salt}
        return {"model": self._model, "prompt": prompt, "options": options, **own}

    def text(self, line: dict[str, Any]) -> str:
        return str(line["response"])

    def counts(self, lines: list[dict[str, Any]], tokens: int) -> Counts:
        last = lines[-1]
        prompt, seconds = last["prompt_eval_count"], last["prompt_eval_duration"] / 1e9
        return Counts(last["eval_count"], prompt, prompt - last.get("prompt_cached_count", 0), seconds)


class LlamaForm:
    """llama-server, and what is made of it."""

    path = "/completion"
    chunk = b'"stop":false'
    end = b'"stop":true'

    def __init__(self, *, cached: bool = True) -> None:
        self._cached = cached

    def uncached(self) -> LlamaForm:
        return LlamaForm(cached=False)

    def body(self, prompt: str, tokens: int) -> dict[str, Any]:
        samplers = ["top_k", "top_p", "temperature"]
        own = {"prompt": prompt, "n_predict": tokens, "samplers": samplers}
        return {**SAMPLING, **own, "stream": True, "cache_prompt": self._cached}

    def text(self, line: dict[str, Any]) -> str:
        return str(line["content"])

    def counts(self, lines: list[dict[str, Any]], tokens: int) -> Counts:
        last = lines[-1]
        taken = last["timings"]
        return Counts(
            last["tokens_predicted"], last["tokens_evaluated"], taken["prompt_n"], taken["prompt_ms"] / 1e3
        )


class CompletionsForm:
    """OpenAI's completions, as llama-cpp-python's server has them. It says nothing of what it computed."""

    path = "/v1/completions"
    chunk = b'"finish_reason": null'
    end = b"[DONE]"

    def uncached(self) -> CompletionsForm:
        return self

    def body(self, prompt: str, tokens: int) -> dict[str, Any]:
        return {**SAMPLING, "prompt": prompt, "max_tokens": tokens, "stream": True}

    def text(self, line: dict[str, Any]) -> str:
        return str(line["choices"][0]["text"])

    def counts(self, lines: list[dict[str, Any]], tokens: int) -> Counts:
        return Counts(sum(line["choices"][0]["finish_reason"] is None for line in lines))


class Watch:
    """A look at a stream, or one after another: when chunks came so far, and a way to leave while it runs."""

    def __init__(self) -> None:
        self.times: list[float] = []
        self.leave = threading.Event()


class Left(Exception):
    """The client has left its stream, as it was told to."""


def stream(url: str, form: Form, prompt: str, tokens: int, watch: Watch | None = None) -> Reply:
    """One request, until its end, or until whoever watches wants to leave (raises `Left`). An error ends the bench."""
    place = urlsplit(url)
    data = json.dumps(form.body(prompt, tokens)).encode()
    head = (
        f"POST {form.path} HTTP/1.1\r\nHost: {place.netloc}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(data)}\r\n\r\n"
    )
    with socket.create_connection((str(place.hostname), place.port or 80), TIMEOUT) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sent = time.perf_counter()
        connection.sendall(head.encode() + data)
        times, received = _chunks(connection, form, watch or Watch())
    lines = _lines(received, form)
    if not times or not lines:
        raise SystemExit(f"{url}{form.path}: the stream failed: {received[-1000:]!r}")
    text = "".join(form.text(line) for line in lines)
    return Reply(sent=sent, times=tuple(times), text=text, counts=form.counts(lines, tokens))


def _chunks(connection: socket.socket, form: Form, watch: Watch) -> tuple[list[float], bytes]:
    """When each chunk came, and all bytes; no times if the stream ended before it should."""
    received, times, seen = bytearray(), watch.times, 0
    while True:
        part = connection.recv(65536)
        now = time.perf_counter()
        received += part
        while (at := received.find(form.chunk, seen)) >= 0:
            times.append(now)
            seen = at + len(form.chunk)
        if received.find(form.end, seen) >= 0:
            # A model may have nothing to say: the end is all that comes.
            return times or [now], bytes(received)
        if not part:
            return [], bytes(received)
        if watch.leave.is_set():
            raise Left


def _lines(received: bytes, form: Form) -> list[dict[str, Any]]:
    """The JSON objects of a stream: a line each, behind `data: ` or not."""
    lines = (line.removeprefix(b"data: ") for line in received.splitlines())
    return [
        json.loads(line) for line in lines if form.chunk in line or (form.end in line and line[:1] == b"{")
    ]
