"""Checks of how tokens are drawn: by which options, with which probabilities, under which masks."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest

from corectl.errors import CorectlError
from corectl.messages import Notice, SamplingOptions
from corectl.runner.engine import Engine, Sampled
from corectl.testing.backend.base import BackendChecks
from corectl.testing.drive import Sequences, draw, tokens_of
from corectl.testing.suite import optional

HOT = SamplingOptions(temperature=1.5, top_k=100, top_p=1.0, seed=1)
PENALTIES = ("presence_penalty", "frequency_penalty", "repeat_penalty")
LARGE = 1000.0
"""A penalty that no likelihood outweighs."""


class Only:
    """A constraint that allows some tokens, and notes how the engine calls it."""

    notices: Sequence[Notice] = ()

    def __init__(self, tokens: Sequence[int]) -> None:
        self.tokens = sorted(set(tokens))
        self.shapes: list[tuple[int, ...]] = []
        self.kinds: set[str] = set()
        self.accepted: list[int] = []

    def mask(self, logits: npt.NDArray[np.float32]) -> None:
        self.shapes.append(logits.shape)
        self.kinds.add(str(logits.dtype))
        kept = logits[self.tokens].copy()
        logits[:] = -np.inf
        logits[self.tokens] = kept

    def accept(self, token: int) -> None:
        self.accepted.append(token)


class Spelled(Only):
    """A constraint that allows one token after the other."""

    def __init__(self, tokens: Sequence[int]) -> None:
        super().__init__(tokens)
        self._left = list(tokens)

    def mask(self, logits: npt.NDArray[np.float32]) -> None:
        self.tokens = [self._left.pop(0)]
        super().mask(logits)


def _with(sampling: SamplingOptions = HOT, /, **changes: float) -> SamplingOptions:
    values = {name: getattr(sampling, name) for name in sampling.__struct_fields__}
    return SamplingOptions(**(values | changes))


def _says_that_it_ignores_penalties(suite: BackendChecks, corectl_engine: Engine) -> None:
    ignored = set(PENALTIES) & set(suite.backend().availability().ignores)
    assert ignored == set(PENALTIES), "availability().ignores does not have them all"


def _refuses_logprobs(suite: BackendChecks, corectl_engine: Engine) -> None:
    with Sequences(corectl_engine) as sequences:
        try:
            driver = sequences.begin(suite.texts(corectl_engine)[0], top_logprobs=5)
        except CorectlError:
            return
        (sampled,) = driver.run(1)
    assert sampled.chosen is None and sampled.top == (), "there are probabilities after all"


def _refuses_masks(suite: BackendChecks, corectl_engine: Engine) -> None:
    prompt = suite.texts(corectl_engine)[0]
    with pytest.raises(CorectlError), Sequences(corectl_engine) as sequences:
        sequences.begin(prompt, constraint=Only(prompt))


class GenerationChecks(BackendChecks):
    def test_greedy(self, corectl_engine: Engine) -> None:
        """At temperature 0 a prompt is always continued in the same way."""
        runs = [tokens_of(self.draw(corectl_engine, self.texts(corectl_engine)[0], 12)) for _ in range(3)]
        assert runs[0] == runs[1] == runs[2]
        assert all(0 <= token < corectl_engine.tokenizer.size for token in runs[0])
        others = {tuple(tokens_of(self.draw(corectl_engine, text, 6))) for text in self.texts(corectl_engine)}
        assert len(others) > 1, "whatever the prompt, the answer is the same"

    def test_seeds(self, corectl_engine: Engine) -> None:
        """The same seed draws the same tokens, another seed others; without one, each request has its own."""
        prompt = self.texts(corectl_engine)[0]

        def drawn(seed: int) -> tuple[int, ...]:
            return tuple(tokens_of(self.draw(corectl_engine, prompt, 16, _with(seed=seed))))

        assert drawn(1) == drawn(1)
        assert len({drawn(seed) for seed in (1, 2, 3)}) > 1, "the seed changes nothing"
        assert len({drawn(-1) for _ in range(3)}) > 1, "without a seed the tokens are always the same"

    def test_sampling_options(self, corectl_engine: Engine) -> None:
        """`temperature`, `top_k`, `top_p`, `min_p` and `typical_p` do what they are for, unless `ignores` has them."""
        prompt = self.texts(corectl_engine)[1]
        likeliest = tokens_of(self.draw(corectl_engine, prompt, 8))
        assert tokens_of(self.draw(corectl_engine, prompt, 8, HOT)) != likeliest, (
            "temperature changes nothing"
        )
        ignored = self.backend().availability().ignores
        for name, value in {"temperature": 0.0, "top_k": 1, "top_p": 1e-6, "min_p": 1.0}.items():
            if name not in ignored:
                found = tokens_of(self.draw(corectl_engine, prompt, 8, _with(**{name: value})))
                assert found == likeliest, f"with {name} {value} the likeliest token is not the only one"
        if "typical_p" not in ignored:
            # One token is the most typical, whatever is drawn.
            runs = [
                tokens_of(self.draw(corectl_engine, prompt, 8, _with(typical_p=1e-6, seed=seed)))
                for seed in (1, 2)
            ]
            assert runs[0] == runs[1], "typical_p leaves more than the most typical token"

    @optional(_says_that_it_ignores_penalties)
    def test_penalties(self, corectl_engine: Engine) -> None:
        """`presence_penalty`, `frequency_penalty` and `repeat_penalty` keep tokens of prompt and output away."""
        prompt = self.texts(corectl_engine)[0]
        greedy = SamplingOptions(temperature=0, repeat_last_n=-1)
        for name in ("presence_penalty", "frequency_penalty"):
            found = tokens_of(self.draw(corectl_engine, prompt, 24, _with(greedy, **{name: LARGE})))
            assert len(set(found)) == 24 and not set(found) & set(prompt), f"tokens come again despite {name}"
        plain = tokens_of(self.draw(corectl_engine, prompt, 48, greedy))
        assert len({*prompt, *plain}) < len({*prompt}) + 48, "the model repeats nothing in 48 tokens"
        found = tokens_of(self.draw(corectl_engine, prompt, 48, _with(greedy, repeat_penalty=LARGE)))
        assert found != plain, "repeat_penalty changes nothing"

    @optional(_refuses_logprobs)
    def test_logprobs(self, corectl_engine: Engine) -> None:
        """Probabilities are natural logarithms of the model's own, from before any sampler; the best come first."""
        prompt, size = self.texts(corectl_engine)[1], corectl_engine.tokenizer.size
        (everything,) = draw(corectl_engine, prompt, 1, top_logprobs=size)
        total = sum(math.exp(item.logprob) for item in everything.top)
        assert total == pytest.approx(1, abs=1e-3), "the probabilities of all tokens are not 1 together"
        few = draw(corectl_engine, prompt, 4, top_logprobs=5)
        for sampled in few:
            self._in_order(sampled)
            assert sampled.chosen == sampled.top[0], "the greedy choice is not the likeliest token"
        (hot,) = draw(corectl_engine, prompt, 1, _with(temperature=2.0, top_k=2), top_logprobs=5)
        self._in_order(hot)
        self._same_top(few[0], hot)
        (one,) = draw(corectl_engine, prompt, 1, top_logprobs=0)
        assert one.chosen is not None and one.top == ()
        (none,) = draw(corectl_engine, prompt, 1)
        assert none.chosen is None and none.top == (), "nobody has asked for probabilities"

    def _same_top(self, expected: Sampled, found: Sampled) -> None:
        """The same probabilities, whatever was drawn."""
        first, second = (Sampled(0, 0, top=item.top) for item in (expected, found))
        self.comparison().same([first], [second])

    def _in_order(self, sampled: Sampled) -> None:
        logprobs = [item.logprob for item in sampled.top]
        assert len({item.token for item in sampled.top}) == 5, "five different tokens were asked for"
        assert logprobs == sorted(logprobs, reverse=True) and logprobs[0] <= 0
        assert sampled.chosen is not None and sampled.chosen.token == sampled.token

    @optional(_refuses_masks)
    def test_masks(self, corectl_engine: Engine) -> None:
        """Only tokens that a constraint allows are drawn; it is asked once for each, and sees all logits."""
        prompt, size = self.texts(corectl_engine)[0], corectl_engine.tokenizer.size
        allowed = self.prompt(corectl_engine, 12)
        for sampling in (SamplingOptions(temperature=0), _with(temperature=2.0)):
            constraint = Only(allowed)
            with Sequences(corectl_engine) as sequences:
                driver = sequences.begin(prompt, sampling, constraint=constraint, top_logprobs=self.top)
                driver.run(12)
            assert set(driver.drawn) <= set(allowed), "a token was drawn that is not allowed"
            assert constraint.shapes == [(size,)] * 12, "mask is called once for each token, with all logits"
            assert constraint.kinds == {"float32"}
            assert not constraint.accepted, "accept is for the batch loop to call"
            self._same_top(self.draw(corectl_engine, prompt, 1)[0], driver.sampled[0])
        with Sequences(corectl_engine) as sequences:
            driver = sequences.begin(prompt, constraint=Spelled(allowed))
            driver.run(12)
        assert driver.drawn == allowed, "the only allowed token is not what is drawn"
