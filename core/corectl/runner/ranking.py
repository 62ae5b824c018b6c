"""From a query and documents to pairs that a cross-encoder scores."""

from __future__ import annotations

from functools import partial

import msgspec
import numpy as np

from corectl.errors import BadRequest
from corectl.messages import Rerank, Scores
from corectl.runner.bounds import check_characters, check_pair_tokens, check_texts
from corectl.runner.encoding import EncodeJob, Matrix
from corectl.runner.engine import CrossEncoder, Engine, PairTokens, Passage


def prepare_rerank(id: int, request: Rerank, engine: Engine) -> EncodeJob:
    """Tokenises and cuts the pairs.

    Raises `BadRequest` for a model that is no cross-encoder, and for a pair that is too long and may not be cut.
    """
    if not isinstance(engine, CrossEncoder) or engine.info.pooling != "rank":
        raise BadRequest(
            "this model does not support reranking; use a cross-encoder such as bge-reranker-v2-m3"
        )
    check_texts("documents", request.documents)
    check_characters("query", len(request.query) * len(request.documents))
    limit = min(engine.info.num_ctx, engine.info.num_batch)
    passages: list[Passage] = []
    read = dropped = 0
    for number, document in enumerate(request.documents):
        pair = engine.encode_pair(request.query, document)
        # With each goes what the model puts around it, which may be a long text.
        read += pair.length
        check_pair_tokens("documents", read)
        excess = max(pair.length - limit, 0)
        if excess and not request.truncate:
            raise BadRequest(
                f"documents[{number}]: query and document have {pair.length} tokens together, and {limit} fit"
            )
        if excess:
            pair = cut_pair(pair, limit)
        dropped += excess
        passages.append(pair.passage())
    tokens = sum(len(passage.tokens) for passage in passages)
    return EncodeJob(
        id=id, passages=passages, finish=partial(finish_scores, prompt_tokens=tokens, dropped_tokens=dropped)
    )


def cut_pair(pair: PairTokens, limit: int) -> PairTokens:
    """A pair that is too long, cut to `limit` tokens: the longer text loses its end first, as in training.

    Raises `BadRequest` where nothing of the texts would be left.
    """
    room = limit - (pair.length - len(pair.query) - len(pair.document))
    if room < 1 + bool(pair.query):
        raise BadRequest(f"num_ctx: a context of {limit} tokens has no room for a query and a document")
    shorter = min(len(pair.query), len(pair.document), room // 2)
    query, document = shorter, room - shorter
    if len(pair.query) > len(pair.document):
        query, document = document, query
    return msgspec.structs.replace(pair, query=pair.query[:query], document=pair.document[:document])


def finish_scores(matrix: Matrix, *, prompt_tokens: int = 0, dropped_tokens: int = 0) -> Scores:
    """Raises `BadRequest` for scores that are no numbers."""
    scores = matrix[:, 0] if len(matrix) else matrix.ravel()
    if not np.isfinite(scores).all():
        raise BadRequest("a score is NaN or Inf")
    return Scores(scores=tuple(scores.tolist()), prompt_tokens=prompt_tokens, dropped_tokens=dropped_tokens)
