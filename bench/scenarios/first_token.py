"""What the way through the server adds to the time to the first token of a short prompt."""

from __future__ import annotations

from collections.abc import Callable

from bench.bare import BareLoop
from bench.kit import BARE, Field, Figures, Kit, Measured, Ratio, Scenario, Target
from bench.weights import Weights, story
from bench.wire import stream

REQUESTS = 20
"""In a round; one after another, each computed as a whole."""


def _figures(seconds: float) -> Figures:
    return {"first p50 ms": seconds * 1e3}


def _served(target: Target) -> Callable[[int], Figures]:
    form = target.form.uncached()
    return lambda number: _figures(stream(target.url, form, story("first", number), 1).first)


def _bare(loop: BareLoop) -> Callable[[int], Figures]:
    return lambda number: _figures(loop.measure([story("first", number)], 1)["first"])


def _run(kit: Kit, weights: Weights) -> Measured:
    def work(field: Field) -> dict[str, Callable[[int], Figures]]:
        return {BARE: _bare(field.bare), **{target.name: _served(target) for target in field.targets}}

    return kit.measure(weights, work, REQUESTS)


SCENARIO = Scenario(
    name="first_token",
    title="Time to the first token of a short prompt",
    run=_run,
    ratios=(
        Ratio("first p50 ms", BARE, "3 ms or less", difference=True),
        Ratio("first p50 ms", "llama-server", "at most 1"),
    ),
)
