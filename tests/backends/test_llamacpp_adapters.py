"""LoRA adapters: what they change, what they take, and which are refused."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt
import pytest

from corectl.errors import BadModelFile, LoadFailed
from corectl.model.gguf import read_header
from corectl.runner.engine import CacheShape, ModelSpec, Passage, Work
from corectl.scheduler.fit import memory_use
from corectl_llamacpp import logs
from corectl_llamacpp.adapters import apply_adapters
from corectl_llamacpp.backend import LlamaCppBackend
from corectl_llamacpp.engine import LlamaEngine
from tests.backends.conftest import EMBEDDER, Driver, draw, placement, tokens_of
from tests.conftest import smollm2
from tests.lora import EVERYTHING, RANK, write_lora
from tests.tiny_models import VOCABULARY, WIDTH, write_tiny

BACKEND = LlamaCppBackend()
SLACK = 64 << 10
"""Bytes: the log rounds."""
PROMPT = tuple(range(10, 40))


def loaded(weights: Path, *adapters: Path, embedding: bool = False, **changes: Any) -> LlamaEngine:
    spec = ModelSpec(format="gguf", weights=weights, adapters=adapters, embedding=embedding)
    engine = BACKEND.load(spec, placement(**changes), lambda _: None)
    assert isinstance(engine, LlamaEngine)
    return engine


def logprobs(engine: LlamaEngine) -> npt.NDArray[np.floating]:
    """Of every token after a prompt."""
    (sampled,) = draw(engine, PROMPT, 1, top_logprobs=engine.tokenizer.size)
    return np.array([candidate.logprob for candidate in sorted(sampled.top, key=lambda it: it.token)])


def distance(one: npt.NDArray[np.floating], other: npt.NDArray[np.floating]) -> float:
    return float(np.abs(one - other).max())


def answer(weights: Path, *adapters: Path) -> npt.NDArray[np.floating]:
    engine = loaded(weights, *adapters)
    try:
        return logprobs(engine)
    finally:
        engine.close()


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("tiny") / "tiny.gguf", "llama")


@pytest.fixture(scope="module")
def mixture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("tiny") / "mixture.gguf", "qwen3moe")


def merged(base: Path, adapter: Path, target: Path, alpha: float) -> Path:
    """The model with the adapter's change added to its weights."""
    target.write_bytes(base.read_bytes())
    parts = {tensor.name: tensor.data for tensor in gguf.GGUFReader(adapter).tensors}
    for tensor in gguf.GGUFReader(target, "r+").tensors:
        if (first := parts.get(f"{tensor.name}.lora_a")) is not None:
            second = parts[f"{tensor.name}.lora_b"]
            change = first @ second.T if tensor.name == "token_embd.weight" else second @ first
            tensor.data[:] = (tensor.data.astype(np.float32) + alpha / RANK * change).astype(
                tensor.data.dtype
            )
    return target


@pytest.mark.parametrize("alpha", [2.0, 8.0])
def test_an_adapter_is_worth_what_its_file_says(tiny: Path, tmp_path: Path, alpha: float) -> None:
    adapter = write_lora(tmp_path / "a.gguf", tiny, targets=EVERYTHING, alpha=alpha)
    expected = answer(merged(tiny, adapter, tmp_path / "merged.gguf", alpha))
    found, plain = answer(tiny, adapter), answer(tiny)
    assert distance(found, expected) < 0.02 * distance(found, plain)


def test_token_embeddings_may_be_changed(tiny: Path, tmp_path: Path) -> None:
    random = np.random.default_rng(5)
    parts = {
        "token_embd.weight.lora_a": random.standard_normal((VOCABULARY, RANK)).astype(np.float32),
        "token_embd.weight.lora_b": 0.01 * random.standard_normal((WIDTH, RANK)).astype(np.float32),
    }
    adapter = write_lora(tmp_path / "a.gguf", tiny, targets=(), tensors=parts)
    expected = answer(merged(tiny, adapter, tmp_path / "merged.gguf", RANK))
    found, plain = answer(tiny, adapter), answer(tiny)
    assert distance(found, expected) < 0.02 * distance(found, plain)


def test_an_adapter_that_changes_nothing(tiny: Path, tmp_path: Path) -> None:
    adapter = write_lora(tmp_path / "a.gguf", tiny, strength=0.0)
    assert np.array_equal(answer(tiny, adapter), answer(tiny))


