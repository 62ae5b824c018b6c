"""From options to a native sampler chain, and what such a chain draws. In the runner process."""

from __future__ import annotations

import ctypes
import math
from typing import Any

import llama_cpp
import numpy as np

from corectl.messages import SamplingOptions
from corectl.runner.sampling import Logits, Tokens, likeliest

LARGE = 100_000
"""Tokens of a vocabulary from which on the likeliest are found here: a chain copies all of them, 12 bytes for each."""

FEW = 500
"""More of them are not found in less time."""

_SURPLUS = 10
"""So many times as many candidates as are needed are aimed at: the next token's logits may be lower."""

_SLOPE = 0.6
"""By how much the natural logarithm of the number of candidates grows with a logit less of their floor (Gemma 3)."""

_CANDIDATES = np.dtype([("id", "<i4"), ("logit", "<f4"), ("p", "<f4")])
"""The memory of `llama_token_data`."""

RANDOM_SEED = 0xFFFFFFFF
"""What llama.cpp takes for: draw a seed."""


def build_chain(options: SamplingOptions, *, n_vocab: int, num_ctx: int, prompt: tuple[int, ...]) -> Any:
    """The chain in the documented order: biases, penalties, top_k, typical_p, top_p, min_p, temperature, draw.

    Samplers that would change nothing are left out: those over the whole vocabulary are the dear ones. The end of
    the prompt counts for the penalties. Free it with `llama_sampler_free`.
    """
    params = llama_cpp.llama_sampler_chain_default_params()
    params.no_perf = True
    chain = llama_cpp.llama_sampler_chain_init(params)

    def add(sampler: Any) -> None:
        llama_cpp.llama_sampler_chain_add(chain, sampler)

    if options.logit_bias:
        biases = (llama_cpp.llama_logit_bias * len(options.logit_bias))(
            *(llama_cpp.llama_logit_bias(*item) for item in options.logit_bias.items())
        )
        add(llama_cpp.llama_sampler_init_logit_bias(n_vocab, len(biases), biases))
    window = _window(options, num_ctx)
    if window:
        add(llama_cpp.llama_sampler_init_penalties(n_vocab, window, *_penalties(options)))
    if options.temperature <= 0:
        add(llama_cpp.llama_sampler_init_greedy())
    else:
        if 0 < options.top_k < n_vocab:
            add(llama_cpp.llama_sampler_init_top_k(options.top_k))
        if options.typical_p < 1:
            add(llama_cpp.llama_sampler_init_typical(options.typical_p, 1))
        if options.top_p < 1:
            add(llama_cpp.llama_sampler_init_top_p(options.top_p, 1))
        if options.min_p > 0:
            add(llama_cpp.llama_sampler_init_min_p(options.min_p, 1))
        add(llama_cpp.llama_sampler_init_temp(options.temperature))
        seed = options.seed % 2**32 if options.seed >= 0 else RANDOM_SEED
        add(llama_cpp.llama_sampler_init_dist(seed))
    if window:
        for token in prompt[-window:]:
            llama_cpp.llama_sampler_accept(chain, token)
    return chain


def num_candidates(options: SamplingOptions, *, n_vocab: int, num_ctx: int) -> int:
    """How many of the likeliest tokens a chain needs to be given, and no others; 0 for the whole vocabulary."""
    if n_vocab < LARGE or options.logit_bias or _window(options, num_ctx):
        return 0
    if options.temperature <= 0:
        return 1
    return options.top_k if 0 < options.top_k <= FEW else 0


class Candidates:
    """The likeliest tokens of one sequence, from which its chain draws, and the memory for them.

    At least `count` are found, as far as there are so many that are not forbidden. The floor above which they lie
    differs little from one token to the next, and is known well enough nine times of ten; it is searched for when it
    was too high, or much too low. Memory is made once: anew for each token it would take as long as the draw.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._floor = math.nan
        self._make_room(2 * _SURPLUS * count)

    def _make_room(self, count: int) -> None:
        memory = np.zeros(count, _CANDIDATES)
        self._tokens, self._logits = memory["id"], memory["logit"]
        data = ctypes.cast(memory.ctypes.data, ctypes.POINTER(llama_cpp.llama_token_data))
        self._given = llama_cpp.llama_token_data_array(data=data, size=0, selected=-1, sorted=False)
        self._reference = ctypes.byref(self._given)

    def draw(self, chain: Any, logits: Logits) -> int:
        """What `llama_sampler_sample` does, given only these tokens; among equal logits it may take another one.

        `logits` has one value for each token of the vocabulary, and is not changed.
        """
        tokens = self._find(logits)
        found = len(tokens)
        if found > len(self._tokens):
            self._make_room(found)
        self._tokens[:found] = tokens
        self._logits[:found] = logits[tokens]
        given = self._given
        given.size, given.selected, given.sorted = found, -1, False
        llama_cpp.llama_sampler_apply(chain, self._reference)
        token = int(self._tokens[given.selected])
        llama_cpp.llama_sampler_accept(chain, token)
        return token

    def _find(self, logits: Logits) -> Tokens:
        count = self._count
        if count == 1:
            return likeliest(logits, 1)
        tokens = (logits >= self._floor).nonzero()[0]
        if not count <= len(tokens) <= _SURPLUS * _SURPLUS * count:
            tokens = likeliest(logits, count)
            self._floor = float(logits[tokens].min())
        # Where it would have had to be for as many as are aimed at.
        self._floor += math.log(len(tokens) / (_SURPLUS * count)) / _SLOPE
        return tokens


def _window(options: SamplingOptions, num_ctx: int) -> int:
    """The last tokens that count for penalties."""
    if _penalties(options) == (1.0, 0.0, 0.0):
        return 0
    return num_ctx if options.repeat_last_n < 0 else min(options.repeat_last_n, num_ctx)


def _penalties(options: SamplingOptions) -> tuple[float, float, float]:
    return options.repeat_penalty, options.frequency_penalty, options.presence_penalty
