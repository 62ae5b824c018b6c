"""Makes an engine of a library that computes one sequence at a time: tokens in, logits out.

The library's side is a `LogitsModel`, which opens a `TokenStream` for each sequence. All else is done here: several
requests take turns, tokens are drawn, grammars and probabilities applied, and what a sequence has computed is handed
to the next one that begins with it. For libraries that batch by themselves, write an `Engine` instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import msgspec
import numpy as np
import numpy.typing as npt

from corectl.errors import EngineError
from corectl.runner.checks import check_places, check_step
from corectl.runner.engine import (
    Constraint,
    EngineInfo,
    MemoryUse,
    Passage,
    Placement,
    Sampled,
    SequenceSpec,
    Tokenizer,
    Work,
)
from corectl.runner.sampling import Logits, Sampler, probabilities
from corectl.scheduler.fit import HOST


def as_placed(placement: Placement, *, memory: int) -> EngineInfo:
    """The info of a small model: it takes a placement as it is, and lies in the machine's memory, in so many bytes.

    It keeps as many sequences as it runs, for others to begin with.
    """
    return EngineInfo(
        num_ctx=placement.num_ctx,
        cells=placement.cells,
        num_batch=placement.num_batch,
        max_sequences=placement.max_sequences,
        num_thread=1,
        memory=memory,
        measured=(MemoryUse(device=HOST, weights=memory),),
        idle_sequences=placement.max_sequences,
    )


class TokenStream(Protocol):
    """One sequence of a model. Used by one thread."""

    def feed(self, tokens: Sequence[int]) -> Logits:
        """Computes tokens that follow what was fed before; one value for each token of the vocabulary, for the next.

        At least one token, and never more in all than `info.num_ctx`. The array is the caller's to change, until the
        next call. Raises `EngineError`.
        """
        ...

    def close(self) -> None:
        """Forgets the sequence. Called once."""
        ...


@runtime_checkable
class Rewinds(Protocol):
    """A stream that can go back."""

    def rewind(self, length: int) -> None:
        """Forgets all but the first `length` tokens; what is fed next follows them."""
        ...


class LogitsModel(Protocol):
    """A loaded model of which several streams can be open, `info.max_sequences` + `info.idle_sequences` at most.

    Those that run at once are `info.max_sequences` of them; others are kept, if streams rewind.
    """

    @property
    def info(self) -> EngineInfo: ...

    @property
    def tokenizer(self) -> Tokenizer: ...

    def open(self) -> TokenStream:
        """A new, empty sequence. Called when there is something to feed it. Raises `EngineError`."""
        ...

    def close(self) -> None:
        """Frees everything. Called once, when all streams are closed."""
        ...


class _Sequence(msgspec.Struct):
    """A sequence, and how its tokens are drawn: not at all once it is only kept.

    It has no stream while nothing was computed for it.
    """

    stream: TokenStream | None = None
    length: int = 0
    sampler: Sampler | None = None
    top_logprobs: int = -1
    constraint: Constraint | None = None


class LogitsEngine:
    """See `corectl.runner.engine.Engine`, and `corectl.runner.abilities.SequenceMemory`: what was computed can be
    handed on, to one sequence, if the streams rewind."""

    can_cut = False

    def __init__(self, model: LogitsModel) -> None:
        self._model = model
        # Of those that are only kept, the ones that have been for longest come first.
        self._sequences: dict[int, _Sequence] = {}
        self._most_streams = model.info.max_sequences + model.info.idle_sequences
        # One more costs nothing while it has no stream: the one that is about to take over a kept one's.
        self.info = msgspec.structs.replace(model.info, idle_sequences=model.info.idle_sequences + 1)
        self.tokenizer = model.tokenizer

    def add(self, sequence: SequenceSpec) -> None:
        drawing = sum(item.sampler is not None for item in self._sequences.values())
        check_places(self.info, drawing=drawing, kept=len(self._sequences) - drawing)
        sampler = Sampler(sequence.sampling, num_ctx=self.info.num_ctx, prompt=sequence.prompt)
        self._sequences[sequence.id] = _Sequence(
            sampler=sampler, top_logprobs=sequence.top_logprobs, constraint=sequence.constraint
        )

    def step(self, work: Sequence[Work]) -> list[Sampled]:
        check_step(
            work,
            self.info,
            vocabulary=self.tokenizer.size,
            length_of=lambda id: self._sequences[id].length,
        )
        logits = [(item, self._feed(item)) for item in work]
        return [self._draw(item.id, values) for item, values in logits if item.sample]

    def _feed(self, item: Work) -> Logits:
        sequence = self._sequences[item.id]
        if sequence.stream is None:
            sequence.stream = self._open()
        logits = sequence.stream.feed(item.tokens)
        sequence.length += len(item.tokens)
        # Models may have room for more tokens than the vocabulary has.
        return logits[: self.tokenizer.size]

    def _open(self) -> TokenStream:
        """A stream; if there are as many as there may be, the sequence that has been kept for longest gives up its own.

        From then on nothing can be copied from that one.
        """
        streams = [item for item in self._sequences.values() if item.stream is not None]
        if len(streams) >= self._most_streams:
            _close(next(item for item in streams if item.sampler is None))
        return self._model.open()

    def _draw(self, id: int, logits: Logits) -> Sampled:
        sequence = self._sequences[id]
        if sequence.sampler is None:
            raise EngineError("a sequence that is only kept draws no tokens")
        before = logits.copy() if sequence.top_logprobs >= 0 else logits
        if sequence.constraint is not None:
            sequence.constraint.mask(logits)
        token = sequence.sampler.draw(logits)
        if sequence.top_logprobs < 0:
            return Sampled(id, token)
        chosen, top = probabilities(before, token, sequence.top_logprobs)
        return Sampled(id, token, chosen, top)

    def shift(self, id: int, keep: int, discard: int) -> None:
        raise EngineError("this engine cannot move tokens")

    def clear(self, id: int) -> None:
        _close(self._sequences[id])

    def remove(self, id: int) -> None:
        _close(self._sequences.pop(id))

    def embed(self, inputs: Sequence[Passage]) -> npt.NDArray[np.float32]:
        raise EngineError("this engine gives no embeddings")

    def keep(self, id: int) -> None:
        sequence = self._sequences[id] = self._sequences.pop(id)
        sequence.sampler = sequence.constraint = None
        if not isinstance(sequence.stream, Rewinds):
            _close(sequence)

    def copy(self, source: int, target: int, tokens: int) -> bool:
        """The streams change places, so the source has nothing afterwards."""
        given, taker = self._sequences[source], self._sequences[target]
        if not isinstance(given.stream, Rewinds) or tokens > given.length:
            return False
        given.stream.rewind(tokens)
        given.stream, taker.stream = taker.stream, given.stream
        given.length, taker.length = 0, tokens
        return True

    def state_size(self, id: int) -> int:
        return 0

    def save(self, id: int) -> bytearray | None:
        return None

    def restore(self, id: int, state: bytearray) -> bool:
        return False

    def cut(self, id: int, tokens: int) -> None:
        raise EngineError("this engine cannot cut a sequence that runs")

    def close(self) -> None:
        for id in list(self._sequences):
            self.remove(id)
        self._model.close()


def _close(sequence: _Sequence) -> None:
    stream, sequence.stream, sequence.length = sequence.stream, None, 0
    if stream is not None:
        stream.close()
