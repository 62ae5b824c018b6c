"""A llama.cpp engine in this process, on real weights, and a driver for it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from corectl.messages import SamplingOptions
from corectl.runner.engine import ModelSpec, Placement, Sampled, SequenceSpec, Work
from corectl.runner.loop import BatchLoop
from corectl_llamacpp.backend import LlamaCppBackend
from corectl_llamacpp.engine import LlamaEngine
from tests.conftest import DATA
from tests.conftest import smollm2 as smollm2

CHUNK = 50
"""Prompts that are computed in pieces of at most so many tokens give bit-identical logits, however they are split."""

GREEDY = SamplingOptions(temperature=0)
EMBEDDER = DATA / "tinybert.gguf"


def placement(**changes: Any) -> Placement:
    values = Placement(num_ctx=256, cells=1024, num_batch=128, max_sequences=4, num_thread=1)
    return msgspec.structs.replace(values, **changes)


def load(weights: Path, *, embedding: bool = False, **changes: int) -> LlamaEngine:
    spec = ModelSpec(format="gguf", weights=weights, embedding=embedding)
    engine = LlamaCppBackend().load(spec, placement(**changes), lambda fraction: None)
    assert isinstance(engine, LlamaEngine)
    return engine


@pytest.fixture(scope="module")
def engine() -> Iterator[LlamaEngine]:
    loaded = load(smollm2())
    yield loaded
    loaded.close()


@pytest.fixture(scope="module")
def embedder() -> Iterator[LlamaEngine]:
    loaded = load(EMBEDDER, embedding=True, num_ctx=64, cells=64, num_batch=64)
    yield loaded
    loaded.close()


def batch_loop(engine: LlamaEngine, *, snapshots: int = 0) -> BatchLoop:
    """A loop over an engine that others may have used: what they have left in it goes first."""
    for id in list(engine._slots):
        engine.remove(id)
    return BatchLoop(engine, snapshots=snapshots)


class Driver:
    """One sequence: knows what it has computed, and takes the steps that a batch loop would take."""

    def __init__(
        self,
        engine: LlamaEngine,
        id: int,
        prompt: Sequence[int],
        sampling: SamplingOptions = GREEDY,
        top_logprobs: int = -1,
    ) -> None:
        self._engine = engine
        self.id = id
        self.tokens = list(prompt)
        self.computed = 0
        self.start = len(self.tokens)
        engine.add(SequenceSpec(id=id, prompt=tuple(prompt), sampling=sampling, top_logprobs=top_logprobs))

    def work(self, chunk: int = CHUNK) -> Work:
        end = min(self.computed + chunk, len(self.tokens))
        item = Work(self.id, self.tokens[self.computed : end], self.computed, sample=end == len(self.tokens))
        self.computed = end
        return item

    def take(self, sampled: Sequence[Sampled]) -> None:
        self.tokens += [item.token for item in sampled if item.id == self.id]

    def run(self, count: int, chunk: int = CHUNK) -> list[Sampled]:
        """Computes what is pending and draws `count` tokens, alone."""
        found: list[Sampled] = []
        while len(found) < count:
            sampled = self._engine.step([self.work(chunk)])
            self.take(sampled)
            found += sampled
        return found

    def end(self) -> None:
        self._engine.remove(self.id)


def draw(
    engine: LlamaEngine,
    prompt: Sequence[int],
    count: int,
    sampling: SamplingOptions = GREEDY,
    *,
    chunk: int = CHUNK,
    top_logprobs: int = -1,
) -> list[Sampled]:
    """`count` tokens after `prompt`, drawn by a sequence of their own."""
    driver = Driver(engine, 99, prompt, sampling, top_logprobs)
    try:
        return driver.run(count, chunk)
    finally:
        driver.end()


def tokens_of(sampled: Sequence[Sampled]) -> list[int]:
    return [item.token for item in sampled]
