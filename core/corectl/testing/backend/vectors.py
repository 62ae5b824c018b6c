"""Checks of models that give vectors or scores, and of models that see."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import pytest

from corectl.errors import CorectlError
from corectl.messages import SamplingOptions
from corectl.runner.engine import CrossEncoder, Engine, Passage
from corectl.runner.job import Job
from corectl.runner.loop import BatchLoop
from corectl.runner.vision import ImageSpan, Picture, Vision, vision_of
from corectl.testing.backend.base import BackendChecks
from corectl.testing.backend.refusing import refused
from corectl.testing.child import Subject
from corectl.testing.suite import optional

PASSAGES = ("hello world", "good bye", "the sky is blue", "a")
PIXELS = 112
"""Width and height of the pictures."""


def _says_that_it_gives_no_vectors(suite: BackendChecks, corectl_engine: Engine, **_: object) -> None:
    assert corectl_engine.info.pooling == ""
    with pytest.raises(CorectlError):
        corectl_engine.embed([Passage(suite.texts(corectl_engine)[0])])


def _gives_no_scores(suite: BackendChecks, corectl_engine: Engine, **_: object) -> None:
    assert corectl_engine.info.pooling != "rank"


def _sees_nothing(suite: BackendChecks, corectl_engine: Engine, **_: object) -> None:
    assert vision_of(corectl_engine) is None


def invalid_inputs(subject: Subject) -> None:
    """In a child."""
    engine = subject.load()
    tokens = engine.tokenizer.encode("a")
    before = engine.embed([Passage(tokens)])
    info = engine.info
    cases = {
        "too many inputs": [Passage(tokens)] * (info.max_sequences + 1),
        "an input that is too long": [Passage([tokens[0]] * (max(info.num_ctx, info.num_batch) + 1))],
        "inputs that are too long together": [Passage([tokens[0]] * (info.num_batch // 2 + 1))] * 2,
        "an empty input": [Passage([])],
        "a token beyond the vocabulary": [Passage([engine.tokenizer.size])],
    }
    for what, inputs in cases.items():
        refused(what, lambda inputs=inputs: engine.embed(inputs))  # type: ignore[misc]
        np.testing.assert_allclose(engine.embed([Passage(tokens)]), before, atol=1e-4)
    engine.close()


class _Pictures:
    """Plain ones, each of one colour on the left and another on the right."""

    def __init__(self, vision: Vision) -> None:
        self._vision = vision

    def job(self, id: int, around: Sequence[list[int]], left: int, right: int) -> Job:
        """A prompt of tokens, a picture, and tokens."""
        row = bytes([left] * (3 * PIXELS // 2) + [right] * (3 * PIXELS // 2))
        pixels = row * PIXELS
        digest = hashlib.sha256(pixels).hexdigest()
        seen = self._vision.see(Picture(digest=digest, width=PIXELS, height=PIXELS, pixels=lambda: pixels))
        before, after = around
        spans = []
        for span in seen.spans:
            self._vision.load(span)
            start = len(before) + span.start
            spans.append(
                ImageSpan(start=start, cells=span.cells, positions=span.positions, handle=span.handle)
            )
        tokens = [*before, *seen.tokens, *after]
        sampling = SamplingOptions(temperature=0, num_predict=4)
        return Job(id=id, tokens=tokens, spans=tuple(spans), sampling=sampling, top_logprobs=5)


class VectorChecks(BackendChecks):
    @optional(_says_that_it_gives_no_vectors)
    def test_embeddings(self, corectl_engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> None:
        """Texts become vectors, in a batch the same as alone; inputs that are too long or too many are refused."""
        model = self.wanted(self.embedder(tmp_path_factory), "embeddings")
        engine = self.backend().load(model, self.embedder_placement, lambda fraction: None)
        try:
            assert engine.info.pooling in ("mean", "cls", "last"), engine.info.pooling
            inputs = [
                Passage(engine.tokenizer.encode(text)) for text in PASSAGES[: engine.info.max_sequences]
            ]
            alone = np.concatenate([engine.embed([passage]) for passage in inputs])
            together = engine.embed(inputs)
        finally:
            engine.close()
        assert together.dtype == np.float32 and together.shape == alone.shape == (len(inputs), alone.shape[1])
        size = np.linalg.norm(alone, axis=1)
        assert np.all(size > 0) and np.all(np.isfinite(alone))
        assert np.all(np.linalg.norm(together - alone, axis=1) <= 1e-2 * size)
        assert all(np.linalg.norm(alone[0] - other) > 1e-3 * size[0] for other in alone[1:])
        self.in_child(invalid_inputs, model, self.embedder_placement)

    @optional(_gives_no_scores)
    def test_reranking(self, corectl_engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> None:
        """Pairs of texts get scores from 0 to 1, in a batch the same as alone."""
        model = self.wanted(self.ranker(tmp_path_factory), "scores")
        engine = self.backend().load(model, self.embedder_placement, lambda fraction: None)
        try:
            assert isinstance(engine, CrossEncoder) and engine.info.pooling == "rank"
            pairs = [engine.encode_pair("good sky", text) for text in PASSAGES[: engine.info.max_sequences]]
            assert all(pair.length == len(pair.passage().tokens) for pair in pairs)
            together = engine.embed([pair.passage() for pair in pairs])
            alone = np.concatenate([engine.embed([pair.passage()]) for pair in pairs])
        finally:
            engine.close()
        assert together.shape == (len(pairs), 1)
        assert np.all((together >= 0) & (together <= 1))
        np.testing.assert_allclose(together, alone, atol=1e-2)
        assert len(np.unique(alone)) > 1, "all pairs have the same score"

    @optional(_sees_nothing)
    def test_images(self, corectl_engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> None:
        """An image is part of what is answered: the same one gives the same, another one something else."""
        model = self.wanted(self.seer(tmp_path_factory), "images")
        engine = self.backend().load(model, self.placement, lambda fraction: None)
        try:
            vision = vision_of(engine)
            assert vision is not None
            around = [engine.tokenizer.encode(text, add_special=False) for text in ("Look: ", " What is it?")]
            pictures, loop = _Pictures(vision), BatchLoop(engine)
            looks = [(0, 255), (0, 255), (200, 10)]
            for id, colours in enumerate(looks):
                loop.add(pictures.job(id, around, *colours))
            first: dict[int, list[float]] = {}
            while not loop.idle:
                output = loop.step()
                assert [ended.error for ended in output.ended if ended.error] == []
                for sampled in output.sampled:
                    first.setdefault(sampled.id, [item.logprob for item in sampled.top])
        finally:
            engine.close()
        assert first[0] == pytest.approx(first[1], abs=self.margin)
        assert first[0] != pytest.approx(first[2], abs=1e-6), "the image changes nothing"
