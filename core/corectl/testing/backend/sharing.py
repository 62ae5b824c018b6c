"""Checks of sequences that share what was computed, or are put aside."""

from __future__ import annotations

from corectl.errors import CorectlError
from corectl.runner.abilities import SequenceMemory
from corectl.runner.engine import Engine, Sampled
from corectl.testing.backend.base import BackendChecks
from corectl.testing.drive import Sequences
from corectl.testing.suite import optional


def _refuses_to_copy(suite: BackendChecks, corectl_engine: Engine) -> None:
    engine = corectl_engine
    if not isinstance(engine, SequenceMemory):
        return
    prompt = suite.prompt(corectl_engine, 20)
    with Sequences(corectl_engine) as sequences:
        source, target = (sequences.begin(prompt) for _ in range(2))
        source.run(1)
        try:
            copied = engine.copy(source.id, target.id, 20)
        except CorectlError:
            copied = False
    assert not copied, "a copy was made after all"


def _refuses_to_save(suite: BackendChecks, corectl_engine: Engine) -> None:
    engine = corectl_engine
    if not isinstance(engine, SequenceMemory):
        return
    with Sequences(corectl_engine) as sequences:
        driver = sequences.begin(suite.prompt(corectl_engine, 20))
        driver.run(1)
        assert engine.state_size(driver.id) == 0 and engine.save(driver.id) is None


def _says_that_it_cannot_cut(suite: BackendChecks, corectl_engine: Engine) -> None:
    assert not isinstance(corectl_engine, SequenceMemory) or not corectl_engine.can_cut, (
        "can_cut says that it can"
    )


class SharingChecks(BackendChecks):
    def _afresh(self, engine: Engine, tokens: list[int], at: int) -> list[Sampled]:
        """Computed in the two pieces of one that begins with the first `at` tokens of another."""
        with Sequences(engine) as sequences:
            driver = sequences.begin(tokens, top_logprobs=self.top)
            driver.step(at)
            return driver.run(6)

    @optional(_refuses_to_copy)
    def test_prefix_sharing(self, corectl_engine: Engine) -> None:
        """A sequence begins with what another has computed, and gives what it would give by itself."""
        engine = corectl_engine
        assert isinstance(engine, SequenceMemory)
        first, rest = self.prompt(corectl_engine, 30), self.prompt(corectl_engine, 9, start=50)
        expected = self._afresh(corectl_engine, first + rest, len(first))
        comparison = self.comparison()
        with Sequences(corectl_engine) as sequences:
            source = sequences.begin(first)
            source.run(1)
            engine.keep(source.id)
            target = sequences.begin(first + rest, top_logprobs=self.top)
            assert engine.copy(source.id, target.id, len(first)), "the whole of a sequence cannot be copied"
            target.computed = len(first)
            sequences.end(source)
            comparison.same(expected, target.run(6))
        if engine.can_cut:
            self._shares_while_both_run(corectl_engine, engine)
        else:
            self._begins_with_a_part(corectl_engine, engine)
        comparison.conclude()

    def _begins_with_a_part(self, engine: Engine, memory: SequenceMemory) -> None:
        """A copy of a part, from a source that has gone on since. It may be refused, but it must not be wrong."""
        first, rest = self.prompt(engine, 30), self.prompt(engine, 9, start=50)
        expected = self._afresh(engine, first[:20] + rest, 20)
        comparison = self.comparison()
        with Sequences(engine) as sequences:
            source = sequences.begin(first)
            source.run(3)
            memory.keep(source.id)
            target = sequences.begin(first[:20] + rest, top_logprobs=self.top)
            if memory.copy(source.id, target.id, 20):
                target.computed = 20
            comparison.same(expected, target.run(6))
        comparison.conclude()

    def _shares_while_both_run(self, engine: Engine, memory: SequenceMemory) -> None:
        """A copy of a part, from a source that goes on."""
        first, rest = self.prompt(engine, 30), self.prompt(engine, 9, start=50)
        alone = self.draw(engine, first, 8)
        expected = self._afresh(engine, first[:20] + rest, 20)
        comparison = self.comparison()
        with Sequences(engine) as sequences:
            source = sequences.begin(first, top_logprobs=self.top)
            source.run(2)
            target = sequences.begin(first[:20] + rest, top_logprobs=self.top)
            assert memory.copy(source.id, target.id, 20)
            target.computed = 20
            sequences.run(6, source, target)
        comparison.same(alone, source.sampled)
        comparison.same(expected, target.sampled)
        comparison.conclude()

    @optional(_refuses_to_save)
    def test_saved_states(self, corectl_engine: Engine) -> None:
        """A sequence's state is saved, and restored into another, which goes on where it was."""
        engine = corectl_engine
        assert isinstance(engine, SequenceMemory)
        comparison = self.comparison()
        with Sequences(corectl_engine) as sequences:
            driver = sequences.begin(self.prompt(corectl_engine, 30), top_logprobs=self.top)
            driver.run(3)
            state = engine.save(driver.id)
            assert state is not None and engine.state_size(driver.id) == len(state)
            tokens, computed = list(driver.tokens), driver.computed
            expected = driver.run(6)
            sequences.end(driver)
            # What was in those cells is overwritten before the state comes back.
            self.draw(corectl_engine, self.prompt(corectl_engine, 30, start=40), 4)
            other = sequences.begin(tokens, top_logprobs=self.top)
            assert engine.restore(other.id, state)
            other.computed = computed
            comparison.same(expected, other.run(6))
        comparison.conclude()

    @optional(_says_that_it_cannot_cut)
    def test_cutting(self, corectl_engine: Engine) -> None:
        """A sequence forgets its end, and goes on in another way."""
        engine = corectl_engine
        assert isinstance(engine, SequenceMemory) and engine.can_cut
        other = self.prompt(corectl_engine, 18) + self.prompt(corectl_engine, 9, start=50)
        comparison = self.comparison()
        with Sequences(corectl_engine) as sequences:
            driver = sequences.begin(self.prompt(corectl_engine, 30), top_logprobs=self.top)
            driver.run(3)
            engine.cut(driver.id, 18)
            driver.rewind(18, other)
            driver.run(6)
        comparison.same(self._afresh(corectl_engine, other, 18), driver.sampled)
        comparison.conclude()
