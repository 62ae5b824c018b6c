"""Five hundred open streams: each gets its end."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

from bench.kit import OURS, Figures, Kit, Measured, Scenario, interleave
from bench.scenarios.company import percentile
from bench.served import BenchServer
from bench.weights import MODEL, Weights, install, story
from bench.wire import NativeForm, stream

STREAMS = 500
TOKENS = 8
CONTEXT = 1024


def _measure(server: BenchServer, form: NativeForm, number: int) -> Figures:
    """A stream that fails ends the bench; so all that are counted here had their end."""
    cpu, memory, started = server.cpu_seconds(), server.memory(), time.perf_counter()
    with ThreadPoolExecutor(STREAMS) as pool:
        prompts = [f"Fox {number} and crow {at}" for at in range(STREAMS)]
        replies = list(pool.map(lambda prompt: stream(server.url, form, prompt, TOKENS), prompts))
    tokens = sum(reply.counts.output for reply in replies)
    return {
        "ended": float(len(replies)),
        "seconds": time.perf_counter() - started,
        "first p99 s": percentile([reply.first for reply in replies], 0.99),
        "us/token": (server.cpu_seconds() - cpu) / tokens * 1e6,
        "server MiB": server.memory() / 2**20,
        "MiB more": (server.memory() - memory) / 2**20,
    }


def _run(kit: Kit, weights: Weights) -> Measured:
    server = BenchServer(OLLAMA_KEEP_ALIVE="-1")
    try:
        install(weights, server.url)
        form = NativeForm(weights.name, threads=kit.threads, num_ctx=CONTEXT)
        stream(server.url, form, story("warm"), 8)
        return interleave(kit.rounds, {OURS: lambda number: _measure(server, form, number)})
    finally:
        server.close()


SCENARIO = Scenario(
    name="open_streams",
    title=f"{STREAMS} open streams of {TOKENS} tokens",
    run=_run,
    models=(MODEL,),
)
