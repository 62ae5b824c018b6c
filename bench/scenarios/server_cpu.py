"""Processor time of the server process for each streamed token."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from bench.kit import Figures, Kit, Measured, Scenario, interleave
from bench.scenarios.throughput import rate
from bench.served import BenchServer
from bench.weights import MODEL, Weights, install, story
from bench.wire import Form, NativeForm, Reply, stream

STREAMS = (1, 8, 32)
CONTEXT = 1024
TOKENS = 256
"""Fewer cost too little beside the request itself to be told from it."""


def cpu_per_token(server: BenchServer, form: Form, streams: int, tokens: int) -> Callable[[int], Figures]:
    """What measures a round: so many streams at once, of so many tokens each."""

    def ask(number: int, tokens: int) -> tuple[float, list[Reply]]:
        prompts = [story("cpu", tokens, number, stream) for stream in range(streams)]
        with ThreadPoolExecutor(streams) as pool:
            before = server.cpu_seconds()
            replies = list(pool.map(lambda prompt: stream(server.url, form, prompt, tokens), prompts))
            return server.cpu_seconds() - before, replies

    def measure(number: int) -> Figures:
        """What a request costs by itself is told from what its tokens cost by requests that have one token only."""
        once, _ = ask(number, 1)
        spent, replies = ask(number, tokens)
        written = sum(reply.counts.output for reply in replies)
        return {
            "us/token": (spent - once) / (written - streams) * 1e6,
            "us/token in all": spent / written * 1e6,
            "us/request": once / streams * 1e6,
            "tok/s": rate(replies),
        }

    return measure


def _run(kit: Kit, weights: Weights) -> Measured:
    server = BenchServer(OLLAMA_NUM_PARALLEL=str(max(STREAMS)), OLLAMA_KEEP_ALIVE="-1")
    try:
        install(weights, server.url)
        form = NativeForm(weights.name, threads=kit.threads, num_ctx=CONTEXT)
        stream(server.url, form, story("warm"), 8)
        return interleave(
            kit.rounds,
            {
                f"{streams} at once": cpu_per_token(server, form, streams, max(kit.tokens, TOKENS))
                for streams in STREAMS
            },
        )
    finally:
        server.close()


SCENARIO = Scenario(
    name="server_cpu",
    title="Processor time of the server process for each streamed token (goal: 50 us or less)",
    run=_run,
    models=(MODEL,),
)