def test_several_adapters_add_up_and_can_be_taken_back(tiny: Path, tmp_path: Path) -> None:
    first = write_lora(tmp_path / "a.gguf", tiny, targets=EVERYTHING)
    second = write_lora(tmp_path / "b.gguf", tiny, targets=("output.weight",))
    plain, one = answer(tiny), answer(tiny, first)
    engine = loaded(tiny, first, second)
    try:
        both = logprobs(engine)
        assert distance(one, plain) > 1e-3 < distance(both, one)
        apply_adapters(engine._context, [])
        assert np.array_equal(logprobs(engine), plain)
    finally:
        engine.close()


def test_text_with_an_adapter(tmp_path: Path) -> None:
    adapter = write_lora(tmp_path / "a.gguf", smollm2(), strength=1.0)
    texts = []
    for adapters in ((), (adapter,)):
        engine = loaded(smollm2(), *adapters)
        prompt = engine.tokenizer.encode("The capital of France is")
        texts.append([tokens_of(draw(engine, prompt, 8)) for _ in range(2)])
        engine.close()
    (plain, again), (changed, changed_again) = texts
    assert plain == again != changed == changed_again


def test_what_was_computed_with_an_adapter_is_shared_and_saved_like_anything(
    tiny: Path, tmp_path: Path
) -> None:
    engine = loaded(tiny, write_lora(tmp_path / "a.gguf", tiny))
    try:
        whole = tokens_of(draw(engine, PROMPT, 6))
        first = Driver(engine, 1, PROMPT)
        assert [item.token for item in first.run(1)] == whole[:1]
        state = engine.save(1)
        assert state is not None
        for id in (2, 3):
            other = Driver(engine, id, whole[:1])
            assert engine.copy(1, id, len(PROMPT)) if id == 2 else engine.restore(id, state)
            sampled = engine.step([Work(id, whole[:1], len(PROMPT), sample=True)])
            assert tokens_of(sampled) == whole[1:2]
            other.end()
        first.end()
    finally:
        engine.close()


def test_vectors_with_an_adapter(tmp_path: Path) -> None:
    adapter = write_lora(tmp_path / "a.gguf", EMBEDDER, strength=1.0)
    found = []
    for adapters in ((), (adapter,)):
        engine = loaded(EMBEDDER, *adapters, embedding=True, num_ctx=64, cells=64, num_batch=64)
        found.append(engine.embed([Passage(engine.tokenizer.encode("a text"))]))
        engine.close()
    assert distance(found[0], found[1]) > 0.01


def test_experts_may_be_changed(mixture: Path, tmp_path: Path) -> None:
    random = np.random.default_rng(5)

    def parts(experts: int) -> dict[str, npt.NDArray[Any]]:
        shapes = {"lora_a": (experts, RANK, WIDTH), "lora_b": (experts, 256, RANK)}
        return {
            f"blk.{layer}.ffn_up_exps.weight.{part}": random.standard_normal(shape).astype(np.float32)
            for layer in range(4)
            for part, shape in shapes.items()
        }

    adapter = write_lora(tmp_path / "a.gguf", mixture, targets=(), tensors=parts(8))
    assert distance(answer(mixture, adapter), answer(mixture)) > 1e-4
    # The last dimension is one that llama.cpp does not look at before it computes.
    fewer = write_lora(tmp_path / "b.gguf", mixture, targets=(), tensors=parts(7))
    with pytest.raises(
        LoadFailed, match=r"b\.gguf .*tensors for blk\.0\.ffn_up_exps\.weight have other shapes"
    ):
        loaded(mixture, fewer)


def test_the_estimate_counts_an_adapter(tiny: Path, tmp_path: Path) -> None:
    adapter = write_lora(tmp_path / "a.gguf", tiny, targets=EVERYTHING)
    wanted = placement()
    shape = CacheShape(num_batch=wanted.num_batch, max_sequences=wanted.max_sequences)
    plain, spec = (ModelSpec(format="gguf", weights=tiny, adapters=paths) for paths in ((), (adapter,)))
    before, found = BACKEND.estimate(plain, shape), BACKEND.estimate(spec, shape)
    size = sum(tensor.size_bytes for tensor in read_header(adapter).tensors)
    (whole,) = memory_use(found, shape, cells=wanted.cells)
    (without,) = memory_use(before, shape, cells=wanted.cells)
    assert whole.weights - without.weights == size
    # Each part lies where the tensor lies that it changes.
    grown = [new.weights - old.weights for new, old in zip(found.layers, before.layers, strict=True)]
    assert len(set(grown)) == 1 and sum(grown) + found.head - before.head == size
    engine = loaded(tiny, adapter)
    (taken,) = engine.info.measured
    engine.close()
    assert abs(whole.total - taken.total) <= 0.1 * taken.total
    assert abs(taken.weights - sum(t.size_bytes for t in read_header(tiny).tensors) - size) <= SLACK


