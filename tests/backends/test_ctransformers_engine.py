"""Models in ctransformers: what they compute, and what they are kept from."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pytest
from ctransformers.llm import LLM, Config

from corectl.errors import EngineError, LoadFailed
from corectl.messages import SamplingOptions
from corectl.model.files import ModelFiles
from corectl.runner.abilities import SequenceMemory, ThreadControl
from corectl.runner.engine import CacheShape, Engine, ModelSpec, Placement, SequenceSpec, Work
from corectl.testing.drive import Sequences, draw, tokens_of
from corectl_ctransformers import load as loading
from corectl_ctransformers.backend import CTransformersBackend
from corectl_ctransformers.format import Ggml
from corectl_ctransformers.header import read_header
from corectl_ctransformers.memory import Graph
from corectl_ctransformers.variant import library_variant
from tests.legacy_ggml import FAMILIES, KINDS, TINY, Size, llama, weights, write, write_ggml

Array = npt.NDArray[np.float32]

PLACEMENT = Placement(num_ctx=256, cells=512, num_batch=512, max_sequences=16, num_thread=1)
PROMPT = [5, 40, 31, 100, 7, 7, 99, 60, 61, 4, 80, 21, 33, 90]
"""Tokens that every vocabulary has."""

ENDINGS = ([50, 51, 52, 53], [70, 71, 72, 73])


def load(path: Path, **changes: Any) -> Engine:
    placement = msgspec.structs.replace(PLACEMENT, **changes)
    return CTransformersBackend().load(
        ModelSpec(format="ggml", weights=path), placement, lambda fraction: None
    )


@pytest.fixture(scope="module", params=FAMILIES)
def engine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """One of each family."""
    loaded = load(write_ggml(tmp_path_factory.mktemp("model") / "model.bin", request.param, "f16"))
    yield loaded
    loaded.close()


@pytest.fixture
def gpt2(tmp_path: Path) -> Iterator[Engine]:
    loaded = load(write_ggml(tmp_path / "model.bin"))
    yield loaded
    loaded.close()


def test_a_text_beside_the_weights_is_not_taken_for_them(tmp_path: Path) -> None:
    """Of a folder the first file by its name counts as the one with the weights."""
    path = write_ggml(tmp_path / "model.bin")
    named = {"LICENSE": tmp_path / "LICENSE", "README.md": tmp_path / "README.md", "model.bin": path}
    for name in ("LICENSE", "README.md"):
        named[name].write_text("Do what you want with it.")
    files = ModelFiles(weights=named["LICENSE"], named=named)
    assert Ggml().claims(files) and Ggml().describe(files).architecture == "gpt2"
    spec = ModelSpec(format="ggml", weights=files.weights, named=named)
    backend = CTransformersBackend()
    shape = CacheShape(num_batch=64, max_sequences=1)
    assert backend.estimate(spec, shape) == backend.estimate(ModelSpec(format="ggml", weights=path), shape)
    loaded = backend.load(spec, PLACEMENT, lambda fraction: None)
    assert len(draw(loaded, PROMPT, 3)) == 3
    loaded.close()


def logits(engine: Engine, tokens: list[int]) -> Array:
    """Of the next token, up to a constant: the log probabilities of all."""
    (sampled,) = draw(engine, tokens, 1, top_logprobs=engine.tokenizer.size)
    found = np.zeros(engine.tokenizer.size, np.float32)
    for item in sampled.top:
        found[item.token] = item.logprob
    return found


# What they compute


def reference(tokens: list[int], size: Size = TINY) -> Array:
    """The log probabilities after `tokens` by a GPT-2 with the weights that `write_ggml` writes, in numpy."""
    model = dict(weights(FAMILIES["gpt2"](size, 0)))

    def norm(values: Array, name: str) -> Array:
        centred = values - values.mean(-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
        return np.asarray(scaled * model[f"{name}/g"] + model[f"{name}/b"])

    def linear(values: Array, name: str) -> Array:
        return np.asarray(values @ model[f"{name}/w"].T + model[f"{name}/b"])

    def attend(values: Array, name: str) -> Array:
        parts = np.split(linear(values, f"{name}/c_attn"), 3, axis=-1)
        query, key, value = (part.reshape(-1, size.heads, size.head).swapaxes(0, 1) for part in parts)
        scores = query @ key.swapaxes(1, 2) / np.sqrt(size.head)
        scores += np.triu(np.full(scores.shape[1:], -np.inf), 1)
        chances = np.exp(scores - scores.max(-1, keepdims=True))
        mixed = (chances / chances.sum(-1, keepdims=True)) @ value
        return linear(mixed.swapaxes(0, 1).reshape(len(values), -1), f"{name}/c_proj")

    state = model["model/wte"][tokens] + model["model/wpe"][: len(tokens)]
    for layer in range(size.layers):
        block = f"model/h{layer}"
        state = state + attend(norm(state, f"{block}/ln_1"), f"{block}/attn")
        inner = linear(norm(state, f"{block}/ln_2"), f"{block}/mlp/c_fc")
        inner = inner * 0.5 * (1 + np.tanh(np.sqrt(2 / np.pi) * (inner + 0.044715 * inner**3)))
        state = state + linear(inner, f"{block}/mlp/c_proj")
    last = norm(state, "model/ln_f")[-1] @ model["model/wte"].T
    return np.asarray(last - np.log(np.exp(last - last.max()).sum()) - last.max())


def test_gpt2_computes_what_gpt2_computes(gpt2: Engine) -> None:
    expected = reference(PROMPT)
    # The library looks some functions up in tables of 16 bits.
    np.testing.assert_allclose(logits(gpt2, PROMPT), expected, atol=0.02)
    assert expected.std() > 0.5


@pytest.mark.parametrize("family", ["gpt2", "starcoder"])
def test_the_librarys_two_codes_for_gpt2_compute_the_same(tmp_path: Path, family: str) -> None:
    path = write_ggml(tmp_path / "model.bin", family, "q4_0")
    native = LLM(str(path), "gpt2", config=Config(), lib=library_variant())
    native.eval(PROMPT, batch_size=32, threads=1)
    theirs = np.array(list(native.logits), np.float32)
    theirs -= theirs.max() + np.log(np.exp(theirs - theirs.max()).sum())
    mine = load(path)
    np.testing.assert_allclose(logits(mine, PROMPT), theirs, atol=1e-3)
    mine.close()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_generates(tmp_path: Path, family: str, kind: str) -> None:
    engine = load(write_ggml(tmp_path / "model.bin", family, kind))
    first, second = (tokens_of(draw(engine, PROMPT, 10)) for _ in range(2))
    assert first == second
    assert first != tokens_of(draw(engine, PROMPT[::-1], 10))
    engine.close()


def test_a_prompt_in_pieces_is_a_prompt_at_once(engine: Engine) -> None:
    whole = logits(engine, PROMPT * 8)
    for piece in (1, 5, 64):
        (sampled,) = draw(engine, PROMPT * 8, 1, piece=piece, top_logprobs=5)
        assert [item.logprob for item in sampled.top] == pytest.approx(np.sort(whole)[:-6:-1], abs=1e-3)


def test_what_was_computed_is_handed_on(engine: Engine) -> None:
    """All but Falcon's memory can be used again up to any token."""
    assert isinstance(engine, SequenceMemory)
    afresh = [logits(engine, [*PROMPT, *ending]) for ending in ENDINGS]
    for length in (len(PROMPT), 9, 1):
        prompts = [[*PROMPT[:length], *ending] for ending in ENDINGS]
        expected = tokens_of(draw(engine, prompts[1], 6))
        with Sequences(engine) as sequences:
            source = sequences.begin(prompts[0])
            source.run(4)
            engine.keep(source.id)
            target = sequences.begin(prompts[1])
            if engine.copy(source.id, target.id, length):
                target.computed = length
            elif engine.info.description.startswith("falcon"):
                assert not engine.copy(source.id, target.id, length)
            else:
                raise AssertionError("nothing was handed on")
            sequences.end(source)
            assert tokens_of(target.run(6)) == expected
    np.testing.assert_allclose(logits(engine, [*PROMPT, *ENDINGS[0]]), afresh[0], atol=1e-3)


