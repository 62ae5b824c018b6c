"""What the tests of the MLX backend share: models that are loaded, and sequences driven by hand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from corectl.messages import SamplingOptions
from corectl.runner.engine import Engine, ModelSpec, Placement, Sampled, SequenceSpec, Work
from corectl_mlx.backend import MlxBackend

GREEDY = SamplingOptions(temperature=0)
PROMPTS = (
    "The capital of France is",
    "Once upon a time there was a",
    "def fib(n):\n    return",
    "1, 2, 3, 4, 5, 6,",
)


def spec_of(folder: Path) -> ModelSpec:
    named = {path.name: path for path in sorted(folder.iterdir()) if path.is_file()}
    return ModelSpec(format="safetensors", weights=folder / "model.safetensors", named=named)


def load(folder: Path, **changes: Any) -> Engine:
    values = Placement(num_ctx=256, cells=1024, num_batch=128, max_sequences=4, num_thread=1)
    return MlxBackend().load(spec_of(folder), msgspec.structs.replace(values, **changes), lambda part: None)


class Driver:
    """Drives one engine by hand: sequences by id, with what they have said."""

    def __init__(self, engine: Engine, sampling: SamplingOptions = GREEDY) -> None:
        self.engine, self.sampling = engine, sampling
        self.said: dict[int, list[Sampled]] = {}
        self._tokens: dict[int, list[int]] = {}
        self._done: dict[int, int] = {}

    def add(self, id: int, text: str, **changes: Any) -> list[int]:
        tokens = self.engine.tokenizer.encode(text)
        self.engine.add(SequenceSpec(id=id, prompt=tuple(tokens), sampling=self.sampling, **changes))
        self.said[id], self._tokens[id], self._done[id] = [], list(tokens), 0
        return tokens

    def begin_at(self, id: int, done: int) -> None:
        self._done[id] = done

    def step(self, *ids: int, chunk: int = 1000, sample: bool = True) -> None:
        """One step for these sequences, of at most `chunk` tokens each."""
        work = []
        for id in ids:
            start = self._done[id]
            tokens = self._tokens[id][start : start + chunk]
            last = start + len(tokens) == len(self._tokens[id])
            work.append(Work(id, tokens, start, sample and last))
            self._done[id] += len(tokens)
        for item in self.engine.step(work):
            self.said[item.id].append(item)
            self._tokens[item.id].append(item.token)

    def tokens(self, id: int) -> list[int]:
        return [item.token for item in self.said[id]]

    def remove(self, *ids: int) -> None:
        for id in ids:
            self.engine.remove(id)


def alone(engine: Engine, text: str, count: int = 8, chunk: int = 1000, **changes: Any) -> list[Sampled]:
    driver = Driver(engine)
    driver.add(99, text, **changes)
    while len(driver.said[99]) < count:
        driver.step(99, chunk=chunk)
    driver.remove(99)
    return driver.said[99]


def tokens_of(items: Sequence[Sampled]) -> list[int]:
    return [item.token for item in items]
