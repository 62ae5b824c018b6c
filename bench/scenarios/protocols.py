"""Processor time of the server process for each token of a streamed chat, in each protocol that it speaks."""

from __future__ import annotations

from typing import Any

from bench.kit import Kit, Measured, Ratio, Scenario, interleave
from bench.scenarios.server_cpu import TOKENS, cpu_per_token
from bench.served import BenchServer
from bench.weights import MODEL, Weights, endless, install, story
from bench.wire import Counts, stream

STREAMS = 8
CONTEXT = 1024
NATIVE, OPENAI, ANTHROPIC = "/api/chat", "/v1/chat/completions", "/v1/messages"
LIKE = {"temperature": 0.8, "top_p": 0.9}


class _ChatForm:
    """A chat of one message. All tokens that are asked for come, since the model never ends an answer."""

    def __init__(self, model: str, path: str, chunk: bytes, end: bytes) -> None:
        self._model, self.path, self.chunk, self.end = model, path, chunk, end

    def uncached(self) -> _ChatForm:
        return self

    def body(self, prompt: str, tokens: int) -> dict[str, Any]:
        messages = [{"role": "user", "content": prompt}]
        common = {"model": self._model, "messages": messages, "stream": True}
        if self.path == NATIVE:
            return {**common, "options": {**LIKE, "num_predict": tokens}}
        return {**common, **LIKE, "max_tokens": tokens}

    def text(self, line: dict[str, Any]) -> str:
        return ""

    def counts(self, lines: list[dict[str, Any]], tokens: int) -> Counts:
        return Counts(tokens)


def _run(kit: Kit, weights: Weights) -> Measured:
    server = BenchServer(
        OLLAMA_NUM_PARALLEL=str(STREAMS), OLLAMA_KEEP_ALIVE="-1", OLLAMA_CONTEXT_LENGTH=str(CONTEXT)
    )
    name = weights.name
    forms = [
        _ChatForm(name, NATIVE, b'"done":false', b'"done":true'),
        _ChatForm(name, OPENAI, b'"finish_reason":null', b"[DONE]"),
        _ChatForm(name, ANTHROPIC, b'"type":"content_block_delta"', b'"type":"message_stop"'),
    ]
    try:
        install(endless(weights, kit.folder), server.url)
        for form in forms:
            stream(server.url, form, story("warm"), 8)
        tokens = max(kit.tokens, TOKENS)
        return interleave(
            kit.rounds, {form.path: cpu_per_token(server, form, STREAMS, tokens) for form in forms}
        )
    finally:
        server.close()


SCENARIO = Scenario(
    name="protocols",
    title=f"Processor time of the server process for each token of {STREAMS} streamed chats",
    run=_run,
    ratios=(
        Ratio("us/token", NATIVE, "1.2 or less", row=OPENAI),
        Ratio("us/token", NATIVE, "1.2 or less", row=ANTHROPIC),
    ),
    models=(MODEL,),
)