def test_another_request_takes_the_memory_away(gpt2: Engine) -> None:
    assert isinstance(gpt2, SequenceMemory)
    expected = tokens_of(draw(gpt2, PROMPT, 6))
    with Sequences(gpt2) as sequences:
        first = sequences.begin(PROMPT)
        first.run(2)
        gpt2.keep(first.id)
        second = sequences.begin(PROMPT[::-1])
        second.run(2)
        sequences.end(second)
        third = sequences.begin(PROMPT)
        assert not gpt2.copy(first.id, third.id, 4)
        assert tokens_of(third.run(6)) == expected


def test_seeds_and_options(gpt2: Engine) -> None:
    hot = SamplingOptions(temperature=2.0, top_k=0, top_p=1.0, seed=3)
    other = SamplingOptions(temperature=2.0, top_k=0, top_p=1.0, seed=4)
    assert tokens_of(draw(gpt2, PROMPT, 12, hot)) == tokens_of(draw(gpt2, PROMPT, 12, hot))
    assert tokens_of(draw(gpt2, PROMPT, 12, hot)) != tokens_of(draw(gpt2, PROMPT, 12, other))


def test_threads_change_nothing_but_the_time(gpt2: Engine) -> None:
    assert isinstance(gpt2, ThreadControl)
    expected = logits(gpt2, PROMPT)
    gpt2.set_threads(2)
    np.testing.assert_array_equal(logits(gpt2, PROMPT), expected)


