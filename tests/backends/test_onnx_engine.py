"""ONNX Runtime GenAI on the first two layers of SmolLM2: how they are loaded and computed, and what is refused."""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest

from corectl.errors import BadModelFile, CorectlError, EngineError, LoadFailed
from corectl.messages import SamplingOptions
from corectl.runner.engine import Engine, ModelSpec, Placement, SequenceSpec, Work
from corectl_onnx.backend import OnnxBackend
from corectl_onnx.format import OnnxGenai
from tests.forms import Forms
from tests.onnx_file import files_of, onnx, tensor

pytest.importorskip("onnxruntime_genai")
pytest.importorskip("torch", reason="the model builder needs torch")

GREEDY = SamplingOptions(temperature=0)
PROMPT = "Once upon a time there was a fox who"


@pytest.fixture(scope="module")
def folder(forms: Forms) -> Path:
    return forms.onnx(2)


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    """The model in a folder that a test may change; its weights are not copied."""
    target = tmp_path / "model"
    shutil.copytree(folder, target, ignore=shutil.ignore_patterns("*.data"))
    (target / "model.onnx.data").hardlink_to(folder / "model.onnx.data")
    return target


def spec_of(folder: Path) -> ModelSpec:
    files = files_of(folder)
    return ModelSpec(format="onnx-genai", weights=files.weights, named=files.named)


def load(model: Path | ModelSpec, **changes: Any) -> Engine:
    values = Placement(num_ctx=256, cells=512, num_batch=128, max_sequences=4, num_thread=1, devices=("cpu",))
    placement = msgspec.structs.replace(values, **changes)
    spec = model if isinstance(model, ModelSpec) else spec_of(model)
    return OnnxBackend().load(spec, placement, lambda fraction: None)


@pytest.fixture(scope="module")
def engine(folder: Path) -> Iterator[Engine]:
    loaded = load(folder)
    yield loaded
    loaded.close()


def draw(engine: Engine, prompt: str = PROMPT, count: int = 8, id: int = 1) -> list[int]:
    """Greedy tokens of a sequence of its own."""
    tokens = engine.tokenizer.encode(prompt)
    engine.add(SequenceSpec(id=id, prompt=tuple(tokens), sampling=GREEDY))
    try:
        found, position = [], 0
        for _ in range(count):
            (sampled,) = engine.step([Work(id, tokens[position:], position, sample=True)])
            position = len(tokens)
            tokens.append(sampled.token)
            found.append(sampled.token)
        return found
    finally:
        engine.remove(id)


def edit(folder: Path, **changes: Any) -> None:
    """Changes settings of a model: those of the decoder, and with `model_` those of the whole."""
    path = folder / "genai_config.json"
    config = json.loads(path.read_text())
    for name, value in changes.items():
        whole = name.startswith("model_")
        (config["model"] if whole else config["model"]["decoder"])[name.removeprefix("model_")] = value
    path.write_text(json.dumps(config))


def test_the_model_is_described_as_it_was_built(folder: Path) -> None:
    found = OnnxGenai().describe(files_of(folder))
    assert (found.architecture, found.quantization) == ("llama", "F32")
    # Two layers of 3.5 million, and an embedding that is the head as well.
    assert found.parameter_count == 49152 * 576 + 2 * (576 * 960 + 576 * 576 + 3 * 576 * 1536 + 2 * 576) + 576
    assert (found.context_length, found.embedding_length) == (8192, 576)
    assert "<|im_start|>" in found.chat_template


def test_there_are_as_many_generators_as_contexts_fit_into_the_pool(folder: Path) -> None:
    for cells, sequences, most in ((300, 1, 4), (768, 3, 4), (1024, 2, 2)):
        engine = load(folder, cells=cells, max_sequences=most)
        info = engine.info
        engine.close()
        assert info.max_sequences == sequences
        assert info.cells == cells // 256 * 256
        # The adapter adds one place for a sequence that is about to take over another one's generator.
        assert info.max_sequences + info.idle_sequences - 1 == cells // 256
        (use,) = info.measured
        assert use.cache == info.cells * 2 * 2 * 3 * 64 * 4


def test_a_context_is_no_longer_than_the_model_has(copy: Path) -> None:
    edit(copy, model_context_length=100)
    engine = load(copy)
    assert engine.info.num_ctx == 100
    tokens = [5] * 100
    engine.add(SequenceSpec(id=1, prompt=tuple(tokens), sampling=GREEDY))
    assert engine.step([Work(1, tokens, 0, sample=True)])
    with pytest.raises(EngineError, match="more than 100 tokens"):
        engine.step([Work(1, [5], 100, sample=True)])
    engine.close()


