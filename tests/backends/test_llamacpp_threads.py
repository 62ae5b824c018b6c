"""The number of threads changes between steps, and nothing else does."""

from __future__ import annotations

import llama_cpp

from corectl.runner.abilities import ThreadControl
from corectl_llamacpp.engine import LlamaEngine
from tests.backends.conftest import EMBEDDER, draw, load, tokens_of


def test_the_next_steps_use_as_many_threads(engine: LlamaEngine) -> None:
    assert isinstance(engine, ThreadControl)
    prompt = engine.tokenizer.encode("Once upon a time")
    expected = tokens_of(draw(engine, prompt, 8))
    try:
        for count in (2, 3, 1):
            engine.set_threads(count)
            context = engine._context
            assert (llama_cpp.llama_n_threads(context), llama_cpp.llama_n_threads_batch(context)) == (
                count,
            ) * 2
            assert tokens_of(draw(engine, prompt, 8)) == expected
    finally:
        engine.set_threads(1)


def test_an_embedder_has_it_too() -> None:
    embedder = load(EMBEDDER, embedding=True, num_ctx=64, cells=64, num_batch=64)
    try:
        assert isinstance(embedder, ThreadControl)
        embedder.set_threads(2)
    finally:
        embedder.close()
