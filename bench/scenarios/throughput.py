"""Tokens a second of one stream, and of eight at once."""

from __future__ import annotations

from collections.abc import Callable

from bench.bare import BareLoop
from bench.kit import BARE, STREAMS, Field, Figures, Kit, Measured, Ratio, Scenario, Target
from bench.weights import Weights, story
from bench.wire import Reply


def rate(replies: list[Reply]) -> float:
    """Tokens a second while all streams run: from the last one's first token to the first one's last.

    Of a server that answers one after another: from the first token of all to the last.
    """
    begin, end = max(reply.times[0] for reply in replies), min(reply.times[-1] for reply in replies)
    if begin >= end:
        begin, end = min(reply.times[0] for reply in replies), max(reply.times[-1] for reply in replies)
    return sum(
        sum(begin < moment <= end for moment in reply.times) * reply.tokens_per_chunk for reply in replies
    ) / (end - begin)


def _served(target: Target, streams: int, tokens: int) -> Callable[[int], Figures]:
    def measure(number: int) -> Figures:
        replies = target.ask_all([story(number, stream) for stream in range(streams)], tokens)
        return {"tok/s": rate(replies), "tokens": float(sum(reply.counts.output for reply in replies))}

    return measure


def _bare(loop: BareLoop, streams: int, tokens: int) -> Callable[[int], Figures]:
    return lambda number: {
        "tok/s": loop.measure([story(number, stream) for stream in range(streams)], tokens)["tok/s"]
    }


def _run(kit: Kit, weights: Weights, streams: int, replies: int) -> Measured:
    """So many `replies` in a round: one takes a second or a few, and differs from the next by a tenth."""

    def work(field: Field) -> dict[str, Callable[[int], Figures]]:
        served = {target.name: _served(target, streams, kit.tokens) for target in field.targets}
        return {BARE: _bare(field.bare, streams, kit.tokens), **served}

    return kit.measure(weights, work, replies)


ONE = Scenario(
    name="one_stream",
    title="One stream: tokens a second over HTTP",
    run=lambda kit, weights: _run(kit, weights, 1, 8),
    ratios=(
        Ratio("tok/s", BARE, "0.98 or more"),
        Ratio("tok/s", "llama-server", "1 or more"),
    ),
)
EIGHT = Scenario(
    name="eight_streams",
    title="Eight streams: tokens a second of all together",
    run=lambda kit, weights: _run(kit, weights, STREAMS, 4),
    ratios=(
        Ratio("tok/s", BARE, "0.95 or more"),
        Ratio("tok/s", "llama-server", "above 1"),
    ),
)
