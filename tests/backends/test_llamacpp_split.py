"""Models that are split into several GGUF files: estimated, loaded and described as the whole that they are."""

from __future__ import annotations

from pathlib import Path

import pytest

from corectl.errors import BadModelFile, LoadFailed
from corectl.runner.engine import CacheShape, ModelSpec
from corectl_gguf import Gguf
from corectl_llamacpp.backend import LlamaCppBackend
from corectl_llamacpp.engine import LlamaEngine
from tests.backends.conftest import draw, placement, tokens_of
from tests.forms import Forms
from tests.gguf_parts import split_gguf

pytestmark = pytest.mark.engine


@pytest.fixture
def spec(tmp_path: Path, forms: Forms) -> ModelSpec:
    """Three parts as the store has them: by digests, which say nothing of their order."""
    named = {}
    for path, blob in zip(split_gguf(forms.gguf(2), tmp_path, 3), ("c", "a", "b"), strict=True):
        named[path.name] = path.rename(tmp_path / f"sha256-{blob}")
    return ModelSpec(format="gguf", weights=tmp_path / "sha256-c", named=named)


def whole(forms: Forms) -> ModelSpec:
    return ModelSpec(format="gguf", weights=forms.gguf(2))


def load(spec: ModelSpec) -> LlamaEngine:
    engine = LlamaCppBackend().load(spec, placement(), lambda fraction: None)
    assert isinstance(engine, LlamaEngine)
    return engine


def test_it_says_what_the_whole_says(spec: ModelSpec, forms: Forms) -> None:
    said = []
    for model in (spec, whole(forms)):
        engine = load(model)
        tokens = engine.tokenizer.encode("The sky is")
        said.append((tokens_of(draw(engine, tokens, 8)), engine.info.memory))
        engine.close()
    assert said[0][0] == said[1][0]
    assert said[0][1] == pytest.approx(said[1][1], rel=0.01)


def test_it_is_estimated_and_described_as_the_whole(spec: ModelSpec, forms: Forms) -> None:
    backend, shape = LlamaCppBackend(), CacheShape(num_batch=128, max_sequences=4)
    assert backend.estimate(spec, shape) == backend.estimate(whole(forms), shape)
    assert Gguf().describe(spec) == Gguf().describe(whole(forms))


def test_a_part_that_is_damaged_is_named(spec: ModelSpec) -> None:
    part = spec.named["model-00002-of-00003.gguf"]
    part.write_bytes(part.read_bytes()[:1000])
    with pytest.raises(BadModelFile, match=part.name):
        load(spec)


def test_a_part_that_is_gone_is_named(spec: ModelSpec) -> None:
    part = spec.named["model-00003-of-00003.gguf"]
    part.unlink()
    with pytest.raises(LoadFailed, match=part.name):
        load(spec)
