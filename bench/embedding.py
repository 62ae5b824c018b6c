"""Embeddings: 64 texts at once over HTTP, beside llama.cpp's own loop on the same weights.

`python -m bench.embedding WEIGHTS THREADS` is the bare loop: for each line that it reads it embeds the texts once and
prints the seconds. Their tokens go in batches as large as suits the engine, one `llama_decode` for each, and the
vectors are read. Tokenising is not counted there.
"""

from __future__ import annotations

import hashlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import gguf
import httpx
import llama_cpp
import numpy as np

from bench.served import BenchServer
from corectl.runner.environment import runner_environment
from corectl_llamacpp.params import weight_params

TEXTS = 64
REQUESTS = 5
"""In a round."""

WORDS = 24
BATCH_TOKENS = 512
VOCABULARY, WIDTH, INNER, LAYERS, HEADS, CONTEXT = 30522, 384, 1536, 6, 12, 512
MODEL = "bench-embedder"


def texts() -> list[str]:
    """Sentences of words that the vocabulary has."""
    return [" ".join(f"w{(7 * n + 3 * at) % 1000}" for at in range(WORDS)) for n in range(TEXTS)]


def write_model(path: Path) -> None:
    """A BERT of the shape of all-MiniLM-L6, with random weights: the time is that of the real one."""
    writer = gguf.GGUFWriter(str(path), "bert")
    writer.add_block_count(LAYERS)
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_layer_norm_eps(1e-12)
    writer.add_causal_attention(False)
    writer.add_pooling_type(gguf.PoolingType.MEAN)
    control = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    words = [f"▁w{number}" for number in range(VOCABULARY - len(control))]
    writer.add_tokenizer_model("bert")
    writer.add_token_list([*control, *words])
    writer.add_token_types([3] * len(control) + [1] * len(words))
    writer.add_token_type_count(2)
    for add, token in (
        (writer.add_pad_token_id, 0),
        (writer.add_unk_token_id, 1),
        (writer.add_bos_token_id, 2),
        (writer.add_eos_token_id, 3),
        (writer.add_sep_token_id, 3),
        (writer.add_mask_token_id, 4),
    ):
        add(token)
    _add_tensors(writer)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_tensors(writer: gguf.GGUFWriter) -> None:
    random = np.random.default_rng(1)

    def add(name: str, *shape: int) -> None:
        writer.add_tensor(name, random.normal(0, 0.05, shape).astype(np.float32))

    def add_linear(name: str, inputs: int, outputs: int) -> None:
        add(f"{name}.weight", outputs, inputs)
        add(f"{name}.bias", outputs)

    def add_norm(name: str) -> None:
        writer.add_tensor(f"{name}.weight", np.ones(WIDTH, np.float32))
        writer.add_tensor(f"{name}.bias", np.zeros(WIDTH, np.float32))

    add("token_embd.weight", VOCABULARY, WIDTH)
    add("position_embd.weight", CONTEXT, WIDTH)
    add("token_types.weight", 2, WIDTH)
    add_norm("token_embd_norm")
    for layer in range(LAYERS):
        for part in ("attn_q", "attn_k", "attn_v", "attn_output"):
            add_linear(f"blk.{layer}.{part}", WIDTH, WIDTH)
        add_linear(f"blk.{layer}.ffn_up", WIDTH, INNER)
        add_linear(f"blk.{layer}.ffn_down", INNER, WIDTH)
        add_norm(f"blk.{layer}.attn_output_norm")
        add_norm(f"blk.{layer}.layer_output_norm")