def test_a_model_that_lies_as_blobs_is_loaded(folder: Path, tmp_path: Path) -> None:
    """ONNX Runtime follows links to weights, as long as they lie beside the file that names them."""
    blobs = tmp_path / "blobs"
    blobs.mkdir()
    named = {}
    for number, path in enumerate(sorted(folder.iterdir())):
        named[path.name] = blobs / f"sha256-{number:064x}"
        named[path.name].hardlink_to(path)
    engine = load(ModelSpec(format="onnx-genai", weights=named["model.onnx"], named=named))
    assert len(draw(engine, count=2)) == 2
    engine.close()


@pytest.mark.parametrize("location", ["../outside.data", "/etc/passwd", "elsewhere.data"])
def test_onnx_runtime_itself_is_never_shown_weights_outside_of_the_model(copy: Path, location: str) -> None:
    (copy.parent / "outside.data").write_bytes(bytes(64))
    (copy / "model.onnx").write_bytes(onnx(tensor("w", (16,), location=location, offset=0, length=64)))
    with pytest.raises(BadModelFile, match=r"model\.onnx: its weights are in"):
        load(copy)


def test_onnx_runtime_refuses_a_link_that_leads_out_of_the_folder(copy: Path, folder: Path) -> None:
    """What it would not load must be a typed error with its words, whatever this project has checked before."""
    from corectl_onnx.native import NativeModel

    (copy / "model.onnx.data").unlink()
    (copy / "model.onnx.data").symlink_to(folder / "model.onnx.data")
    with pytest.raises(EngineError, match="escapes model directory"):
        NativeModel(copy, vocabulary=49152)


def test_the_library_never_reads_the_settings_of_the_model(copy: Path) -> None:
    """With settings that name files to be written, nothing is written; the model is refused with the option's name."""
    edit(copy, session_options={"enable_profiling": str(copy.parent / "profile")})
    with pytest.raises(BadModelFile, match="enable_profiling"):
        load(copy)
    assert [path.name for path in copy.parent.iterdir()] == ["model"]


@pytest.mark.parametrize(
    "changes",
    [
        {"model_vocab_size": 50_000},
        {"head_size": 32},
        {"outputs": {"logits": "nowhere"}},
        {"model_type": "gpt9"},
    ],
    ids=lambda changes: "-".join(f"{name}" for name in changes),
)
def test_settings_that_do_not_fit_the_graph_fail_the_load(copy: Path, changes: dict[str, Any]) -> None:
    edit(copy, **changes)
    with pytest.raises(LoadFailed, match=r"model\.onnx cannot be loaded: ONNX Runtime"):
        load(copy)


def test_a_tokenizer_is_needed(copy: Path) -> None:
    (copy / "tokenizer.json").unlink()
    with pytest.raises(LoadFailed, match=r"no tokenizer\.json"):
        load(copy)


def test_settings_say_which_tokens_end_a_text(copy: Path) -> None:
    edit(copy, model_eos_token_id=[2, 300])
    engine = load(copy)
    assert engine.tokenizer.is_end(300) and engine.tokenizer.is_end(2)
    engine.close()


def test_a_model_for_another_provider_is_computed_by_the_cpu_and_says_so(copy: Path, engine: Engine) -> None:
    edit(copy, session_options={"provider_options": [{"cuda": {"enable_cuda_graph": "0"}}]})
    other = load(copy)
    (notice,) = other.info.notices
    assert notice.code == "cpu_fallback"
    assert "made for cuda, and the installed build computes on cpu" in notice.message
    assert draw(other) == draw(engine)
    other.close()
    assert engine.info.notices == ()


@pytest.mark.parametrize("shared", [True, False])
def test_what_is_kept_is_gone_on_with(copy: Path, shared: bool) -> None:
    """Whether or not the model's keys and values have room for a whole context from the start."""
    path = copy / "genai_config.json"
    config = json.loads(path.read_text())
    config["search"]["past_present_share_buffer"] = shared
    path.write_text(json.dumps(config))
    engine = load(copy, cells=256)
    expected = draw(engine)
    tokens = engine.tokenizer.encode(PROMPT)
    engine.add(SequenceSpec(id=1, prompt=tuple(tokens), sampling=GREEDY))
    engine.step([Work(1, [*tokens, 77, 78], 0, sample=True)])
    engine.keep(1)  # type: ignore[attr-defined]
    engine.add(SequenceSpec(id=2, prompt=tuple(tokens), sampling=GREEDY))
    assert engine.copy(1, 2, len(tokens) - 1)  # type: ignore[attr-defined]
    engine.remove(1)
    found: list[int] = []
    position = len(tokens) - 1
    while len(found) < len(expected):
        (sampled,) = engine.step([Work(2, tokens[position:], position, sample=True)])
        found.append(sampled.token)
        position = len(tokens)
        tokens.append(sampled.token)
    assert found == expected
    engine.close()