# What they are kept from


def test_a_sequence_fills_the_context_and_no_more(engine: Engine) -> None:
    size = engine.info.num_ctx
    with Sequences(engine) as sequences:
        driver = sequences.begin([PROMPT[place % 14] for place in range(size)])
        driver.run(1)
        assert driver.computed == size
        with pytest.raises(EngineError, match=f"more than {size} tokens"):
            driver.run(1)


def test_requests_take_turns(gpt2: Engine) -> None:
    with Sequences(gpt2) as sequences:
        sequences.begin(PROMPT).run(1)
        with pytest.raises(EngineError, match="more than 1 sequences"):
            sequences.begin(PROMPT)


def test_a_step_takes_no_more_than_can_be_waited_for(gpt2: Engine) -> None:
    assert gpt2.info.num_batch == 64
    gpt2.add(SequenceSpec(id=1, prompt=(1,), sampling=SamplingOptions()))
    with pytest.raises(EngineError, match="more than 64"):
        gpt2.step([Work(1, [1] * 65, 0, sample=True)])
    gpt2.remove(1)


def test_a_context_is_as_long_as_the_file_or_the_wish_says(tmp_path: Path) -> None:
    for family, longest in {"gpt2": 256, "mpt": 256, "replit": 256, "llama": 1000, "falcon": 1000}.items():
        path = write_ggml(tmp_path / "model.bin", family)
        for wanted in (4, 100, 1000):
            engine = load(path, num_ctx=wanted)
            assert engine.info.num_ctx == engine.info.cells == min(wanted, longest)
            assert len(draw(engine, PROMPT[:2], 2)) == 2
            engine.close()


def test_a_context_for_which_the_buffers_are_too_small_is_shortened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_ggml(tmp_path / "model.bin", "replit")
    needed = Graph(read_header(path), 256).bytes(99, 1)
    monkeypatch.setattr("corectl_ctransformers.memory._BUFFER", needed)
    engine = load(path)
    assert engine.info.num_ctx == 100
    (notice,) = engine.info.notices
    assert notice.code == "reduced_load" and "100 tokens" in notice.message
    assert len(draw(engine, [5] * 100, 1)) == 1
    engine.close()
    monkeypatch.setattr("corectl_ctransformers.memory._BUFFER", 1000)
    with pytest.raises(LoadFailed, match=r"model\.bin: this replit model is too wide"):
        load(path)


