"""Tokens per second of each backend through HTTP, over its library's own loop, on the same weights in one run."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import msgspec

from bench.served import BenchServer
from bench.weights import model_path, story
from bench.wire import GREEDY, NativeForm, stream
from corectl.hardware.cores import usable_cores
from corectl.runner.environment import runner_environment

NUM_CTX = 512
FREE_CORE = ("onnx", "ctransformers")
"""Engines that are measured a second time with a core left free: MLX does not let anybody choose its threads."""

LIBRARIES = {"mlx": "mlx_lm", "onnx": "onnxruntime_genai", "ctransformers": "ctransformers"}


class Case(msgspec.Struct, frozen=True):
    """What is measured: an engine, its model, and the tokens of a stream. Slow engines get few."""

    name: str
    engine: str
    model: Path
    tokens: int


def cases(folder: Path) -> Iterator[Case]:
    """Those whose library is installed, with models that are made for it."""
    from tests.forms import Forms, write_onnx
    from tests.legacy_ggml import GPT2_SMALL, write_ggml

    forms = Forms(model_path(), folder)
    there = {engine for engine, module in LIBRARIES.items() if importlib.util.find_spec(module)}
    if "mlx" in there:
        yield Case("mlx, SmolLM2 in 32 bits", "mlx", forms.safetensors(), 16)
    if "onnx" in there:
        yield Case("onnx, SmolLM2 in 32 bits", "onnx", forms.onnx(), 96)
        small = write_onnx(forms.safetensors(), folder / "int4", precision="int4")
        yield Case("onnx, SmolLM2 in 4 bits", "onnx", small, 192)
    if "ctransformers" in there:
        small = write_ggml(folder / "gpt2-small.bin", "gpt2", "f16", GPT2_SMALL)
        yield Case("ctransformers, GPT-2 in 16 bits", "ctransformers", small, 128)


@contextmanager
def _loop(case: Case, threads: int) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "bench.loops", case.engine, str(case.model), str(threads)]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=runner_environment(os.environ)
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def _bare(process: subprocess.Popen[str], prompt: str, tokens: int) -> float:
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(f"{tokens} {json.dumps(prompt)}\n")
    process.stdin.flush()
    return float(process.stdout.readline())


def _served(server: BenchServer, form: NativeForm, prompt: str, tokens: int) -> float:
    reply = stream(server.url, form, prompt, tokens)
    return (reply.counts.output - 1) / (reply.times[-1] - reply.times[0])


def _install(server: BenchServer, case: Case) -> str:
    model = case.model
    paths = [path for path in sorted(model.iterdir()) if path.is_file()] if model.is_dir() else [model]
    files = {}
    with httpx.Client(base_url=server.url, timeout=600, trust_env=False) as client:
        for path in paths:
            digest = f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"
            with path.open("rb") as data:
                client.post(f"/api/blobs/{digest}", content=data).raise_for_status()
            files[path.name] = digest
        name = f"bench-{hashlib.sha256(case.name.encode()).hexdigest()[:8]}"
        # Otherwise safetensors become GGUF where MLX has no accelerator.
        body = {"model": name, "files": files, "parameters": {"backend": case.engine}, "stream": False}
        client.post("/api/create", json=body).raise_for_status()
    return name


def compare(rounds: int) -> dict[str, dict[str, float]]:
    """Prints a line for each case.

    Each side has the threads that it takes by itself. Where there are several cores and the threads can be chosen, a
    second line has one fewer than cores on both sides: then the server and the client have a core as well.
    """
    print("\nTokens per second through HTTP, over the library's own loop (goal: 0.95 or better)")
    cores = usable_cores()
    found: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for case in cases(Path(folder)):
            found[case.name] = _measure(case, rounds, 0)
            if case.engine in FREE_CORE and cores > 1:
                found[f"{case.name}, {cores - 1} threads"] = _measure(case, rounds, cores - 1)
    return found


def _measure(case: Case, rounds: int, threads: int) -> dict[str, float]:
    server = BenchServer()
    try:
        # The libraries' own loops take the likeliest token.
        model = _install(server, case)
        form = NativeForm(model, threads=threads or None, num_ctx=NUM_CTX, sampling=GREEDY)
        with _loop(case, threads) as loop:
            pairs = []
            for turn in range(rounds + 1):
                prompt = story(case.name, turn)
                pairs.append((_bare(loop, prompt, case.tokens), _served(server, form, prompt, case.tokens)))
    finally:
        server.close()
    # The first round only warms up.
    bare, served = (statistics.median(side) for side in zip(*pairs[1:], strict=True))
    ratio = statistics.median(ours / theirs for theirs, ours in pairs[1:])
    name = f"{case.name}{f', {threads} threads' if threads else ''}"
    print(f"{name:<44} {bare:8.1f} bare {served:8.1f} served {ratio:8.3f}", flush=True)
    return {"bare": bare, "served": served, "ratio": ratio}
