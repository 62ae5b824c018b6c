"""From texts to tokens that are embedded, and from what the engine gives to vectors."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial

import numpy as np

from corectl.errors import BadRequest, NotSupported, TooLong
from corectl.messages import Embedding, Template, TextPrompt, Vectors
from corectl.prompt.budget import OutOfTime
from corectl.prompt.render import render
from corectl.runner.bounds import check_characters, check_texts
from corectl.runner.encoding import EncodeJob, Matrix
from corectl.runner.engine import EngineInfo, Passage, Tokenizer

MAX_SECONDS = 10.0
"""CPU time for a template around all texts, twice what the most texts there may be take with a usual one."""

NOT_SUPPORTED = {
    "": "this model does not support embeddings; use an embedding model such as all-minilm",
    "none": "this model gives a vector for each token (its pooling type is none), and none for a text",
    "rank": "this model ranks documents (see /api/rerank); use an embedding model such as all-minilm",
}
"""Why a model with this pooling does not embed."""


def prepare_embedding(id: int, request: Embedding, tokenizer: Tokenizer, info: EngineInfo) -> EncodeJob:
    """Tokenises and cuts the inputs.

    Raises `BadRequest` for one that is too long and may not be cut, `NotSupported` for a model that does not embed.
    """
    check_texts("input", request.inputs)
    limit = min(info.num_ctx, info.num_batch)
    around = tokenizer.encode("")
    # An end token, where the tokenizer adds one, stays at the end.
    tail = around[1:] if tokenizer.adds_bos else around
    passages: list[Passage] = []
    dropped = 0
    for number, text in enumerate(_rendered(request, tokenizer)):
        tokens = tokenizer.encode(text)
        if not tokens and not NOT_SUPPORTED.get(info.pooling):
            raise BadRequest("input: a text is empty, and this model has no tokens that stand for that")
        if len(tokens) > limit:
            if not request.truncate:
                raise TooLong(
                    "the input length exceeds the context length: "
                    f"input {number} has {len(tokens)} tokens, and {limit} fit"
                )
            if limit <= len(around):
                raise BadRequest("input after truncation exceeds maximum context length")
            dropped += len(tokens) - limit
            tokens = tokens[: limit - len(tail)] + tail
        passages.append(Passage(tokens))
    if reason := NOT_SUPPORTED.get(info.pooling):
        raise NotSupported(reason)
    return EncodeJob(
        id=id,
        passages=passages,
        finish=partial(
            finish_vectors,
            dimensions=request.dimensions,
            prompt_tokens=sum(len(passage.tokens) for passage in passages),
            dropped_tokens=dropped,
        ),
    )


def _rendered(request: Embedding, tokenizer: Tokenizer) -> Sequence[str]:
    """The texts as the model is to read them."""
    if not request.template:
        return request.inputs
    template = Template(kind="go", text=request.template)
    texts: list[str] = []
    size = 0
    end = time.thread_time() + MAX_SECONDS
    for text in request.inputs:
        prompt = TextPrompt(template=template, prompt=text)
        texts.append(render(prompt, bos_token=tokenizer.bos_token, eos_token=tokenizer.eos_token))
        size += len(texts[-1])
        check_characters("input", size)
        # A rendering's own budget leaves out that a long template is read again for each text.
        if time.thread_time() > end:
            raise OutOfTime("the template takes too much time")
    return texts


def finish_vectors(
    matrix: Matrix, *, dimensions: int = 0, prompt_tokens: int = 0, dropped_tokens: int = 0
) -> Vectors:
    """Vectors of length 1, cut to `dimensions` values where that is above 0 and below their size.

    A zero vector stays zero. Raises `BadRequest` for values that are no numbers.
    """
    if 0 < dimensions < matrix.shape[1]:
        matrix = matrix[:, :dimensions]
    lengths = np.linalg.norm(matrix.astype(np.float64), axis=1, keepdims=True)
    if not np.isfinite(lengths).all():
        raise BadRequest("embedding contains NaN or Inf values")
    lengths[lengths == 0] = 1
    return Vectors(
        data=(matrix / lengths).astype(np.float32).tobytes(),
        size=matrix.shape[1],
        prompt_tokens=prompt_tokens,
        dropped_tokens=dropped_tokens,
    )