def test_a_llama_in_an_older_file(tmp_path: Path) -> None:
    """Its data is not aligned, so it cannot be used where it lies."""
    new = load(write(tmp_path / "new.bin", llama(TINY, 1), "f16"))
    expected = logits(new, PROMPT)
    new.close()
    for magic, version in ((b"fmgg", 1), (b"tjgg", 1), (b"tjgg", 2)):
        old = load(write(tmp_path / "old.bin", llama(TINY, 1, magic=magic, version=version), "f16"))
        np.testing.assert_array_equal(logits(old, PROMPT), expected)
        old.close()


@pytest.mark.parametrize("folder", ["plain", "llama-70b-chat"])
def test_the_path_of_a_llama_means_nothing(tmp_path: Path, folder: str) -> None:
    """The library believes a path that mentions 70b, and ends the process over it."""
    (tmp_path / folder).mkdir()
    for size in (TINY, Size(heads=8, groups=8), Size(heads=8)):
        engine = load(write(tmp_path / folder / "model.bin", llama(size, 0)))
        assert len(draw(engine, PROMPT, 4)) == 4
        engine.close()


def test_whether_a_llama_is_mapped_changes_nothing(tmp_path: Path) -> None:
    path = write_ggml(tmp_path / "model.bin", "llama", "q8_0")
    found = []
    for use_mmap in (True, False):
        engine = load(path, use_mmap=use_mmap)
        found.append(tokens_of(draw(engine, PROMPT, 8)))
        engine.close()
    assert found[0] == found[1]


# Loading


def test_a_load_that_fails_says_what_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_ggml(tmp_path / "model.bin", "gptj", "q4_0")
    data = path.read_bytes()
    path.write_bytes(data[:-10])
    with pytest.raises(LoadFailed, match=r"model\.bin: the file was cut off"):
        load(path)
    with pytest.raises(LoadFailed, match=r"missing\.bin cannot be read: No such file"):
        load(tmp_path / "missing.bin")
    path.write_bytes(data)
    monkeypatch.setattr(loading, "LLM", _refusing)
    with pytest.raises(LoadFailed, match=r"cannot load this gptj model \(Q4_0, file of the kind ggml\)"):
        load(path)


def _refusing(*_: object, **__: object) -> None:
    raise RuntimeError("Failed to create LLM")


def test_a_library_that_cannot_compute_is_an_error_of_the_engine(gpt2: Engine) -> None:
    native: Any = gpt2._model._native  # type: ignore[attr-defined]
    gpt2._model._native = _Broken(native)  # type: ignore[attr-defined]
    with pytest.raises(EngineError, match="could not compute"):
        draw(gpt2, PROMPT, 1)


class _Broken:
    def __init__(self, native: Any) -> None:
        self._native = native

    def ctransformers_llm_batch_eval(self, tokens: ctypes.Array[Any], *_: int) -> bool:
        return len(tokens) == 0


@pytest.mark.parametrize("kind", ["f32", "f16", "q8_0"])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_estimate_is_what_a_load_takes(tmp_path: Path, family: str, kind: str) -> None:
    path = write_ggml(tmp_path / "model.bin", family, kind)
    spec, shape = ModelSpec(format="ggml", weights=path), CacheShape(num_batch=64, max_sequences=1)
    estimate = CTransformersBackend().estimate(spec, shape)
    engine = load(path)
    (use,) = engine.info.measured
    engine.close()
    assert sum(layer.weights for layer in estimate.layers) + estimate.host == use.weights
    assert path.stat().st_size * 0.9 < use.weights < path.stat().st_size * 1.3
    cells = -(-256 // estimate.cell_step) * estimate.cell_step
    assert sum(layer.cell * cells for layer in estimate.layers) == use.cache
    assert estimate.compute + estimate.compute_cell * cells == pytest.approx(use.compute, rel=0.5)
