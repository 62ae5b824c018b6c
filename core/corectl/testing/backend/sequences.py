"""Checks of what sequences do to one another: nothing, whatever happens to them."""

from __future__ import annotations

import pytest

from corectl.errors import CorectlError
from corectl.runner.abilities import ThreadControl
from corectl.runner.engine import Engine
from corectl.testing.backend.base import BackendChecks
from corectl.testing.drive import Sequences
from corectl.testing.suite import optional


def _takes_one_at_a_time(suite: BackendChecks, corectl_engine: Engine) -> None:
    assert corectl_engine.info.max_sequences == 1, "EngineInfo.max_sequences promises more than one"
    prompt = suite.texts(corectl_engine)[0]
    with Sequences(corectl_engine) as sequences:
        sequences.begin(prompt).run(1)
        with pytest.raises(CorectlError):
            sequences.begin(prompt)


def _says_that_it_cannot_shift(suite: BackendChecks, corectl_engine: Engine) -> None:
    assert not corectl_engine.info.can_shift, "EngineInfo.can_shift says that it can"


def _has_no_thread_control(suite: BackendChecks, corectl_engine: Engine) -> None:
    assert not isinstance(corectl_engine, ThreadControl), "it has set_threads"


class SequenceChecks(BackendChecks):
    def test_chunked_prefill(self, corectl_engine: Engine) -> None:
        """A prompt may be computed in any pieces; nothing is drawn before its end."""
        length = min(48, corectl_engine.info.num_batch)
        prompt = self.prompt(corectl_engine, length)
        at_once = self.draw(corectl_engine, prompt, 8, piece=length)
        comparison = self.comparison()
        for piece in (1, 7, 16, length - 1):
            with Sequences(corectl_engine) as sequences:
                driver = sequences.begin(prompt, top_logprobs=self.top)
                while len(driver.tokens) - driver.computed > piece:
                    assert driver.step(piece) == []
                comparison.same(at_once, driver.run(8, piece))
        comparison.conclude()

    @optional(_takes_one_at_a_time)
    def test_batching(self, corectl_engine: Engine) -> None:
        """Sequences that are computed together, or join later, give what each gives alone."""
        assert corectl_engine.info.max_sequences > 1
        prompts = self.texts(corectl_engine)[: corectl_engine.info.max_sequences]
        alone = [self.draw(corectl_engine, prompt, 12) for prompt in prompts]
        comparison = self.comparison()
        with Sequences(corectl_engine) as sequences:
            drivers = [sequences.begin(prompt, top_logprobs=self.top) for prompt in prompts]
            sequences.run(12, *drivers)
        for driver, expected in zip(drivers, alone, strict=True):
            comparison.same(expected, driver.sampled)
        with Sequences(corectl_engine) as sequences:
            first = sequences.begin(prompts[0], top_logprobs=self.top)
            first.run(4)
            second = sequences.begin(prompts[1], top_logprobs=self.top)
            sequences.run(8, first, second)
        comparison.same(alone[0], first.sampled)
        comparison.same(alone[1][:8], second.sampled)
        comparison.conclude()

    def test_removal(self, corectl_engine: Engine) -> None:
        """A sequence that is removed in the middle, of its prompt too, harms no other, and its place is free."""
        prompts = self.texts(corectl_engine)
        alone = self.draw(corectl_engine, prompts[0], 10)
        places = corectl_engine.info.max_sequences
        comparison = self.comparison()
        with Sequences(corectl_engine) as sequences:
            others = []
            if places > 1:
                others.append(sequences.begin(prompts[0], top_logprobs=self.top))
                sequences.run(2, *others)
            for round in range(2 * places + 2):
                leaving = sequences.begin(self.prompt(corectl_engine, 20, start=round))
                # One leaves in the middle of its prompt, the next after some tokens.
                leaving.step(7) if round % 2 else sequences.run(1, leaving)
                sequences.end(leaving)
                for other in others[: round < 8]:
                    other.run(1)
        for other in others:
            comparison.same(alone[: len(other.sampled)], other.sampled)
        comparison.same(alone, self.draw(corectl_engine, prompts[0], 10))
        comparison.conclude()

    def test_clearing(self, corectl_engine: Engine) -> None:
        """A sequence whose tokens were cleared is computed again, and goes on as before."""
        prompt = self.prompt(corectl_engine, 24)
        comparison = self.comparison()
        with Sequences(corectl_engine) as sequences:
            driver = sequences.begin(prompt, top_logprobs=self.top)
            before = driver.run(4)
            corectl_engine.clear(driver.id)
            driver.rewind(0, driver.tokens)
            after = driver.run(4)
        comparison.same(self.draw(corectl_engine, prompt, 8), [*before, *after])
        comparison.conclude()

    @optional(_says_that_it_cannot_shift)
    def test_context_shift(self, corectl_engine: Engine) -> None:
        """A part of a sequence is forgotten and the rest moves down; it goes on, and others notice nothing."""
        assert corectl_engine.info.can_shift
        alone = self.draw(corectl_engine, self.texts(corectl_engine)[0], 8)
        together = corectl_engine.info.max_sequences > 1
        comparison = self.comparison()
        with Sequences(corectl_engine) as sequences:
            driver = sequences.begin(self.prompt(corectl_engine, 60), top_logprobs=self.top)
            driver.run(4)
            other = (
                sequences.begin(self.texts(corectl_engine)[0], top_logprobs=self.top) if together else None
            )
            if other is not None:
                other.run(4)
            corectl_engine.shift(driver.id, keep=4, discard=24)
            driver.rewind(driver.computed - 24, driver.tokens[:4] + driver.tokens[28:])
            assert all(0 <= item.token < corectl_engine.tokenizer.size for item in driver.run(8))
            if other is not None:
                other.run(4)
                comparison.same(alone, other.sampled)
                comparison.conclude()

    @optional(_has_no_thread_control)
    def test_thread_control(self, corectl_engine: Engine) -> None:
        """The number of threads can change between steps."""
        assert isinstance(corectl_engine, ThreadControl)
        prompt = self.texts(corectl_engine)[0]
        comparison = self.comparison()
        alone = self.draw(corectl_engine, prompt, 8)
        with Sequences(corectl_engine) as sequences:
            driver = sequences.begin(prompt, top_logprobs=self.top)
            for count in (2, 1, 2, 1):
                corectl_engine.set_threads(count)
                driver.run(2)
        comparison.same(alone, driver.sampled)
        comparison.conclude()
