"""How many prompt tokens a step may take while sequences generate: who reads what they say is not to wait for it.

A step with prompt tokens takes about `READING` seconds, if that is `LONGER` to `MUCH_LONGER` times as long as it takes
without them. Short steps would not do much for the readers, and make the prompt long: many engines take less time for
each token if there are more of them, and what generates beside a prompt grows, and takes longer for each token then.
"""

from __future__ import annotations

import math

READING = 0.2
"""Seconds between two tokens: five in a second, which is as fast as people read."""

LONGER, MUCH_LONGER = 2, 6
"""So many times the time of a step without prompt tokens a step with some may take in any case, and at most."""

LEAST, FIRST = 4, 16
"""Prompt tokens of a step with company: at least, so that prompts move on; and while nothing is known of times."""

PROBE = 16
"""After so many steps with prompt tokens comes one without, so that it stays known how long that takes."""


class Pace:
    """Running estimates of seconds: of a step in which so many sequences generate, and of a prompt token besides."""

    def __init__(self) -> None:
        self._steps: dict[int, float] = {}
        self._token: float | None = None
        self._mixed = 0
        self._last = 0

    def prompt_tokens(self, generating: int) -> int:
        """The most prompt tokens of the next step, in which so many sequences (1 or more) generate."""
        if self._mixed >= PROBE:
            return 0
        alone = self._step(generating)
        if alone is None or not self._token:
            return FIRST
        allowed = max(LONGER * alone, min(READING, MUCH_LONGER * alone))
        wanted = int((allowed - alone) / self._token)
        return max(LEAST, min(wanted, max(FIRST, 2 * self._last)))

    def took(self, seconds: float, *, generating: int, prompt_tokens: int) -> None:
        """Takes note of a step without images.

        Estimates are quick to change the way that makes for short steps, and slow the other way: on a busy machine a
        single step may take a hundred times as long as the others.
        """
        alone = self._step(generating) if generating else 0.0
        if generating and prompt_tokens:
            self._mixed, self._last = self._mixed + 1, prompt_tokens
        elif generating:
            self._mixed = 0
        if generating and (not prompt_tokens or (alone is not None and seconds < alone)):
            # Without its prompt tokens a step would not have taken longer than with them.
            self._steps[generating] = _blend(alone, seconds, up=0.15, down=0.5, most=2.0)
        elif alone is not None:
            self._token = _blend(self._token, (seconds - alone) / prompt_tokens, up=0.5, down=0.25)

    def _step(self, generating: int) -> float | None:
        """Of a number of sequences that was not seen yet, the time of the next smaller one is the best guess."""
        known = self._steps.get(generating)
        if known is None and self._steps:
            fewer = [count for count in self._steps if count < generating]
            known = self._steps[max(fewer, default=min(self._steps))]
        return known


def _blend(old: float | None, new: float, *, up: float, down: float, most: float = math.inf) -> float:
    """`up` and `down` are the weights of a new value, which counts as `most` times the old one at most."""
    if not old:
        return new
    return old + (up if new > old else down) * (min(new, most * old) - old)
