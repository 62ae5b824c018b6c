"""The ceiling: llama.cpp's own loop, without a server. `python -m bench.bare WEIGHTS CELLS THREADS`.

Decode, sample, append; one `llama_decode` per step for all streams, with the samplers and the key-value pool that the
server uses. Nothing is turned into text. For each line of JSON that it reads (`prompts`, `tokens`) it prints one:
tokens a second of all streams together without the prompts, and seconds from the first prompt to its first token.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import llama_cpp

from corectl.runner.environment import runner_environment
from corectl_llamacpp.params import weight_params

BATCH = 512
MAX_STREAMS = 16


class BareLoop:
    """The loop in a process of its own, where it has the machine's memory as a server has it."""

    def __init__(self, weights: Path, cells: int, threads: int) -> None:
        self.command = [sys.executable, "-m", "bench.bare", str(weights), str(cells), str(threads)]
        self._process = subprocess.Popen(
            self.command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            # Its memory is as large as a runner's, in pages of the same size.
            env=runner_environment(os.environ),
        )

    def measure(self, prompts: list[str], tokens: int) -> dict[str, float]:
        """`tok/s`, and `first`: seconds to the first token of the first prompt."""
        assert self._process.stdin is not None and self._process.stdout is not None
        print(json.dumps({"prompts": prompts, "tokens": tokens}), file=self._process.stdin, flush=True)
        return dict(json.loads(self._process.stdout.readline()))

    def close(self) -> None:
        self._process.communicate()


class _Loop:
    def __init__(self, weights: str, cells: int, threads: int) -> None:
        llama_cpp.llama_log_set(_SILENT, None)
        model = llama_cpp.llama_model_load_from_file(weights.encode(), weight_params())
        params = llama_cpp.llama_context_default_params()
        params.n_ctx, params.n_batch, params.n_ubatch, params.n_seq_max = cells, BATCH, BATCH, MAX_STREAMS
        params.n_threads = params.n_threads_batch = threads
        params.kv_unified, params.no_perf = True, True
        self._context = llama_cpp.llama_init_from_model(model, params)
        self._vocab = llama_cpp.llama_model_get_vocab(model)
        self._batch = llama_cpp.llama_batch_init(BATCH, 0, 1)

    def measure(self, prompts: list[str], tokens: int) -> dict[str, float]:
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self._context), False)
        samplers = [_sampler() for _ in prompts]
        asked = time.perf_counter()
        state, first = [], 0.0
        for stream, prompt in enumerate(prompts):
            read = _tokens(self._vocab, prompt)
            self._prefill(stream, read)
            state.append((llama_cpp.llama_sampler_sample(samplers[stream], self._context, -1), len(read)))
            first = first or time.perf_counter() - asked
        started = time.perf_counter()
        for _ in range(tokens):
            self._batch.n_tokens = 0
            where = [_add(self._batch, token, place, s, True) for s, (token, place) in enumerate(state)]
            assert llama_cpp.llama_decode(self._context, self._batch) == 0
            state = [
                (llama_cpp.llama_sampler_sample(samplers[s], self._context, where[s]), state[s][1] + 1)
                for s in range(len(prompts))
            ]
        spent = time.perf_counter() - started
        for sampler in samplers:
            llama_cpp.llama_sampler_free(sampler)
        return {"tok/s": len(prompts) * tokens / spent, "first": first}

    def _prefill(self, stream: int, tokens: list[int]) -> None:
        for begin in range(0, len(tokens), BATCH):
            self._batch.n_tokens = 0
            for place in range(begin, min(begin + BATCH, len(tokens))):
                _add(self._batch, tokens[place], place, stream, place == len(tokens) - 1)
            assert llama_cpp.llama_decode(self._context, self._batch) == 0


def _sampler() -> Any:
    params = llama_cpp.llama_sampler_chain_default_params()
    params.no_perf = True
    chain = llama_cpp.llama_sampler_chain_init(params)
    for sampler in (
        llama_cpp.llama_sampler_init_top_k(40),
        llama_cpp.llama_sampler_init_top_p(0.9, 1),
        llama_cpp.llama_sampler_init_temp(0.8),
        llama_cpp.llama_sampler_init_dist(42),
    ):
        llama_cpp.llama_sampler_chain_add(chain, sampler)
    return chain


def _tokens(vocab: Any, text: str) -> list[int]:
    data = text.encode()
    buffer = (llama_cpp.llama_token * (len(data) + 8))()
    return list(buffer[: llama_cpp.llama_tokenize(vocab, data, len(data), buffer, len(buffer), True, True)])


def _add(batch: Any, token: int, position: int, stream: int, output: bool) -> int:
    index = batch.n_tokens
    batch.token[index], batch.pos[index] = token, position
    batch.n_seq_id[index], batch.seq_id[index][0] = 1, stream
    batch.logits[index] = output
    batch.n_tokens = index + 1
    return int(index)


def _ignore(level: int, text: bytes, data: Any) -> None:
    """llama.cpp's log is not part of the figures."""


_SILENT = llama_cpp.llama_log_callback(_ignore)


def _serve(weights: str, cells: int, threads: int) -> None:
    loop = _Loop(weights, cells, threads)
    for line in sys.stdin:
        print(json.dumps(loop.measure(**json.loads(line))), flush=True)


if __name__ == "__main__":
    _serve(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
