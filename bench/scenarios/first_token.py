"""What the way through the server adds to the time to the first token of a short prompt."""

from __future__ import annotations

import statistics
from collections.abc import Callable

from bench.bare import BareLoop
from bench.kit import BARE, Figures, Kit, Measured, Ratio, Scenario, Target, interleave
from bench.weights import Weights, story
from bench.wire import stream

REQUESTS = 20
"""In a round; one after another, each computed as a whole."""


def _prompts(number: int) -> list[str]:
    return [story("first", number, request) for request in range(REQUESTS)]


def _figures(seconds: list[float]) -> Figures:
    return {"first p50 ms": statistics.median(seconds) * 1e3, "first max ms": max(seconds) * 1e3}


def _served(target: Target) -> Callable[[int], Figures]:
    form = target.form.uncached()
    return lambda number: _figures([stream(target.url, form, prompt, 1).first for prompt in _prompts(number)])


def _bare(loop: BareLoop) -> Callable[[int], Figures]:
    return lambda number: _figures([loop.measure([prompt], 1)["first"] for prompt in _prompts(number)])


def _run(kit: Kit, weights: Weights) -> Measured:
    field = kit.field(weights)
    served = {target.name: _served(target) for target in field.targets}
    return interleave(kit.rounds, {BARE: _bare(field.bare), **served})


SCENARIO = Scenario(
    name="first_token",
    title=f"Time to the first token of a short prompt, {REQUESTS} requests a round",
    run=_run,
    ratios=(
        Ratio("first p50 ms", BARE, "3 ms or less", difference=True),
        Ratio("first p50 ms", "llama-server", "at most 1"),
    ),
)
