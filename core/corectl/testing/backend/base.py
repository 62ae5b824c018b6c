"""What the checks of a backend have in common: what its author says of it, and the engine that is checked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import pytest

from corectl.messages import SamplingOptions
from corectl.runner.engine import Backend, Engine, ModelSpec, Placement, Sampled
from corectl.testing.child import Subject, in_child
from corectl.testing.drive import GREEDY, PIECE, Comparison, draw
from corectl.testing.plugins import plugin_of
from corectl.testing.suite import Suite

TEXT = "The quick brown fox jumps over the lazy dog near the river. " * 12


class BackendChecks(Suite):
    """See `corectl.testing.backend.BackendSuite`, which has all checks."""

    kind = "backend"

    engine_modules: ClassVar[tuple[str, ...]]
    """Top-level names of what only a runner may import: the engine's library."""

    placement: ClassVar[Placement] = Placement(
        num_ctx=256, cells=1024, num_batch=128, max_sequences=4, num_thread=1
    )
    """How models that generate are loaded."""

    embedder_placement: ClassVar[Placement] = Placement(
        num_ctx=64, cells=64, num_batch=64, max_sequences=4, num_thread=1
    )
    """How models that give vectors or scores are loaded."""

    margin: ClassVar[float] = 0.3
    """Two tokens whose log probabilities are closer than this may change places when a prompt is computed in other
    pieces, or in other company. Smaller for a model with random weights, whose choices are all close."""

    memory_factor: ClassVar[float] = 1.5
    """The most by which an estimate may miss what a load then takes, up or down."""

    quantization: ClassVar[str] = ""
    """What `unquantized` becomes, one of the backend's `quantizations`; empty for the first of them."""

    prompts: ClassVar[tuple[str, ...]] = (
        "Once upon a time",
        "The capital of France is",
        "def add(a, b):",
        "1, 2, 3, 4,",
    )
    """Texts to go on with, of at most 32 tokens, which differ in their first words."""

    def backend(self) -> Backend:
        """The descriptor, as the plugin's hook returns it."""
        raise NotImplementedError

    def model(self, tmp_path_factory: pytest.TempPathFactory) -> ModelSpec:
        """A small model that generates. Called once for the class; may write it there."""
        raise NotImplementedError

    def embedder(self, tmp_path_factory: pytest.TempPathFactory) -> ModelSpec | None:
        """A small model that gives vectors, with `embedding` set. None if the suite's `cannot` has `embeddings`."""
        return None

    def ranker(self, tmp_path_factory: pytest.TempPathFactory) -> ModelSpec | None:
        """A small cross-encoder, with `embedding` set. None if the suite's `cannot` has `reranking`."""
        return None

    def seer(self, tmp_path_factory: pytest.TempPathFactory) -> ModelSpec | None:
        """A small model with what it needs to see. None if the suite's `cannot` has `images`."""
        return None

    def adapted(self, tmp_path_factory: pytest.TempPathFactory) -> ModelSpec | None:
        """The model with one adapter that changes it. None if the suite's `cannot` has `adapters`."""
        return None

    def unquantized(self, tmp_path_factory: pytest.TempPathFactory) -> ModelSpec | None:
        """A small model that can be quantised. None if the suite's `cannot` has `quantizing`."""
        return None

    def wanted(self, model: ModelSpec | None, what: str) -> ModelSpec:
        """A model of the suite, which must be there."""
        assert model is not None, f"give the suite a model for {what}, or say in `cannot` why it has none"
        return model

    def subject(self) -> str:
        return self.backend().name

    def details(self) -> str:
        found = self.backend().availability()
        ignores = f"; replies say that it ignores {', '.join(found.ignores)}" if found.ignores else ""
        return f"{found.version}, {found.variant}{ignores}" if found.usable else ""

    def in_child(
        self,
        check: Callable[..., Any],
        model: ModelSpec,
        placement: Placement | None = None,
        **arguments: Any,
    ) -> Any:
        """Calls `check(subject, **arguments)` with a `Subject` in a process of its own; see `child.in_child`."""
        name = self.subject()
        subject = Subject(
            plugin=plugin_of("corectl_backends", name),
            name=name,
            model=model,
            placement=placement or self.placement,
        )
        return in_child(check, subject=subject, **arguments)

    @property
    def top(self) -> int:
        """How many alternatives comparisons ask for."""
        return -1 if "logprobs" in self.cannot else 5

    def prompt(self, engine: Engine, length: int, start: int = 0) -> list[int]:
        """So many tokens of a text."""
        tokens = engine.tokenizer.encode(TEXT)
        assert len(tokens) >= start + length, (
            f"the vocabulary writes {len(TEXT)} letters as {len(tokens)} tokens"
        )
        return tokens[start : start + length]

    def texts(self, engine: Engine) -> list[list[int]]:
        """The tokens of each of `prompts`."""
        found = [engine.tokenizer.encode(text) for text in self.prompts]
        assert all(0 < len(tokens) <= PIECE for tokens in found), "each prompt has 1 to 32 tokens"
        return found

    def draw(
        self,
        engine: Engine,
        prompt: list[int],
        count: int,
        sampling: SamplingOptions = GREEDY,
        piece: int = PIECE,
    ) -> list[Sampled]:
        """`count` tokens after a prompt, with what comparisons need."""
        return draw(engine, prompt, count, sampling, piece=piece, top_logprobs=self.top)

    def comparison(self) -> Comparison:
        return Comparison(self.margin)
