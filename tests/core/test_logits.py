"""The adapter for libraries that compute one sequence at a time: who has a stream, and who gives it up."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest

from corectl.errors import EngineError
from corectl.messages import SamplingOptions
from corectl.runner.engine import EngineInfo, SequenceSpec, Tokenizer, Work
from corectl.runner.logits import LogitsEngine, TokenStream
from tests.core.fake import FakeTokenizer

SIZE = FakeTokenizer().size
PROMPT = (1, 2, 3, 4)


class Stream:
    """Says that the next token is the number of those before."""

    def __init__(self, model: Model) -> None:
        self.model, self.tokens = model, list[int]()
        model.open_streams.append(self)

    def feed(self, tokens: Sequence[int]) -> npt.NDArray[np.float32]:
        self.tokens += tokens
        logits = np.zeros(SIZE, np.float32)
        logits[len(self.tokens)] = 1
        return logits

    def close(self) -> None:
        self.model.open_streams.remove(self)


class RewindingStream(Stream):
    def rewind(self, length: int) -> None:
        del self.tokens[length:]


class Model:
    """A model with room for one running sequence and another kept one, unless a test wants otherwise."""

    tokenizer: Tokenizer = FakeTokenizer()

    def __init__(self, running: int = 1, kept: int = 1, *, rewinds: bool = True) -> None:
        self.open_streams: list[Stream] = []
        self.closed = False
        self._kind = RewindingStream if rewinds else Stream
        self.info = EngineInfo(
            num_ctx=64,
            cells=64,
            num_batch=32,
            max_sequences=running,
            num_thread=1,
            memory=0,
            idle_sequences=kept,
        )

    def open(self) -> TokenStream:
        return self._kind(self)

    def close(self) -> None:
        assert not self.open_streams
        self.closed = True


def add(engine: LogitsEngine, id: int) -> None:
    engine.add(SequenceSpec(id=id, prompt=PROMPT, sampling=SamplingOptions(temperature=0)))


def run(engine: LogitsEngine, id: int, at: int = 0) -> int:
    """Computes the prompt from a position on, and gives the token that follows."""
    (sampled,) = engine.step([Work(id, PROMPT[at:], at, sample=True)])
    return sampled.token


def test_a_sequence_has_a_stream_only_once_something_is_computed() -> None:
    model = Model()
    engine = LogitsEngine(model)
    add(engine, 1)
    assert model.open_streams == []
    assert run(engine, 1) == len(PROMPT)
    assert len(model.open_streams) == 1
    engine.clear(1)
    assert model.open_streams == []
    assert run(engine, 1) == len(PROMPT)
    engine.remove(1)
    assert model.open_streams == []


def test_a_model_with_one_stream_hands_it_on() -> None:
    """The next turn of the only conversation begins with what the one before has computed."""
    model = Model(running=1, kept=0)
    engine = LogitsEngine(model)
    add(engine, 1)
    run(engine, 1)
    engine.keep(1)
    add(engine, 2)
    assert engine.copy(1, 2, 3)
    engine.remove(1)
    assert run(engine, 2, at=3) == len(PROMPT)
    assert [stream.tokens for stream in model.open_streams] == [list(PROMPT)]


def test_there_are_never_more_streams_than_the_model_allows() -> None:
    """The sequence that has been kept for longest gives up its own, and cannot be copied any more."""
    model = Model(running=1, kept=1)
    engine = LogitsEngine(model)
    for id in (1, 2):
        add(engine, id)
        run(engine, id)
        engine.keep(id)
    add(engine, 3)
    run(engine, 3)
    assert len(model.open_streams) == 2
    engine.keep(3)
    engine.remove(2)
    add(engine, 4)
    assert not engine.copy(1, 4, 3)
    assert engine.copy(3, 4, 3)


def test_the_sequence_that_was_kept_last_stays() -> None:
    """Whichever of them was added first."""
    engine = LogitsEngine(Model(running=2, kept=0))
    for id in (1, 2):
        add(engine, id)
        run(engine, id)
    engine.keep(2)
    engine.keep(1)
    add(engine, 3)
    run(engine, 3)
    engine.remove(2)
    add(engine, 4)
    assert engine.copy(1, 4, 2)


def test_streams_that_cannot_go_back_are_not_kept() -> None:
    model = Model(rewinds=False)
    engine = LogitsEngine(model)
    add(engine, 1)
    run(engine, 1)
    engine.keep(1)
    assert model.open_streams == []
    add(engine, 2)
    assert not engine.copy(1, 2, len(PROMPT))


def test_more_sequences_than_there_are_places_are_refused() -> None:
    engine = LogitsEngine(Model(running=1, kept=1))
    for id in range(3):
        add(engine, id)
        run(engine, id)
        engine.keep(id)
    with pytest.raises(EngineError, match="more than 3 sequences"):
        add(engine, 4)


def test_closing_closes_all_streams_and_then_the_model() -> None:
    model = Model(running=2)
    engine = LogitsEngine(model)
    for id in (1, 2):
        add(engine, id)
    run(engine, 1)
    engine.close()
    assert model.closed and model.open_streams == []
