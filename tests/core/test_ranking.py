"""Pairs of query and document: cut as in training, and scored."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer
from tokenizers.models import WordLevel

from corectl.errors import BadRequest
from corectl.messages import Rerank, Scores
from corectl.runner import bounds
from corectl.runner.encoding import EncodeJob
from corectl.runner.engine import PairTokens
from corectl.runner.ranking import cut_pair, finish_scores, prepare_rerank
from tests.core.fake import BOS, EOS, FIRST, FakeEngine, engine_info


class FakeRanker(FakeEngine):
    def encode_pair(self, query: str, document: str) -> PairTokens:
        return pair([FIRST + byte for byte in query.encode()], [FIRST + byte for byte in document.encode()])


def pair(query: list[int], document: list[int]) -> PairTokens:
    return PairTokens(head=[BOS], query=query, middle=[EOS], document=document, tail=[EOS])


def rerank(*documents: str, query: str = "q", **changes: Any) -> EncodeJob:
    sizes = changes.pop("sizes", {})
    engine = FakeRanker(engine_info(pooling="rank", **sizes))
    return prepare_rerank(7, Rerank(query=query, documents=documents, **changes), engine)


def test_pairs_are_put_together_and_marked() -> None:
    first, second = rerank("ab", "").passages
    assert first.tokens == [BOS, FIRST + ord("q"), EOS, FIRST + ord("a"), FIRST + ord("b"), EOS]
    assert (first.second, second.second, len(second.tokens)) == (3, 3, 4)


def test_tokens_are_counted() -> None:
    job = rerank("ab", "x" * 50, sizes={"num_ctx": 10})
    scores = job.finish(np.array([[0.25], [0.5]], np.float32))
    assert scores == Scores(scores=(0.25, 0.5), prompt_tokens=6 + 10, dropped_tokens=44)


def test_a_pair_that_may_not_be_cut() -> None:
    with pytest.raises(BadRequest, match=r"documents\[1\]: .* 54 tokens together, and 10 fit"):
        rerank("ab", "x" * 50, truncate=False, sizes={"num_ctx": 10})


@pytest.mark.parametrize("sizes", [{"num_ctx": 4}, {"num_batch": 3}])
def test_a_context_without_room_for_both(sizes: dict[str, int]) -> None:
    with pytest.raises(BadRequest, match="num_ctx"):
        rerank("abc", sizes=sizes)


def test_models_that_do_not_rank() -> None:
    for engine in (FakeEngine(engine_info(pooling="rank")), FakeRanker(engine_info(pooling="mean"))):
        with pytest.raises(BadRequest, match="does not support reranking"):
            prepare_rerank(1, Rerank(query="q", documents=("d",)), engine)


def test_a_query_counts_for_each_document(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "MAX_CHARACTERS", 10)
    assert len(rerank("a", "b", query="12345").passages) == 2
    with pytest.raises(BadRequest, match="query"):
        rerank("a", "b", "c", query="12345")
    with pytest.raises(BadRequest, match="documents"):
        rerank("a" * 11)


def test_what_a_models_own_template_adds_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    around = len(rerank("a", query="1").passages[0].tokens)
    assert around > 2
    monkeypatch.setattr(bounds, "MAX_PAIR_TOKENS", 2 * around)
    assert len(rerank("a", "a", query="1").passages) == 2
    with pytest.raises(BadRequest, match=f"documents: {3 * around} tokens in one request"):
        rerank("a", "a", "a", query="1")


def reference(query: int, document: int, room: int) -> tuple[int, int]:
    """How many tokens of each text the tokenizers of the models' own library leave."""
    tokenizer = Tokenizer(WordLevel({"a": 0, "b": 1}))
    tokenizer.enable_truncation(room, strategy="longest_first")
    found = tokenizer.encode(["a"] * query, ["b"] * document, is_pretokenized=True)
    return found.ids.count(0), found.ids.count(1)


@given(st.integers(1, 60), st.integers(0, 60), st.integers(2, 70))
def test_the_longer_text_is_cut_first(query: int, document: int, room: int) -> None:
    whole = pair(list(range(100, 100 + query)), list(range(200, 200 + document)))
    cut = cut_pair(whole, room + 3) if query + document > room else whole
    assert cut.query == whole.query[: len(cut.query)] and cut.document == whole.document[: len(cut.document)]
    assert (len(cut.query), len(cut.document)) == reference(query, document, room)


def test_a_text_that_holds_both_loses_its_end() -> None:
    joint = PairTokens(head=[], query=[], middle=[], document=[5, 6, 7, 8], tail=[9])
    assert cut_pair(joint, 3).passage().tokens == [5, 6, 9]


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_scores_that_are_no_numbers(bad: float) -> None:
    with pytest.raises(BadRequest, match="NaN or Inf"):
        finish_scores(np.array([[0.5], [bad]], np.float32))
