"""Prompts that begin as earlier ones did: only what is new should be computed."""

from __future__ import annotations

import statistics
from collections.abc import Callable

from bench.kit import STREAMS, Figures, Kit, Measured, Ratio, Scenario, Target
from bench.weights import Weights, text
from bench.wire import Reply

FIRST_TURN = 1000
SYSTEM = 2000
ANSWER = 32
CHATS = 4
"""In a round: of each there is only one figure."""


def _figures(replies: list[Reply]) -> Figures:
    """Servers that do not say what they computed have no such figure."""
    found = {
        "first p50 ms": statistics.median(reply.first for reply in replies) * 1e3,
        "first max ms": max(reply.first for reply in replies) * 1e3,
    }
    for name in ("prompt", "evaluated"):
        counts = [getattr(reply.counts, name) for reply in replies]
        if None not in counts:
            found[f"{name} tokens"] = float(sum(counts))
    return found


def _second_turn(target: Target) -> Callable[[int], Figures]:
    def measure(number: int) -> Figures:
        prompt = text(FIRST_TURN, "turn", number) + "\nUser: Who are you?\nAssistant:"
        answer = target.ask(prompt, ANSWER).text
        return _figures([target.ask(f"{prompt}{answer}\nUser: And where do you live?\nAssistant:", ANSWER)])

    return measure


def _shared_prompt(target: Target) -> Callable[[int], Figures]:
    def measure(number: int) -> Figures:
        system = text(SYSTEM, "system", number)
        prompts = [f"{system}\nUser: What is {n} times {n + 1}?\nAssistant:" for n in range(STREAMS)]
        return _figures(target.ask_all(prompts, ANSWER))

    return measure


def _run(
    kit: Kit, weights: Weights, turns: int, measure: Callable[[Target], Callable[[int], Figures]]
) -> Measured:
    return kit.measure(
        weights, lambda field: {target.name: measure(target) for target in field.targets}, turns
    )


SECOND_TURN = Scenario(
    name="second_turn",
    title=f"The second turn of a chat whose first had {FIRST_TURN:,} tokens",
    run=lambda kit, weights: _run(kit, weights, CHATS, _second_turn),
    ratios=(Ratio("first p50 ms", "llama-server", "below 1"),),
)
SHARED_PROMPT = Scenario(
    name="shared_prompt",
    title=f"{STREAMS} clients at once with one system prompt of {SYSTEM:,} tokens that nobody had before",
    run=lambda kit, weights: _run(kit, weights, 1, _shared_prompt),
    ratios=(Ratio("first p50 ms", "llama-server", "below 1"),),
)
