"""Draws tokens from logits, for engines whose library leaves that to us. In the runner process.

Each operation is one call over the whole vocabulary, and the samplers come in the documented order: biases, penalties,
top_k, typical_p, top_p, min_p, temperature, draw.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from corectl.messages import SamplingOptions
from corectl.runner.engine import Candidate

Logits = npt.NDArray[np.float32]
Tokens = npt.NDArray[np.intp]
Chances = npt.NDArray[np.float64]

NEGLIGIBLE = 30.0
"""Natural logarithms below the likeliest token. What lies deeper is left out before tokens are sorted: all of it
together is less than a billionth."""

_COLUMNS = 1024
"""Into so many logits are laid, where only the largest of many are wanted."""


class Sampler:
    """Draws the tokens of one sequence. `prompt` counts for the penalties; `num_ctx` is the longest sequence."""

    def __init__(self, options: SamplingOptions, *, num_ctx: int, prompt: Sequence[int]) -> None:
        self._options = options
        window = num_ctx if options.repeat_last_n < 0 else min(options.repeat_last_n, num_ctx)
        penalties = (options.repeat_penalty, options.frequency_penalty, options.presence_penalty)
        self._window: deque[int] = deque(maxlen=window if penalties != (1.0, 0.0, 0.0) else 0)
        self._window.extend(prompt[-window:] if window else ())
        self._biased = np.fromiter(options.logit_bias, np.intp, len(options.logit_bias))
        self._biases = np.fromiter(options.logit_bias.values(), np.float32, len(options.logit_bias))
        self._random = np.random.default_rng(options.seed % 2**64 if options.seed >= 0 else None)

    def draw(self, logits: Logits) -> int:
        """The next token. `logits` has one value for each token, and is changed."""
        self._adjust(logits)
        if self._options.temperature <= 0:
            token = int(logits.argmax())
        else:
            tokens, chances = self._distribution(logits)
            sums = chances.cumsum()
            place = int(np.searchsorted(sums, self._random.random() * sums[-1], side="right"))
            token = int(tokens[min(place, len(sums) - 1)])
        self._window.append(token)
        return token

    def distribution(self, logits: Logits) -> tuple[Tokens, Chances]:
        """The tokens that may come next and how likely each is, if the temperature is not 0. `logits` is changed."""
        self._adjust(logits)
        return self._distribution(logits)

    def _adjust(self, logits: Logits) -> None:
        if len(self._biased):
            logits[self._biased] += self._biases
        if self._window:
            self._penalise(logits)

    def _penalise(self, logits: Logits) -> None:
        options, counts = self._options, Counter(self._window)
        tokens = np.fromiter(counts, np.intp, len(counts))
        times = np.fromiter(counts.values(), np.float32, len(counts))
        values = logits[tokens]
        values = np.where(values <= 0, values * options.repeat_penalty, values / options.repeat_penalty)
        logits[tokens] = values - times * options.frequency_penalty - options.presence_penalty

    def _distribution(self, logits: Logits) -> tuple[Tokens, Chances]:
        options = self._options
        if 0 < options.top_k < len(logits):
            tokens = largest(logits, options.top_k)
        elif options.top_p < 1 or options.typical_p < 1 or options.min_p > 0:
            tokens = np.flatnonzero(logits >= logits.max() - NEGLIGIBLE)
        else:
            return np.arange(len(logits)), _softmax(logits, options.temperature)
        tokens = tokens[np.argsort(-logits[tokens], kind="stable")]
        tokens = self._cut(tokens, logits[tokens])
        return tokens, _softmax(logits[tokens], options.temperature)

    def _cut(self, tokens: Tokens, logits: Logits) -> Tokens:
        """Those of `tokens`, which are sorted, that typical_p, top_p and min_p leave."""
        options = self._options
        if options.typical_p < 1:
            chances = _softmax(logits)
            surprise = -np.log(np.maximum(chances, 1e-45))
            nearest = np.argsort(np.abs(surprise - (chances * surprise).sum()), kind="stable")
            keep = np.sort(nearest[: _reaching(chances[nearest], options.typical_p)])
            tokens, logits = tokens[keep], logits[keep]
        if options.top_p < 1:
            count = _reaching(_softmax(logits), options.top_p)
            tokens, logits = tokens[:count], logits[:count]
        if options.min_p > 0:
            tokens = tokens[logits >= logits[0] + np.log(options.min_p)]
        return tokens


def likeliest(logits: Logits, count: int) -> Tokens:
    """The `count` tokens with the largest logits and a few more, in the order of their numbers.

    The largest of a column stands for it: what `count` of the columns reach, at least `count` logits do. That leaves
    few to choose among, in a tenth of the time that choosing among all takes. What is forbidden, with a logit of minus
    infinity, is not among them if anything else is: then they may be fewer. All tokens, where that takes no longer.
    """
    if count == 1:
        return np.array([logits.argmax()])
    rows = len(logits) // _COLUMNS
    if rows < 2 or 2 * count > _COLUMNS:
        return np.arange(len(logits))
    highest = np.maximum.reduce(logits[: rows * _COLUMNS].reshape(rows, _COLUMNS))
    highest.partition(_COLUMNS - count)
    least = highest[_COLUMNS - count]
    tokens = (logits >= least if least > -np.inf else logits > -np.inf).nonzero()[0]
    return tokens if len(tokens) else np.arange(len(logits))


def largest(logits: Logits, count: int) -> Tokens:
    """The `count` tokens with the largest logits, or all if there are not so many; in any order."""
    if count >= len(logits):
        return np.arange(len(logits))
    tokens = likeliest(logits, count)
    if len(tokens) < count:
        return np.argpartition(logits, -count)[-count:]
    return tokens[np.argpartition(logits[tokens], -count)[-count:]]


def _softmax(logits: Logits, temperature: float = 1.0) -> Chances:
    # However small the temperature is, the likeliest token stays at 0, and others become minus infinity.
    with np.errstate(over="ignore"):
        values = np.exp((logits - logits.max()).astype(np.float64) / temperature)
    return np.asarray(values / values.sum())


def _reaching(chances: Chances, most: float) -> int:
    """How many of the chances, from the first on, it takes to reach `most`; at least one."""
    return max(1, min(len(chances), int(np.searchsorted(chances.cumsum(), most)) + 1))


def probabilities(logits: Logits, token: int, count: int) -> tuple[Candidate, tuple[Candidate, ...]]:
    """The natural-log probability of `token`, and of the `count` likeliest tokens, best first.

    `logits` has one value per token of the vocabulary, before any sampler.
    """
    highest = logits.max()
    norm = float(highest + np.log(np.exp(logits - highest).sum()))
    top: tuple[Candidate, ...] = ()
    if count:
        best = largest(logits, count)
        best = best[np.argsort(-logits[best], kind="stable")]
        top = tuple(Candidate(int(item), min(float(logits[item]) - norm, 0.0)) for item in best)
    return Candidate(token, min(float(logits[token]) - norm, 0.0)), top
