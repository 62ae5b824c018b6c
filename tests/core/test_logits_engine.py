"""The adapter for libraries that compute one sequence at a time: what is made of logits, and what is refused."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import pytest

from corectl.errors import EngineError
from corectl.messages import Notice, SamplingOptions
from corectl.runner.engine import Constraint, EngineInfo, Passage, SequenceSpec, Tokenizer, Work
from corectl.runner.logits import LogitsEngine, TokenStream
from tests.core.fake import FakeTokenizer

SIZE = FakeTokenizer().size
PROMPT = (1, 2, 3)
GREEDY = SamplingOptions(temperature=0)


class Stream:
    """The next token is the sum of those before, the second best is the one after. Says how it was fed."""

    def __init__(self, fed: list[tuple[int, ...]]) -> None:
        self._fed, self._sum = fed, 0

    def feed(self, tokens: Sequence[int]) -> npt.NDArray[np.float32]:
        self._fed.append(tuple(tokens))
        if 99 in tokens:
            raise EngineError("the library failed")
        self._sum += sum(tokens)
        # The matrix that makes logits has more rows than there are tokens.
        logits = np.zeros(SIZE + 8, np.float32)
        logits[self._sum : self._sum + 2] = (3, 2)
        logits[SIZE:] = 50
        return logits

    def close(self) -> None:
        pass


class Model:
    tokenizer: Tokenizer = FakeTokenizer()
    info = EngineInfo(num_ctx=16, cells=16, num_batch=8, max_sequences=2, num_thread=1, memory=0)

    def __init__(self) -> None:
        self.fed: list[tuple[int, ...]] = []

    def open(self) -> TokenStream:
        return Stream(self.fed)

    def close(self) -> None:
        pass


class Not:
    """A constraint that forbids one token."""

    notices: Sequence[Notice] = ()

    def __init__(self, token: int) -> None:
        self.token, self.shapes = token, list[tuple[int, ...]]()

    def mask(self, logits: npt.NDArray[np.float32]) -> None:
        self.shapes.append(logits.shape)
        logits[self.token] = -np.inf

    def accept(self, token: int) -> None:
        raise AssertionError("the batch loop does that")


def engine_with(
    sampling: SamplingOptions = GREEDY, *, top_logprobs: int = -1, constraint: Constraint | None = None
) -> tuple[LogitsEngine, Model]:
    """An engine with sequence 1."""
    model = Model()
    engine = LogitsEngine(model)
    spec = SequenceSpec(
        id=1, prompt=PROMPT, sampling=sampling, top_logprobs=top_logprobs, constraint=constraint
    )
    engine.add(spec)
    return engine, model


def test_only_tokens_of_the_vocabulary_are_drawn() -> None:
    engine, _ = engine_with(SamplingOptions(temperature=2.0, top_k=0, top_p=1.0, seed=1))
    drawn = []
    for place in range(8):
        (sampled,) = engine.step([Work(1, [1], place, sample=True)])
        drawn.append(sampled.token)
    assert max(drawn) < SIZE


def test_a_step_that_asks_for_no_token_draws_none() -> None:
    engine, model = engine_with()
    assert engine.step([Work(1, PROMPT[:2], 0, sample=False)]) == []
    (sampled,) = engine.step([Work(1, PROMPT[2:], 2, sample=True)])
    assert (sampled.id, sampled.token, sampled.chosen, sampled.top) == (1, 6, None, ())
    assert model.fed == [(1, 2), (3,)]


def test_probabilities_are_from_before_the_mask() -> None:
    constraint = Not(6)
    engine, _ = engine_with(top_logprobs=2, constraint=constraint)
    (sampled,) = engine.step([Work(1, PROMPT, 0, sample=True)])
    norm = math.log(math.exp(3) + math.exp(2) + SIZE - 2)
    assert sampled.token == 7
    assert [item.token for item in sampled.top] == [6, 7]
    assert [item.logprob for item in sampled.top] == pytest.approx([3 - norm, 2 - norm], abs=1e-5)
    assert sampled.chosen is not None
    assert sampled.chosen.logprob == pytest.approx(2 - norm, abs=1e-5)
    assert constraint.shapes == [(SIZE,)]


def test_the_prompt_counts_for_penalties() -> None:
    engine, _ = engine_with(SamplingOptions(temperature=0, presence_penalty=2.0))
    (sampled,) = engine.step([Work(1, (1, 1, 1), 0, sample=True)])
    assert sampled.token == 4, "3 is likelier, but was in the prompt"


def test_several_sequences_take_turns_within_a_step() -> None:
    engine, model = engine_with()
    engine.add(SequenceSpec(id=2, prompt=(4,), sampling=GREEDY))
    sampled = engine.step([Work(1, PROMPT, 0, sample=True), Work(2, (4,), 0, sample=True)])
    assert [(item.id, item.token) for item in sampled] == [(1, 6), (2, 4)]
    assert model.fed == [PROMPT, (4,)]


def test_a_sequence_that_was_cleared_begins_anew() -> None:
    engine, _ = engine_with()
    engine.step([Work(1, PROMPT, 0, sample=True)])
    engine.clear(1)
    with pytest.raises(EngineError, match="position 3; next is 0"):
        engine.step([Work(1, (1,), 3, sample=True)])
    (sampled,) = engine.step([Work(1, (5,), 0, sample=True)])
    assert sampled.token == 5


def test_what_the_library_cannot_do_is_an_error_and_the_sequence_stays() -> None:
    engine, _ = engine_with()
    engine.step([Work(1, PROMPT, 0, sample=True)])
    with pytest.raises(EngineError, match="the library failed"):
        engine.step([Work(1, (99,), 3, sample=True)])
    (sampled,) = engine.step([Work(1, (2,), 3, sample=True)])
    assert sampled.token == 8


@pytest.mark.parametrize(
    ("tokens", "position"), [((), 0), ((SIZE,), 0), ((-1,), 0), ((1,), 1), ((1,) * 9, 0), ((1,), -1)]
)
def test_work_that_cannot_be_never_reaches_the_library(tokens: tuple[int, ...], position: int) -> None:
    engine, model = engine_with()
    with pytest.raises(EngineError):
        engine.step([Work(1, tokens, position, sample=True)])
    with pytest.raises(EngineError):
        engine.step([])
    assert model.fed == []


@pytest.mark.parametrize(
    "attempt",
    [
        lambda engine: engine.shift(1, 1, 1),
        lambda engine: engine.embed([Passage([1])]),
        lambda engine: engine.cut(1, 1),
    ],
)
def test_what_it_cannot_do_is_refused(attempt: Callable[[LogitsEngine], object]) -> None:
    engine, _ = engine_with()
    engine.step([Work(1, PROMPT, 0, sample=True)])
    with pytest.raises(EngineError):
        attempt(engine)
    assert (engine.state_size(1), engine.save(1), engine.restore(1, bytearray(1))) == (0, None, False)


def test_a_sequence_that_is_only_kept_draws_nothing() -> None:
    engine, _ = engine_with()
    engine.step([Work(1, PROMPT, 0, sample=True)])
    engine.keep(1)
    with pytest.raises(EngineError, match="only kept"):
        engine.step([Work(1, (1,), 0, sample=True)])
