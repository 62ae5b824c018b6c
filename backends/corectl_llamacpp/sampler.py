"""From options to a native sampler chain, and probabilities from logits. In the runner process."""

from __future__ import annotations

from typing import Any

import llama_cpp

from corectl.messages import SamplingOptions

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
    window = num_ctx if options.repeat_last_n < 0 else min(options.repeat_last_n, num_ctx)
    penalties = (options.repeat_penalty, options.frequency_penalty, options.presence_penalty)
    if penalties == (1.0, 0.0, 0.0):
        window = 0
    if window:
        add(llama_cpp.llama_sampler_init_penalties(n_vocab, window, *penalties))
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
