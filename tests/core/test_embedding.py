"""Embeddings: texts to tokens, and rows of an engine to vectors."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from corectl.errors import BadRequest, NotSupported
from corectl.messages import Embedding, Vectors
from corectl.output.vectors import rows
from corectl.runner import bounds, embedding
from corectl.runner.embedding import finish_vectors, prepare_embedding
from corectl.runner.encoding import EncodeJob
from tests.core.fake import BOS, EOS, FIRST, FakeTokenizer, engine_info


def embed(*inputs: str, bos: bool = False, eos: bool = False, sizes: Any = None, **changes: Any) -> EncodeJob:
    tokenizer = FakeTokenizer(adds_bos=bos, adds_eos=eos)
    info = engine_info(**{"pooling": "mean", **(sizes or {})})
    return prepare_embedding(7, Embedding(inputs=inputs, **changes), tokenizer, info)


def tokens_of(text: str) -> list[int]:
    return [FIRST + byte for byte in text.encode()]


def finished(job: EncodeJob) -> Vectors:
    answer = job.finish(np.ones((len(job.passages), 4), np.float32))
    assert isinstance(answer, Vectors)
    return answer


def test_texts_become_tokens_in_their_order() -> None:
    job = embed("a", "bc", dimensions=3)
    assert [passage.tokens for passage in job.passages] == [tokens_of("a"), tokens_of("bc")]
    vectors = finished(job)
    assert (vectors.size, vectors.prompt_tokens, vectors.dropped_tokens) == (3, 3, 0)


@pytest.mark.parametrize("sizes", [{"num_ctx": 4}, {"num_batch": 4}])
def test_long_texts_are_cut_and_counted(sizes: dict[str, int]) -> None:
    job = embed("abcdef", "abcd", "abcde", sizes=sizes)
    assert [passage.tokens for passage in job.passages] == [tokens_of("abcd")] * 3
    assert (finished(job).prompt_tokens, finished(job).dropped_tokens) == (12, 3)


@pytest.mark.parametrize(("bos", "eos"), [(False, False), (True, False), (False, True), (True, True)])
def test_a_cut_keeps_what_the_tokenizer_puts_around(bos: bool, eos: bool) -> None:
    (passage,) = embed("abcdefgh", bos=bos, eos=eos, sizes={"num_ctx": 5}).passages
    assert passage.tokens == [BOS] * bos + tokens_of("abcdefgh"[: 5 - bos - eos]) + [EOS] * eos


def test_a_text_that_may_not_be_cut() -> None:
    with pytest.raises(BadRequest, match=r"context length: input 1 has 5 tokens, and 4 fit"):
        embed("ok", "abcde", truncate=False, sizes={"num_ctx": 4})


def test_a_context_without_room_for_text() -> None:
    with pytest.raises(BadRequest, match="after truncation"):
        embed("abc", bos=True, eos=True, sizes={"num_ctx": 2})


@pytest.mark.parametrize(
    ("pooling", "why"), [("", "all-minilm"), ("none", "for each token"), ("rank", "/api/rerank")]
)
def test_a_model_that_does_not_embed(pooling: str, why: str) -> None:
    with pytest.raises(NotSupported, match=why):
        embed("a", sizes={"pooling": pooling})


def test_an_empty_text_needs_a_token_that_stands_for_it() -> None:
    assert embed("", bos=True).passages[0].tokens == [BOS]
    with pytest.raises(BadRequest, match="empty"):
        embed("")


def test_a_template_is_put_around_each_text() -> None:
    job = embed("a", "b", template="query: {{ .Prompt }}")
    assert [passage.tokens for passage in job.passages] == [tokens_of("query: a"), tokens_of("query: b")]


def test_a_template_that_fails() -> None:
    with pytest.raises(BadRequest):
        embed("a", template="{{ index .Prompt 5 5 }}")


def test_the_renderings_of_all_texts_are_limited_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedding, "MAX_SECONDS", 0.2)
    slow = "{{ range 1000 }}{{ end }}{{ .Prompt }}"
    assert len(embed("a", template=slow).passages) == 1
    with pytest.raises(BadRequest, match="the template takes too much time"):
        embed(*["a"] * 5000, template=slow)


def test_what_a_template_adds_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "MAX_CHARACTERS", 10)
    assert len(embed("a", "b", template="1234{{ .Prompt }}").passages) == 2
    with pytest.raises(BadRequest, match="input: 15 characters"):
        embed("a", "b", "c", template="1234{{ .Prompt }}")


def test_more_text_than_a_request_may_have(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "MAX_CHARACTERS", 10)
    monkeypatch.setattr(bounds, "MAX_TEXTS", 3)
    assert len(embed("aaaa", "bbbb", "cc").passages) == 3
    with pytest.raises(BadRequest, match="input: 11 characters"):
        embed("aaaa", "bbbb", "ccc")
    with pytest.raises(BadRequest, match="input: 4 texts"):
        embed("a", "b", "c", "d")


def finish(*vectors: list[float], dimensions: int = 0) -> list[list[float]]:
    return list(rows(finish_vectors(np.array(vectors, np.float32), dimensions=dimensions)))


def test_vectors_have_length_one_and_keep_their_order() -> None:
    np.testing.assert_allclose(finish([3.0, 4.0], [0.0, -2.0]), [[0.6, 0.8], [0.0, -1.0]], atol=1e-7)


@pytest.mark.parametrize(("dimensions", "size"), [(0, 4), (-1, 4), (2, 2), (4, 4), (9, 4)])
def test_dimensions_cut_only_what_is_longer(dimensions: int, size: int) -> None:
    (vector,) = finish([1.0, 2.0, 2.0, 4.0], dimensions=dimensions)
    assert len(vector) == size
    assert math.hypot(*vector) == pytest.approx(1)


def test_a_zero_vector_stays_zero() -> None:
    assert finish([0.0, 0.0]) == [[0.0, 0.0]]
    assert finish([0.0, 0.0, 5.0], dimensions=2) == [[0.0, 0.0]]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_is_refused(bad: float) -> None:
    with pytest.raises(BadRequest, match="NaN or Inf"):
        finish([1.0], [bad])


@given(st.lists(st.floats(-(2.0**100), 2.0**100, width=32, allow_subnormal=False), min_size=1, max_size=30))
def test_direction_stays(vector: list[float]) -> None:
    (found,) = finish(vector)
    length = math.hypot(*vector)
    assert all(
        value * length == pytest.approx(wanted, rel=1e-6) for value, wanted in zip(found, vector, strict=True)
    )
