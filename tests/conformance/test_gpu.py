"""On a machine with an NVIDIA GPU and llama.cpp built for it: placement, memory, and what is said of both."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from corectl_llamacpp.backend import LlamaCppBackend
from corectl_nvidia import NvidiaProbe
from tests.conformance.test_adapters import create
from tests.conftest import MODEL, Server, smollm2
from tests.lora import EVERYTHING, write_lora

MIB = 2**20
NEAR = 0.10
"""How far an estimate may be from what was taken."""


def gpus() -> list[Any]:
    return [device for device in NvidiaProbe().devices() if not device.unusable]


pytestmark = pytest.mark.skipif(
    LlamaCppBackend().availability().variant != "cuda" or not gpus(), reason="needs a GPU and CUDA"
)


@pytest.fixture
def gpu_server(tmp_path: Path) -> Iterator[Server]:
    running = Server(tmp_path)
    yield running
    assert running.stop() == 0, running.log


def used() -> int:
    return sum(device.memory_total - device.memory_free for device in gpus())


def loaded(server: Server, **options: Any) -> dict[str, Any]:
    reply = server.generate("Hello", options={"num_predict": 8, **options})
    assert reply["eval_count"] > 0
    return server.ps()[0]


@pytest.mark.parametrize("num_ctx", [2048, 8192])
@pytest.mark.parametrize("num_gpu", [None, 10])
def test_what_was_planned_is_what_is_taken(gpu_server: Server, num_ctx: int, num_gpu: int | None) -> None:
    options = {"num_ctx": num_ctx, **({"num_gpu": num_gpu} if num_gpu is not None else {})}
    plan = gpu_server.client.post("/api/plan", json={"model": MODEL, "options": options}).json()
    assert plan["fits"] and plan["largest_num_ctx"] >= num_ctx
    shown = loaded(gpu_server, **options)
    layers = sum(device["layers"] for device in plan["devices"] if device["kind"] != "cpu")
    assert layers == (plan["layers"] if num_gpu is None else num_gpu)
    assert 0 < shown["size_vram"] <= shown["size"]
    assert (shown["size_vram"] == shown["size"]) == (num_gpu is None)
    total = {"estimated": 0, "measured": 0}
    for memory in shown["memory"]:
        total["estimated"] += memory["estimated"]
        total["measured"] += memory["measured"]
    assert abs(total["estimated"] / total["measured"] - 1) <= NEAR


def test_memory_comes_back(gpu_server: Server) -> None:
    before = used()
    for _ in range(3):
        loaded(gpu_server, num_ctx=8192)
        assert used() - before > 100 * MIB
        gpu_server.generate("", keep_alive=0)
        deadline = time.monotonic() + 30
        while used() - before > 32 * MIB and time.monotonic() < deadline:
            time.sleep(0.1)
        assert used() - before <= 32 * MIB


def test_layers_on_either_side_say_the_same(gpu_server: Server) -> None:
    """Greedy text may part at a near tie, but not at once."""
    greedy = {"temperature": 0, "num_predict": 8}
    texts = [
        gpu_server.generate("The capital of France is", raw=True, options={**greedy, **where})["response"]
        for where in ({}, {"num_gpu": 10}, {"num_gpu": 0})
    ]
    assert len({text[:7] for text in texts}) == 1 and "Paris" in texts[0]


def test_an_adapter_lies_where_the_weights_lie(gpu_server: Server, tmp_path: Path) -> None:
    create(gpu_server, "tuned", write_lora(tmp_path / "a.gguf", smollm2(), targets=EVERYTHING, strength=0.3))
    greedy = {"temperature": 0, "num_predict": 8, "num_ctx": 2048}
    texts = []
    for where in ({}, {"num_gpu": 0}):
        options = {**greedy, **where}
        reply = gpu_server.generate("The capital of France is", model="tuned", raw=True, options=options)
        texts.append(reply["response"])
        (shown,) = gpu_server.ps()
        assert (shown["size_vram"] == shown["size"]) == (not where)
        total = {kind: sum(use[kind] for use in shown["memory"]) for kind in ("estimated", "measured")}
        assert abs(total["estimated"] / total["measured"] - 1) <= NEAR
    assert texts[0][:7] == texts[1][:7]


def test_what_ggml_finds_is_what_the_driver_says(gpu_server: Server) -> None:
    """The runner's log has the GPU of the placement, and no other."""
    loaded(gpu_server)
    (found,) = re.findall(r"ggml: CUDA\d+ \((.*?)\): ", gpu_server.log)
    assert found in {device.name for device in gpus()}


def test_without_a_gpu_a_server_that_requires_one_says_so(tmp_path: Path) -> None:
    server = Server(tmp_path, "--require-gpu", CUDA_VISIBLE_DEVICES="")
    reply = server.client.post("/api/generate", json={"model": MODEL, "prompt": "Hello", "stream": False})
    assert reply.status_code == 500 and "requires a GPU" in reply.json()["error"]
    assert server.stop() == 0


def test_a_server_that_may_not_see_the_gpu_computes_on_the_cpu(tmp_path: Path) -> None:
    server = Server(tmp_path, CUDA_VISIBLE_DEVICES="")
    before = used()
    shown = loaded(server)
    assert shown["size_vram"] == 0 and used() == before
    assert server.stop() == 0


def test_many_at_once_share_the_gpu(gpu_server: Server) -> None:
    shown = loaded(gpu_server, num_ctx=2048)
    replies = [
        gpu_server.generate(f"Count to {n}.", options={"num_predict": 32, "num_ctx": 2048}) for n in range(3)
    ]
    assert (
        all(reply["done"] for reply in replies)
        and gpu_server.ps()[0]["runner"]["pid"] == shown["runner"]["pid"]
    )
