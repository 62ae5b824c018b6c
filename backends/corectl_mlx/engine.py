"""An MLX model as an engine: prompts one by one, and sequences that generate together. In the runner."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import mlx.core as mx
import msgspec
import numpy as np
import numpy.typing as npt
from mlx_lm.models.cache import make_prompt_cache

from corectl.errors import EngineError
from corectl.messages import SamplingOptions
from corectl.runner.checks import check_places, check_step
from corectl.runner.engine import (
    Constraint,
    EngineInfo,
    Passage,
    Sampled,
    SequenceSpec,
    Tokenizer,
    Work,
)
from corectl.runner.sampling import Sampler, probabilities
from corectl_mlx.ahead import Ahead
from corectl_mlx.batches import Batches, divided
from corectl_mlx.caches import Caches, Layout, is_plain, trimmed


class _Sequence(msgspec.Struct):
    """One sequence. `caches` is None while it has a row in a batch, `sampler` once it is only kept."""

    sampler: Sampler | None
    caches: Caches | None
    length: int = 0
    top_logprobs: int = -1
    constraint: Constraint | None = None
    plain: bool = False

    @property
    def likeliest(self) -> bool:
        """Whether its next token is just the likeliest one, which MLX can find without handing out logits."""
        return self.plain and self.constraint is None and self.top_logprobs < 0


class MlxEngine:
    """See `corectl.runner.engine.Engine` and `corectl.runner.abilities.SequenceMemory`."""

    can_cut = False
    """A copy of a sequence takes memory of its own, so what was computed moves on instead."""

    def __init__(self, model: Any, tokenizer: Tokenizer, info: EngineInfo) -> None:
        self._model = model
        self._sequences: dict[int, _Sequence] = {}
        self._batches = Batches()
        self._ahead = Ahead(model, tokenizer.size)
        self._layout: Layout | None = None
        self.info = info
        self.tokenizer = tokenizer

    def add(self, sequence: SequenceSpec) -> None:
        drawing = sum(item.sampler is not None for item in self._sequences.values())
        check_places(self.info, drawing=drawing, kept=len(self._sequences) - drawing)
        options = sequence.sampling
        self._sequences[sequence.id] = _Sequence(
            sampler=Sampler(options, num_ctx=self.info.num_ctx, prompt=sequence.prompt),
            caches=self._empty(),
            top_logprobs=sequence.top_logprobs,
            constraint=sequence.constraint,
            plain=_takes_likeliest(options),
        )

    def _empty(self) -> Caches:
        return list(make_prompt_cache(self._model))

    def step(self, work: Sequence[Work]) -> list[Sampled]:
        check_step(
            work,
            self.info,
            vocabulary=self.tokenizer.size,
            length_of=lambda id: self._sequences[id].length,
        )
        for item in work:
            # The last token of a prompt goes with those of the other sequences, if one is drawn after it.
            tokens = item.tokens[:-1] if item.sample else item.tokens
            if tokens:
                self._read(item.id, tokens)
        drawing = {item.id: item.tokens[-1] for item in work if item.sample}
        return self._generate(drawing) if drawing else []

    def _read(self, id: int, tokens: Sequence[int]) -> None:
        """Computes a part of a prompt. Nobody asks for logits, so they are not computed."""
        caches = self._own(id)
        self._model(mx.array(list(tokens))[None], cache=caches)
        mx.eval([cache.state for cache in caches])
        self._sequences[id].length += len(tokens)

    def _generate(self, tokens: dict[int, int]) -> list[Sampled]:
        """One more token for each of these sequences."""
        lengths = {id: self._sequences[id].length for id in tokens}
        # What the pool has counted is all the memory that there is.
        taken = sum(sequence.length for sequence in self._sequences.values()) + len(tokens)
        spare = self.info.cells - taken
        if len(tokens) == 1 and spare > 0 and self._may_go_ahead(*tokens):
            return [self._go_ahead(*item) for item in tokens.items()]
        groups = divided(lengths, spare)
        self._arrange([group for group in groups if len(group) > 1])
        drawn: list[Sampled] = []
        for rows in self._batches.rows:
            drawn += self._draw(rows.ids, rows.caches, tokens)
        for group in groups:
            if len(group) == 1:
                drawn += self._draw(group, self._own(group[0]), tokens)
        return drawn

    def _may_go_ahead(self, id: int) -> bool:
        sequence = self._sequences[id]
        room = self.info.num_ctx - sequence.length
        return sequence.likeliest and room > 1 and is_plain(sequence.caches or self._own(id))

    def _go_ahead(self, id: int, token: int) -> Sampled:
        sequence = self._sequences[id]
        drawn = self._ahead.next(id, token, sequence.caches or self._own(id))
        sequence.length += 1
        return Sampled(id, drawn)

    def _draw(self, ids: Sequence[int], caches: Caches, tokens: Mapping[int, int]) -> list[Sampled]:
        """The next token of sequences that have their caches together."""
        inputs = mx.array([[tokens[id]] for id in ids])
        logits = self._model(inputs, cache=caches)[:, -1, : self.tokenizer.size]
        sequences = [self._sequences[id] for id in ids]
        if all(sequence.likeliest for sequence in sequences):
            found = mx.argmax(logits, axis=-1)
            mx.eval(found, [cache.state for cache in caches])
            drawn = [Sampled(id, token) for id, token in zip(ids, found.tolist(), strict=True)]
        else:
            logits = logits.astype(mx.float32)
            mx.eval(logits, [cache.state for cache in caches])
            values = np.array(logits)
            drawn = [_draw(id, self._sequences[id], row) for id, row in zip(ids, values, strict=True)]
        for sequence in sequences:
            sequence.length += 1
        return drawn

    def _own(self, id: int) -> Caches:
        """The caches of one sequence, which leaves its batch for that."""
        sequence = self._sequences[id]
        self._ahead.undo(id)
        if sequence.caches is None:
            sequence.caches = self._batches.leave(id)
        return sequence.caches

    def _arrange(self, groups: list[list[int]]) -> None:
        """Sees to it that the batches are these groups."""
        own: dict[int, Caches] = {}
        for id in (id for group in groups for id in group):
            sequence = self._sequences[id]
            if sequence.caches is not None:
                own[id], sequence.caches = self._own(id), None
        for id, caches in self._batches.arrange(groups, own).items():
            self._sequences[id].caches = caches

    def shift(self, id: int, keep: int, discard: int) -> None:
        raise EngineError("MLX cannot move tokens")

    def clear(self, id: int) -> None:
        sequence = self._sequences[id]
        self._ahead.undo(id)
        if sequence.caches is None:
            self._batches.drop(id)
        sequence.caches, sequence.length = self._empty(), 0

    def remove(self, id: int) -> None:
        self._ahead.undo(id)
        if self._sequences.pop(id).caches is None:
            self._batches.drop(id)

    def embed(self, inputs: Sequence[Passage]) -> npt.NDArray[np.float32]:
        raise EngineError("this engine gives no embeddings")

    def keep(self, id: int) -> None:
        sequence = self._sequences[id]
        self._own(id)
        sequence.sampler = sequence.constraint = None

    def copy(self, source: int, target: int, tokens: int) -> bool:
        given, taker = self._sequences[source], self._sequences[target]
        caches = self._own(source)
        if tokens > given.length or not trimmed(caches, given.length, tokens):
            return False
        taker.caches, taker.length = caches, tokens
        given.caches, given.length = self._empty(), 0
        return True

    def state_size(self, id: int) -> int:
        sequence, caches = self._sequences[id], self._own(id)
        if not sequence.length or not is_plain(caches):
            return 0
        self._layout = Layout.of(caches)
        return self._layout.cell * sequence.length

    def save(self, id: int) -> bytearray | None:
        if not self.state_size(id) or self._layout is None:
            return None
        return self._layout.save(self._own(id))

    def restore(self, id: int, state: bytearray) -> bool:
        if self._layout is None:
            return False
        sequence = self._sequences[id]
        sequence.caches = self._layout.load(state)
        sequence.length = len(state) // self._layout.cell
        return True

    def cut(self, id: int, tokens: int) -> None:
        raise EngineError("MLX cannot cut a sequence that others share")

    def close(self) -> None:
        self._sequences.clear()
        self._batches = Batches()
        del self._ahead, self._model
        mx.clear_cache()


def _takes_likeliest(options: SamplingOptions) -> bool:
    penalties = (options.repeat_penalty, options.frequency_penalty, options.presence_penalty)
    if options.logit_bias:
        return False
    return options.temperature <= 0 and (penalties == (1.0, 0.0, 0.0) or not options.repeat_last_n)


def _draw(id: int, sequence: _Sequence, logits: npt.NDArray[np.float32]) -> Sampled:
    if sequence.sampler is None:
        raise EngineError("a sequence that is only kept draws no tokens")
    before = logits.copy() if sequence.top_logprobs >= 0 else logits
    if sequence.constraint is not None:
        sequence.constraint.mask(logits)
    token = sequence.sampler.draw(logits)
    if sequence.top_logprobs < 0:
        return Sampled(id, token)
    return Sampled(id, token, *probabilities(before, token, sequence.top_logprobs))
