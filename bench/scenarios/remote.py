"""What a server in front of another one adds to the time to the first token, and to each token after it."""

from __future__ import annotations

import statistics

from bench.kit import OURS, Figures, Kit, Measured, Ratio, Scenario
from bench.replay import MODEL, ReplayProcess
from bench.served import BenchServer
from bench.weights import NUM_CTX, Weights, endless, story
from bench.wire import Form, NativeForm, stream

REQUESTS = 40
"""In a round; one after another, each both ways in turn."""

DIRECT, THROUGH = "asked directly", "through another corectl"
TAPE, TAPE_THROUGH = "a recorded reply, directly", "a recorded reply, through"
PER_TOKEN = 64

Way = tuple[str, Form]
"""Where to ask, and in which form."""


def _run(kit: Kit, weights: Weights) -> Measured:
    tape = ReplayProcess()
    weights = endless(weights, kit.folder)
    upstream = kit.start(OURS, weights)
    front = BenchServer(CORECTL_REMOTES=f"lab={upstream.url},tape={tape.url}")
    try:
        return _measure(kit, weights, tape.url, upstream.url, front)
    finally:
        front.close()
        upstream.close()
        tape.close()


def _measure(kit: Kit, weights: Weights, tape: str, upstream: str, front: BenchServer) -> Measured:
    def way(url: str, model: str) -> Way:
        return url, NativeForm(model, threads=kit.threads, num_ctx=NUM_CTX)

    ways = {
        DIRECT: way(upstream, weights.name),
        THROUGH: way(front.url, f"lab/{weights.name}"),
        TAPE: way(tape, MODEL),
        TAPE_THROUGH: way(front.url, f"tape/{MODEL}"),
    }
    found: Measured = {name: [] for name in ways}
    for url, form in ways.values():
        stream(url, form, story("remote"), 4)
    for _ in range(kit.rounds):
        for pair in ((DIRECT, THROUGH), (TAPE, TAPE_THROUGH)):
            seconds = _first(ways[pair[0]], ways[pair[1]])
            for name, values in zip(pair, seconds, strict=True):
                found[name].append(_figures(values))
        before = front.cpu_seconds()
        reply = stream(*ways[THROUGH], story("remote"), PER_TOKEN)
        found[THROUGH][-1]["us a token"] = (front.cpu_seconds() - before) / reply.counts.output * 1e6
    return found


def _first(one: Way, other: Way) -> tuple[list[float], list[float]]:
    """Times to the first token of a known prompt, each way in turn, so that both meet the same noise."""
    ones, others = [], []
    for _ in range(REQUESTS):
        ones.append(stream(*one, story("remote"), 1).first)
        others.append(stream(*other, story("remote"), 1).first)
    return ones, others


def _figures(seconds: list[float]) -> Figures:
    quarters = statistics.quantiles(seconds, n=4)
    return {"first p50 ms": quarters[1] * 1e3, "first p25 ms": quarters[0] * 1e3}


SCENARIO = Scenario(
    name="remote",
    title=f"Time to the first token through a server in front, {REQUESTS} requests a round",
    run=_run,
    ratios=(
        Ratio("first p50 ms", DIRECT, "2 ms or less", row=THROUGH, difference=True),
        Ratio("first p50 ms", TAPE, "2 ms or less", row=TAPE_THROUGH, difference=True),
    ),
    models=("smollm2",),
)
