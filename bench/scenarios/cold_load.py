"""From nothing in memory to the first token; the file itself is in the page cache."""

from __future__ import annotations

import time
from collections.abc import Callable

import httpx

from bench.kit import OURS, Figures, Kit, Measured, Ratio, Scenario, Target, interleave
from bench.weights import MODEL, Weights, story

LOADED_BY_REQUEST = f"{OURS}, server running"


def _process(kit: Kit, weights: Weights, name: str) -> Callable[[int], Figures]:
    """From the start of the server's process."""

    def measure(number: int) -> Figures:
        started = time.perf_counter()
        target = kit.start(name, weights)
        reply = target.ask(story("cold", number), 1)
        target.close()
        return {"first s": reply.times[0] - started}

    return measure


def _request(target: Target, weights: Weights) -> Callable[[int], Figures]:
    """From a request to a running server that has no model in memory."""

    def measure(number: int) -> Figures:
        httpx.post(
            f"{target.url}/api/generate",
            json={"model": weights.name, "keep_alive": 0},
            timeout=60,
            trust_env=False,
        ).raise_for_status()
        return {"first s": target.ask(story("cold", number), 1).first}

    return measure


def _run(kit: Kit, weights: Weights) -> Measured:
    ours = kit.start(OURS, weights)
    try:
        work = {LOADED_BY_REQUEST: _request(ours, weights)}
        return interleave(
            kit.rounds, work | {name: _process(kit, weights, name) for name in (OURS, *kit.peers.found)}
        )
    finally:
        ours.close()


SCENARIO = Scenario(
    name="cold_load",
    title="Cold load: from the start of the process, or from the request, to the first token",
    run=_run,
    # Weights that must be copied into the store first would count as part of the start.
    models=(MODEL,),
    ratios=(
        Ratio("first s", "llama-server", "1.1 or less", row=LOADED_BY_REQUEST),
        Ratio("first s", "llama-server", "none: the server is started once"),
    ),
)
