"""What running streams feel while another client's prompt of 4,000 tokens is read."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from bench.kit import Figures, Kit, Measured, Scenario, Target
from bench.weights import Weights, story, text
from bench.wire import Left, Watch

STREAMS = 4
PROMPT = 4000
QUIET = 50
"""Tokens that each stream has before the prompt comes."""
OUTPUT = 4000
"""Tokens; no stream may end before it is left."""


def percentile(values: list[float], part: float) -> float:
    ordered = sorted(values)
    return ordered[min(int(len(ordered) * part), len(ordered) - 1)]


def _gaps(streams: list[list[float]], begin: float, end: float) -> list[float]:
    """Seconds between the tokens of each stream, of those that came in between."""
    return [
        later - sooner
        for times in streams
        for sooner, later in itertools.pairwise(times)
        if begin < later <= end
    ]


def _listen(target: Target, prompt: str, watch: Watch) -> None:
    with suppress(Left):
        target.ask(prompt, OUTPUT, watch)


def _measure(target: Target) -> Callable[[int], Figures]:
    def measure(number: int) -> Figures:
        watches = [Watch() for _ in range(STREAMS)]
        with ThreadPoolExecutor(STREAMS) as pool:
            for at, watch in enumerate(watches):
                pool.submit(_listen, target, story("company", number, at), watch)
            while any(len(watch.times) < QUIET for watch in watches):
                time.sleep(0.01)
            long = target.ask(text(PROMPT, "company", number), 1)
            for watch in watches:
                watch.leave.set()
        streams = [watch.times for watch in watches]
        # Pieces that travel together come at once; what lies between them on average is what a reader feels.
        quiet = statistics.mean(_gaps(streams, max(times[0] for times in streams), long.sent))
        busy = _gaps(streams, long.sent, long.times[0])
        p50, p99 = percentile(busy, 0.5), percentile(busy, 0.99)
        return {
            "quiet mean ms": quiet * 1e3,
            "p50 ms": p50 * 1e3,
            "p99 ms": p99 * 1e3,
            "p99/p50": p99 / p50,
            "p99/quiet mean": p99 / quiet,
            "tok/s meanwhile": len(busy) / long.first,
            "long first s": long.first,
        }

    return measure


def _run(kit: Kit, weights: Weights) -> Measured:
    return kit.measure(
        weights,
        lambda field: {target.name: _measure(target) for target in field.targets if target.concurrent},
    )


SCENARIO = Scenario(
    name="company",
    title=f"{STREAMS} running streams while another client's {PROMPT:,} tokens are read (goal: p99/p50 under 3)",
    run=_run,
)
