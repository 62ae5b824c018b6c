"""Checks of work that cannot be done. In native code an assertion ends the process, so each runs in one of its own."""

from __future__ import annotations

import sys
from collections.abc import Callable

import msgspec

from corectl.errors import CorectlError
from corectl.runner.abilities import SequenceMemory
from corectl.runner.engine import Engine, ModelSpec, Work
from corectl.testing.backend.base import TEXT, BackendChecks
from corectl.testing.child import Subject
from corectl.testing.drive import Sequences, draw, tokens_of


def refused(what: str, attempt: Callable[[], object]) -> None:
    """Fails unless an attempt raises a typed error."""
    print(what, file=sys.stderr, flush=True)  # noqa: T201 - for whoever reads where it crashed
    try:
        attempt()
    except CorectlError as exc:
        assert exc.message, f"{what}: an error without a word"
    except Exception as exc:
        raise AssertionError(f"{what}: {type(exc).__name__} is none of corectl.errors") from exc
    else:
        raise AssertionError(f"{what}: was not refused")


def _prompt(engine: Engine) -> list[int]:
    return engine.tokenizer.encode(TEXT)[:8]


def too_many_sequences(subject: Subject) -> None:
    """In a child."""
    engine = subject.load()
    prompt = _prompt(engine)
    before = tokens_of(draw(engine, prompt, 4))
    with Sequences(engine) as sequences:
        for _ in range(engine.info.max_sequences):
            sequences.begin(prompt).run(1)
        refused("one sequence too many", lambda: sequences.begin(prompt))
    if isinstance(engine, SequenceMemory):
        with Sequences(engine) as sequences:
            for _ in range(engine.info.max_sequences + engine.info.idle_sequences):
                driver = sequences.begin(prompt)
                driver.run(1)
                engine.keep(driver.id)
            refused("one kept sequence too many", lambda: sequences.begin(prompt))
    assert tokens_of(draw(engine, prompt, 4)) == before
    engine.close()


def invalid_work(subject: Subject) -> None:
    """In a child."""
    engine = subject.load()
    prompt, size, most = _prompt(engine), engine.tokenizer.size, engine.info.num_batch
    before = tokens_of(draw(engine, prompt, 4))
    cases: dict[str, tuple[list[int], int]] = {
        "no tokens": ([], 8),
        "a token beyond the vocabulary": ([size], 8),
        "a token far beyond the vocabulary": ([10**6 + size], 8),
        "a token below 0": ([-7], 8),
        "a gap": ([prompt[0]], 12),
        "a position below 0": ([prompt[0]], -3),
        "a position that was computed": ([prompt[0]], 2),
        "more tokens than a step takes": ([prompt[0]] * (most + 1), 8),
    }
    for what, (tokens, position) in cases.items():
        with Sequences(engine) as sequences:
            driver = sequences.begin(prompt)
            engine.step([Work(driver.id, prompt, 0, sample=False)])
            work = Work(driver.id, tokens, position, sample=True)
            refused(what, lambda work=work: engine.step([work]))  # type: ignore[misc]
        assert tokens_of(draw(engine, prompt, 4)) == before, f"after {what}"
    refused("a step of nothing", lambda: engine.step([]))
    if engine.info.max_sequences > 1:
        _too_much_together(engine, prompt)
    assert tokens_of(draw(engine, prompt, 4)) == before
    engine.close()


def _too_much_together(engine: Engine, prompt: list[int]) -> None:
    half = [prompt[0]] * (engine.info.num_batch // 2 + 1)
    with Sequences(engine) as sequences:
        work = [Work(sequences.begin(half).id, half, 0, sample=True) for _ in range(2)]
        refused("two that are too much together", lambda: engine.step(work))


def full_memory(subject: Subject) -> None:
    """In a child: one sequence takes all cells there are, and more."""
    engine = subject.load()
    prompt = _prompt(engine)
    before = tokens_of(draw(engine, prompt, 4))
    # Engines may have some cells more than they say, since those come in blocks.
    limit, piece = 2 * engine.info.cells + 1024, engine.info.num_batch
    with Sequences(engine) as sequences:
        driver = sequences.begin([prompt[0]] * (limit + piece))

        def fill() -> None:
            while driver.computed < limit:
                driver.step(piece)

        refused("more tokens than cells", fill)
        assert driver.computed > engine.info.num_ctx - piece, "it was refused before the context was full"
    assert tokens_of(draw(engine, prompt, 4)) == before
    engine.close()


class RefusalChecks(BackendChecks):
    def test_too_many_sequences(self, corectl_model: ModelSpec, corectl_usable: None) -> None:
        """A sequence more than there is room for is refused, and harms no other."""
        self.in_child(too_many_sequences, corectl_model)

    def test_invalid_work(self, corectl_model: ModelSpec, corectl_usable: None) -> None:
        """Tokens outside of the vocabulary, gaps, and steps that are empty or too large are refused, with no crash."""
        self.in_child(invalid_work, corectl_model)

    def test_full_memory(self, corectl_model: ModelSpec, corectl_usable: None) -> None:
        """Tokens beyond the cells that there are are refused, and what was there before can go on."""
        small = msgspec.structs.replace(self.placement, cells=self.placement.num_ctx)
        self.in_child(full_memory, corectl_model, small)