def _vector(*shape: int) -> npt.NDArray[np.float32]:
    return np.ones(shape, np.float32)


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "architecture": (
        {"architecture": "qwen2"},
        "it is for models of the architecture qwen2, and this one is llama",
    ),
    "a model": ({"keys": {"general.type": "model"}}, "it is no LoRA adapter"),
    "other kind": ({"keys": {"adapter.type": "control"}}, "it is no LoRA adapter"),
    "activated": ({"keys": {"adapter.alora.invocation_tokens": [1, 2]}}, "parts of a prompt only"),
    "alpha": ({"keys": {"adapter.lora.alpha": 4}}, "its alpha is no floating-point number"),
    "type": ({"dtype": np.float64}, "has the type F64; known are F32, F16, BF16, Q8_0"),
    "size": (
        {"targets": (), "tensors": {f"blk.0.attn_q.weight.lora_{part}": _vector(4, 4) for part in "ab"}},
        "tensor 'blk.0.attn_q.weight' has incorrect shape",
    ),
    "unknown tensor": (
        {"targets": (), "tensors": {f"blk.9.attn_q.weight.lora_{part}": _vector(4, 4) for part in "ab"}},
        "does not exist in base model",
    ),
    "half a pair": (
        {"targets": (), "tensors": {"blk.0.attn_q.weight.lora_a": _vector(4, WIDTH)}},
        "is missing one component",
    ),
    "other tensors": ({"targets": (), "tensors": {"blk.0.attn_q.weight": _vector(4)}}, "unexpected suffix"),
    "embeddings": (
        {
            "targets": (),
            "tensors": {
                "token_embd.weight.lora_a": _vector(VOCABULARY, RANK),
                "token_embd.weight.lora_b": _vector(WIDTH, RANK + 1),
            },
        },
        "its tensors for token_embd.weight have other shapes",
    ),
}


@pytest.mark.parametrize(("how", "message"), REFUSED.values(), ids=REFUSED)
def test_an_adapter_for_another_model_is_refused_by_name(
    tiny: Path, tmp_path: Path, how: dict[str, Any], message: str
) -> None:
    adapter = write_lora(tmp_path / "wrong.gguf", tiny, **how)
    with pytest.raises(LoadFailed) as caught:
        loaded(tiny, adapter)
    assert "the adapter wrong.gguf cannot be used: " in caught.value.message
    assert message in caught.value.message


def test_tied_embeddings_cannot_be_changed(tmp_path: Path) -> None:
    """llama.cpp would end the process: it multiplies with them once more, the other way round."""
    parts = {f"token_embd.weight.lora_{part}": _vector(4, 4) for part in "ab"}
    adapter = write_lora(tmp_path / "wrong.gguf", smollm2(), targets=(), tensors=parts)
    with pytest.raises(LoadFailed, match=r"wrong\.gguf .* which this model reads as its output as well"):
        loaded(smollm2(), adapter)


@pytest.mark.parametrize("size", [None, 0, 100, -1000])
def test_a_damaged_adapter_is_refused_by_name_and_the_next_load_works(
    tiny: Path, tmp_path: Path, size: int | None
) -> None:
    good = write_lora(tmp_path / "good.gguf", tiny)
    bad = tmp_path / "bad.gguf"
    if size is not None:
        bad.write_bytes(good.read_bytes()[:size])
    with pytest.raises((LoadFailed, BadModelFile), match=r"bad\.gguf"):
        loaded(tiny, good, bad)
    loaded(tiny, good).close()


def test_what_has_no_effect_is_said(tiny: Path, tmp_path: Path) -> None:
    norms = {f"blk.{layer}.attn_norm.weight": _vector(WIDTH) for layer in range(3)}
    adapter = write_lora(tmp_path / "a.gguf", tiny, tensors=norms)
    engine = loaded(tiny, adapter)
    engine.close()
    (notice,) = (notice for notice in engine.info.notices if notice.code == "adapter_partial")
    assert notice.message.startswith("3 of the tensors in the adapter a.gguf have no effect")


def test_where_llama_cpp_puts_each_tensor_is_no_warning(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "llama.cpp")
    warning = 3
    for line in (b"init: lora for 'x' cannot use buft 'CPU_REPACK', fallback to CPU\n", b"something else\n"):
        logs.callback(warning, line, None)
    assert [record.levelno for record in caplog.records] == [logging.DEBUG, logging.WARNING]
