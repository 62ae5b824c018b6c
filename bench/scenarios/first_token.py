"""What the way through the server adds to the time to the first token of a short prompt."""

from __future__ import annotations

from collections.abc import Callable

from bench.bare import BareLoop
from bench.kit import BARE, Field, Figures, Kit, Measured, Ratio, Scenario, Target
from bench.weights import Weights, story
from bench.wire import stream

REQUESTS = 20
"""In a round; one after another, each computed as a whole."""


def _served(target: Target) -> Callable[[int], Figures]:
    """With what is left without the time that the server says its engine took: steps differ by more than that."""
    form = target.form.uncached()

    def measure(number: int) -> Figures:
        reply = stream(target.url, form, story("first", number), 1)
        figures = {"first p50 ms": reply.first * 1e3}
        if (computing := reply.counts.computing) is not None:
            figures["beside the step p50 ms"] = (reply.first - computing) * 1e3
        return figures

    return measure


def _bare(loop: BareLoop) -> Callable[[int], Figures]:
    return lambda number: {"first p50 ms": loop.measure([story("first", number)], 1)["first"] * 1e3}


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