class _Bare:
    """A context of llama.cpp with as many sequences as there are texts."""

    def __init__(self, weights: str, threads: int) -> None:
        llama_cpp.llama_log_set(_SILENT, None)
        model = llama_cpp.llama_model_load_from_file(weights.encode(), weight_params())
        params = llama_cpp.llama_context_default_params()
        params.n_ctx = params.n_batch = params.n_ubatch = CONTEXT
        params.n_seq_max, params.kv_unified = TEXTS, True
        params.n_threads = params.n_threads_batch = threads
        params.embeddings, params.no_perf = True, True
        self._context = llama_cpp.llama_init_from_model(model, params)
        self._batch = llama_cpp.llama_batch_init(CONTEXT, 0, 1)
        vocab = llama_cpp.llama_model_get_vocab(model)
        self.inputs = [self._tokens(vocab, text.encode()) for text in texts()]

    def _tokens(self, vocab: Any, text: bytes) -> list[int]:
        room = (llama_cpp.llama_token * CONTEXT)()
        return list(room[: llama_cpp.llama_tokenize(vocab, text, len(text), room, CONTEXT, True, True)])

    def embed(self) -> list[Any]:
        """All texts once; their vectors."""
        found: list[Any] = []
        batch, slots = self._batch, 0
        batch.n_tokens = 0
        for tokens in [*self.inputs, []]:
            if slots and (not tokens or batch.n_tokens + len(tokens) > BATCH_TOKENS):
                assert llama_cpp.llama_decode(self._context, batch) == 0
                found += [self._vector(slot) for slot in range(slots)]
                batch.n_tokens = slots = 0
            for position, token in enumerate(tokens):
                index = batch.n_tokens
                batch.token[index], batch.pos[index] = token, position
                batch.n_seq_id[index], batch.seq_id[index][0], batch.logits[index] = 1, slots, True
                batch.n_tokens = index + 1
            slots += 1
        return found

    def _vector(self, slot: int) -> Any:
        pointer = llama_cpp.llama_get_embeddings_seq(self._context, slot)
        return np.ctypeslib.as_array(pointer, shape=(WIDTH,)).copy()


def _serve_bare(weights: str, threads: int) -> None:
    loop = _Bare(weights, threads)
    assert len(loop.embed()) == TEXTS
    for _ in sys.stdin:
        started = time.perf_counter()
        loop.embed()
        print(time.perf_counter() - started, flush=True)


def _create(server: BenchServer, weights: Path) -> None:
    data = weights.read_bytes()
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    with httpx.Client(base_url=server.url, timeout=60, trust_env=False) as client:
        client.post(f"/api/blobs/{digest}", content=data).raise_for_status()
        body = {"model": MODEL, "files": {"m.gguf": digest}, "stream": False}
        client.post("/api/create", json=body).raise_for_status()


def compare(server: BenchServer, threads: list[int], rounds: int) -> None:
    """Prints a line for each number of threads."""
    print(f"{TEXTS} texts at once, a BERT of the shape of all-MiniLM-L6")
    print("threads | bare texts/s | HTTP texts/s | ratio")
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "embedder.gguf"
        write_model(weights)
        _create(server, weights)
        for number in threads:
            print(f"{number:>7} | {_line(server, weights, number, rounds * REQUESTS)}", flush=True)


def _line(server: BenchServer, weights: Path, threads: int, requests: int) -> str:
    """Bare loop and server in turn, one request each, so that both meet the same neighbours; medians."""
    command = [sys.executable, "-m", "bench.embedding", str(weights), str(threads)]
    body = {"model": MODEL, "input": texts(), "options": {"num_thread": threads}}
    bare, served = [], []
    with (
        subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=runner_environment(os.environ),
        ) as loop,
        httpx.Client(base_url=server.url, timeout=600, trust_env=False) as client,
    ):
        assert loop.stdin is not None and loop.stdout is not None
        reply = client.post("/api/embed", json=body).raise_for_status()
        assert len(reply.json()["embeddings"]) == TEXTS
        for _ in range(requests):
            print(file=loop.stdin, flush=True)
            bare.append(float(loop.stdout.readline()))
            started = time.perf_counter()
            client.post("/api/embed", json=body).raise_for_status()
            served.append(time.perf_counter() - started)
        loop.stdin.close()
    ratio = statistics.median(base / took for took, base in zip(served, bare, strict=True))
    return f"{TEXTS / statistics.median(bare):>12.1f} | {TEXTS / statistics.median(served):>12.1f} | {ratio:>5.3f}"


def _ignore(level: int, text: bytes, data: Any) -> None:
    """llama.cpp's log is not part of the figures."""


_SILENT = llama_cpp.llama_log_callback(_ignore)

if __name__ == "__main__":
    _serve_bare(sys.argv[1], int(sys.argv[2]))