def test_a_model_with_a_window_computes_each_prompt_anew(copy: Path, engine: Engine) -> None:
    edit(copy, sliding_window={"window_size": 64, "slide_inputs": False, "slide_key_value_cache": False})
    other = load(copy)
    assert draw(other, count=4) == draw(engine, count=4)
    tokens = other.tokenizer.encode(PROMPT)
    other.add(SequenceSpec(id=1, prompt=tuple(tokens), sampling=GREEDY))
    other.step([Work(1, tokens, 0, sample=True)])
    other.keep(1)  # type: ignore[attr-defined]
    other.add(SequenceSpec(id=2, prompt=tuple(tokens), sampling=GREEDY))
    assert not other.copy(1, 2, len(tokens))  # type: ignore[attr-defined]
    other.close()


def test_long_prompts_are_computed_in_pieces(engine: Engine) -> None:
    """However they are cut, the logits are the same."""
    tokens = engine.tokenizer.encode(PROMPT * 12)[:120]
    drawn = []
    for cut in (120, 64, 17, 1):
        engine.add(SequenceSpec(id=1, prompt=tuple(tokens), sampling=GREEDY, top_logprobs=3))
        for begin in range(0, len(tokens), cut):
            piece = tokens[begin : begin + cut]
            last = begin + len(piece) == len(tokens)
            sampled = engine.step([Work(1, piece, begin, sample=last)])
        drawn.append(sampled[0])
        engine.remove(1)
    assert len({item.token for item in drawn}) == 1
    for item in drawn[1:]:
        assert item.top[0].logprob == pytest.approx(drawn[0].top[0].logprob, abs=1e-3)


def test_other_threads_run_while_a_prompt_is_computed(engine: Engine) -> None:
    """The library's own Python interface would keep them all waiting."""
    ticks: list[float] = []
    done = threading.Event()

    def tick() -> None:
        while not done.wait(0.001):
            ticks.append(time.perf_counter())

    thread = threading.Thread(target=tick)
    tokens = engine.tokenizer.encode(PROMPT * 12)[:120]
    engine.add(SequenceSpec(id=1, prompt=tuple(tokens), sampling=GREEDY))
    thread.start()
    began = time.perf_counter()
    engine.step([Work(1, tokens, 0, sample=True)])
    ended = time.perf_counter()
    done.set()
    thread.join()
    engine.remove(1)
    meanwhile = [moment for moment in ticks if began < moment < ended]
    assert len(meanwhile) > (ended - began) * 1000 / 20


def test_a_generator_that_has_failed_is_not_used_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from corectl_onnx.native import Generator

    engine = load(folder, cells=256)
    expected = draw(engine)

    def fail(self: Generator, *values: Any) -> None:
        raise EngineError("ONNX Runtime: it broke")

    with monkeypatch.context() as broken:
        broken.setattr(Generator, "append", fail)
        broken.setattr(Generator, "rewind", fail)
        with pytest.raises(EngineError, match="it broke"):
            draw(engine)
    assert draw(engine) == expected
    engine.close()


def test_memory_comes_back(folder: Path) -> None:
    process = psutil.Process()
    load(folder).close()
    before = process.memory_info().rss
    for _ in range(3):
        engine = load(folder, num_ctx=4096, cells=8192)
        draw(engine, count=2)
        taken = engine.info.memory
        engine.close()
    grown = process.memory_info().rss - before
    assert taken > 200 << 20
    assert grown < taken / 2


def test_a_load_that_fails_late_gives_its_memory_back(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from corectl_onnx import native

    destroyed: list[str] = []

    def noted(name: str, call: Callable[[Any], None]) -> Callable[[Any], None]:
        def note(handle: Any) -> None:
            destroyed.append(name)
            call(handle)

        return note

    for name in ("_destroy_generator", "_destroy_model"):
        monkeypatch.setattr(native, name, noted(name, getattr(native, name)))

    def fail(self: native.Generator) -> Any:
        raise EngineError("ONNX Runtime: bad logits")

    monkeypatch.setattr(native.Generator, "logits", fail)
    with pytest.raises(LoadFailed, match=r"model\.onnx cannot be loaded: ONNX Runtime: bad logits"):
        load(folder, cells=256)
    assert destroyed == ["_destroy_generator", "_destroy_model"]


def test_failures_of_memory_are_told_from_others(monkeypatch: pytest.MonkeyPatch) -> None:
    from corectl_onnx import native

    monkeypatch.setattr(native, "_destroy_result", lambda result: None)
    for text, code in ((b"std::bad_alloc", "out_of_memory"), (b"Invalid argument", "engine_error")):
        monkeypatch.setattr(native, "_error", lambda result, text=text: text)
        with pytest.raises(CorectlError) as caught:
            native._check(1)
        assert caught.value.code == code and text.decode() in caught.value.message
    native._check(None)
