"""From steps to frames: what each stream is told, and in which order."""

from __future__ import annotations

import queue
import socket
from collections.abc import Callable
from typing import Any, cast

import pytest

from corectl.errors import EngineError
from corectl.messages import Completion, Delta, Fit, RawPrompt, SamplingOptions, Usage
from corectl.output.plain import PlainReader
from corectl.runner import protocol
from corectl.runner.emitter import Emitter, EmitterThread, Outlet, OutputStream, Sender
from corectl.runner.engine import Candidate, Sampled
from corectl.runner.job import Ended, Job, StepOutput
from corectl.runner.prepare import Prepared
from corectl.runner.state import LoopState
from tests.core.fake import FIRST, FakeTokenizer

PATIENCE = 30.0
BROKEN = FIRST + 254


class Tokenizer(FakeTokenizer):
    """Knows no text for one of its tokens."""

    made: list[int]
    """Tokens that text was made of."""

    def piece(self, token: int, *, special: bool = False) -> bytes:
        self.made.append(token)
        if token == BROKEN:
            raise LookupError("no such token")
        return super().piece(token, special=special)


class Recorder(Sender):
    """Keeps what is sent."""

    def __init__(self) -> None:
        self.sent: queue.SimpleQueue[protocol.ToServer] = queue.SimpleQueue()
        self.fails = False
        """Whether the next one is lost, with an error that nobody expects."""

    def send(self, value: protocol.ToServer) -> None:
        if self.fails:
            self.fails = False
            raise RuntimeError("broken")
        self.sent.put(value)

    def next(self) -> protocol.ToServer:
        return self.sent.get(timeout=PATIENCE)

    def steps(self) -> protocol.Steps:
        value = self.next()
        assert isinstance(value, protocol.Steps)
        return value


class Stage:
    def __init__(self, *, beside: bool = False, together: float = 0.0) -> None:
        self.sender = Recorder()
        self.stops: queue.SimpleQueue[int] = queue.SimpleQueue()
        self.ends: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self.now = 100.0
        self.running = 0
        self.tokenizer = Tokenizer()
        self.tokenizer.made = []
        emitter = Emitter(
            self.tokenizer,
            self.sender,
            self.stops.put,
            state=lambda: LoopState(running=self.running),
            together=together,
            clock=lambda: self.now,
        )
        self.emitter: Outlet = EmitterThread(emitter, lambda: self.ends.put(True)) if beside else emitter

    def open(self, id: int, *stop: str, context: bool = False) -> None:
        request = Completion(
            prompt=RawPrompt(text="p"), sampling=SamplingOptions(stop=stop), want_context=context
        )
        prepared = Prepared(
            job=Job(id=id, tokens=[7], sampling=request.sampling),
            fit=Fit(num_ctx=64, dropped_tokens=3),
            reader=PlainReader(),
        )
        self.emitter.open(id, OutputStream(request, prepared))

    def put(self, texts: dict[int, str | int], *ended: Ended) -> None:
        """One step: the next letter (or token) of each stream."""
        sampled = [
            Sampled(id, text if isinstance(text, int) else FIRST + ord(text)) for id, text in texts.items()
        ]
        self.emitter.put(
            StepOutput(sequences=len(texts), tokens=len(texts), sampled=sampled, ended=list(ended))
        )
        self.emitter.flush()


@pytest.fixture(params=[False, True], ids=["between steps", "beside the engine"])
def stage(request: pytest.FixtureRequest) -> Stage:
    return Stage(beside=request.param)


def end(id: int, reason: str = "length", **changes: Any) -> Ended:
    return Ended(id=id, reason=reason, usage=Usage(output_tokens=9), **changes)


def test_one_frame_per_step_for_all_streams(stage: Stage) -> None:
    stage.open(1)
    stage.open(2)
    stage.put({1: "a", 2: "b"})
    step = protocol.Computed(2, 2)
    assert stage.sender.steps() == protocol.Steps([step], [(1, [Delta("a")]), (2, [Delta("b")])], [])


def test_the_end_says_what_was_done(stage: Stage) -> None:
    stage.open(1, context=True)
    stage.put({1: "a"}, end(1, shifts=2, shifted_tokens=5))
    step = stage.sender.steps()
    ((id, finish),) = step.finished
    assert (id, finish.reason, finish.usage.output_tokens) == (1, "length", 9)
    assert finish.fit == Fit(num_ctx=64, dropped_tokens=8, shifts=2)
    assert finish.context == (7, FIRST + ord("a"))


def test_held_text_comes_with_the_end(stage: Stage) -> None:
    stage.open(1, "ab")
    stage.put({1: "a"})
    assert stage.sender.steps().deltas == []
    stage.put({}, end(1, "stop"))
    step = stage.sender.steps()
    assert step.deltas == [(1, [Delta("a")])] and step.finished[0][1].reason == "stop"


def test_a_stop_string_asks_for_the_end_and_hides_what_follows(stage: Stage) -> None:
    stage.open(1, "b")
    stage.put({1: "a"})
    stage.put({1: "b"})
    assert stage.stops.get(timeout=PATIENCE) == 1
    stage.put({1: "c"}, end(1))
    steps = [stage.sender.steps() for _ in range(3)]
    assert [step.deltas for step in steps] == [[(1, [Delta("a")])], [], []]
    ((_, finish),) = steps[2].finished
    assert (finish.reason, finish.usage.output_tokens, finish.stop) == ("stop", 2, "b")


def test_an_error_comes_after_the_text_before_it(stage: Stage) -> None:
    stage.open(1, "ab")
    stage.put({1: "a"}, Ended(id=1, error=EngineError("out of memory")))
    assert stage.sender.steps().deltas == [(1, [Delta("a")])]
    assert stage.sender.next() == protocol.Failed(1, "engine_error", "out of memory")


def test_a_stream_that_cannot_be_written_does_not_silence_the_others(stage: Stage) -> None:
    stage.open(1)
    stage.open(2)
    stage.put({1: BROKEN, 2: "b"}, end(2))
    step = stage.sender.steps()
    assert step.deltas == [(2, [Delta("b")])] and [id for id, _ in step.finished] == [2]
    assert stage.sender.next() == protocol.Failed(1, "engine_error", "LookupError: no such token")
    assert stage.stops.get(timeout=PATIENCE) == 1
    stage.put({1: "x"}, end(1))
    assert stage.sender.steps() == protocol.Steps([protocol.Computed(1, 1)], [], [])


def test_a_dropped_stream_gets_nothing_more(stage: Stage) -> None:
    stage.open(1)
    stage.put({1: "a"})
    stage.emitter.drop(1)
    stage.emitter.drop(99)
    stage.put({1: "b"}, end(1))
    assert stage.sender.steps().deltas == [(1, [Delta("a")])]
    assert stage.sender.steps() == protocol.Steps([protocol.Computed(1, 1)], [], [])


def test_beside_the_engine_output_waits_until_it_computes_and_keeps_its_order() -> None:
    stage = Stage(beside=True)
    stage.open(1)
    first, second = (
        StepOutput(sequences=1, tokens=1, sampled=[Sampled(1, FIRST + ord(letter))], ended=[])
        for letter in "ab"
    )
    stage.emitter.put(first)
    with pytest.raises(queue.Empty):
        stage.sender.sent.get(timeout=0.05)
    stage.emitter.put(second)
    assert stage.sender.steps().deltas == [(1, [Delta("a")])]
    stage.emitter.drop(1)
    assert stage.sender.steps().deltas == [(1, [Delta("b")])]


def step(text: str, *ended: Ended, generating: bool = True, streams: int = 1) -> StepOutput:
    """Each letter is drawn for each of the streams, which are numbered from 1 on."""
    return StepOutput(
        sequences=streams,
        tokens=streams,
        sampled=[Sampled(id, FIRST + ord(letter)) for letter in text for id in range(1, streams + 1)],
        ended=list(ended),
        generating=generating,
    )


def sent(stage: Stage) -> list[str]:
    """The text of each frame so far, its pieces apart."""
    frames = []
    while not stage.sender.sent.empty():
        deltas = dict(stage.sender.steps().deltas)
        frames.append("|".join(delta.text for delta in deltas.get(1, [])))
    return frames


def flow(stage: Stage, text: str, seconds: float, *, streams: int = 1) -> None:
    """A step for each letter, of so many streams. One takes so long."""
    for letter in text:
        stage.emitter.computing(long=False)
        stage.now += seconds
        stage.emitter.put(step(letter, streams=streams))


def test_pieces_that_come_quickly_travel_together() -> None:
    stage = Stage(together=0.1)
    stage.open(1)
    flow(stage, "abcdefgh", 0.016)
    # The first at once; then a frame whenever the next step would be too late for its oldest.
    assert sent(stage) == ["a", "b|c|d|e|f|g|h"]
    flow(stage, "ijklm", 0.016)
    assert sent(stage) == []
    flow(stage, "no", 0.016)
    assert sent(stage) == ["i|j|k|l|m|n|o"]
    flow(stage, "p", 0.016)
    stage.emitter.put(step("q", end(1)))
    assert sent(stage) == ["p|q"]


@pytest.mark.parametrize("seconds", [0.05, 0.034])
def test_pieces_that_come_slowly_travel_alone_and_at_once(seconds: float) -> None:
    stage = Stage(together=0.1)
    stage.open(1)
    for number, letter in enumerate("abcd"):
        flow(stage, letter, seconds)
        assert sent(stage) == [letter], number


@pytest.mark.parametrize(
    ("streams", "seconds", "frames"),
    [
        (8, 0.04, ["a", "b|c|d", "e|f|g"]),
        (1, 0.032, ["a", "b|c|d|e"]),
        (8, 0.06, ["a", "b|c", "d|e", "f|g"]),
        (8, 0.09, ["a", "b|c", "d|e", "f|g"]),
        # A longer step is not waited for.
        (8, 0.101, ["a", "b", "c", "d", "e", "f", "g"]),
        # Less than three pieces come.
        (2, 0.067, ["a", "b", "c", "d", "e", "f", "g"]),
    ],
)
def test_where_many_stream_their_pieces_travel_together_for_longer_steps(
    streams: int, seconds: float, frames: list[str]
) -> None:
    stage = Stage(together=0.1)
    for id in range(1, streams + 1):
        stage.open(id)
    flow(stage, "abcdefg", seconds, streams=streams)
    assert sent(stage) == frames


@pytest.mark.parametrize(
    "event",
    [
        lambda stage: stage.emitter.computing(long=True),
        lambda stage: stage.emitter.flush(),
        lambda stage: stage.emitter.put(StepOutput(sequences=0, tokens=0, sampled=[], ended=[])),
        lambda stage: stage.emitter.put(step("", Ended(id=1, error=EngineError("out of memory")))),
    ],
    ids=["a long step", "no step", "news without a step", "an error"],
)
def test_nothing_waits_for(event: Callable[[Stage], None]) -> None:
    stage = Stage(together=0.1)
    stage.open(1)
    stage.emitter.put(step("a"))
    stage.now += 0.001
    stage.emitter.put(step("b"))
    assert sent(stage) == ["a"]
    event(stage)
    assert stage.sender.steps().deltas == [(1, [Delta("b")])]


def test_a_stop_string_ends_its_sequence_although_the_text_waits() -> None:
    stage = Stage(together=0.1)
    stage.open(1, "c")
    flow(stage, "abc", 0.001)
    assert stage.stops.get_nowait() == 1
    assert sent(stage) == ["a"]


def test_text_that_nothing_can_end_is_made_when_it_is_sent() -> None:
    stage = Stage(together=0.1)
    stage.open(1)
    flow(stage, "a", 0.001)
    made: list[int] = []
    stage.tokenizer.made = made
    flow(stage, "bcd", 0.001)
    assert sent(stage) == ["a"] and made == []
    stage.emitter.flush()
    assert sent(stage) == ["b|c|d"] and len(made) == 3


def test_a_frame_tells_how_the_loop_is_when_it_is_sent() -> None:
    stage = Stage(together=0.1)
    stage.open(1)
    stage.running = 2
    stage.emitter.put(step("a"))
    assert stage.sender.steps().state.running == 2
    stage.emitter.put(step("b"))
    stage.running = 1
    stage.emitter.flush()
    assert stage.sender.steps().state.running == 1


def test_a_frame_that_is_lost_ends_the_process() -> None:
    """Or else text would be missing in a reply that looks whole."""
    stage = Stage(beside=True)
    stage.open(1)
    stage.put({1: "a"})
    assert stage.sender.steps().deltas == [(1, [Delta("a")])]
    stage.sender.fails = True
    stage.put({1: "b"})
    assert stage.ends.get(timeout=PATIENCE)
    stage.put({1: "c"})
    with pytest.raises(queue.Empty):
        stage.sender.sent.get(timeout=0.05)


def test_an_output_that_cannot_be_read_ends_the_process(stage: Stage) -> None:
    output = StepOutput(sequences=1, tokens=1, sampled=[], ended=[cast(Any, None)])
    if isinstance(stage.emitter, EmitterThread):
        stage.emitter.put(output)
        stage.emitter.flush()
        assert stage.ends.get(timeout=PATIENCE)
    else:
        with pytest.raises(AttributeError):
            stage.emitter.put(output)


def test_the_first_text_of_another_stream_waits_for_nothing() -> None:
    stage = Stage(together=0.1)
    stage.open(1)
    stage.open(2)
    stage.put({1: "a"})
    stage.emitter.put(step("b"))
    stage.emitter.put(StepOutput(sequences=1, tokens=1, sampled=[Sampled(2, FIRST + ord("x"))], ended=[]))
    assert stage.sender.steps().deltas == [(1, [Delta("a")])]
    assert stage.sender.steps().deltas == [(1, [Delta("b")]), (2, [Delta("x")])]


def test_what_is_held_of_a_dropped_stream_is_never_sent() -> None:
    stage = Stage(together=0.1)
    stage.open(1)
    stage.emitter.put(step("a"))
    stage.emitter.put(step("b"))
    stage.emitter.drop(1)
    stage.emitter.flush()
    assert sent(stage) == ["a", ""]


def test_gaps_lie_between_outputs_of_one_sequence() -> None:
    stage = Stage()
    stage.open(1)

    def gap(text: str, generating: bool = True) -> float:
        stage.now += 0.5
        stage.emitter.put(step(text, generating=generating))
        (computed,) = stage.sender.steps().computed
        return computed.gap

    # A first token may show nothing, and a pause is no gap.
    assert [gap(""), gap("a"), gap("b"), gap(""), gap("c", generating=False)] == [0, 0, 0.5, 0, 1.0]
    assert [gap("d"), gap("e")] == [0, 0.5]


def test_probabilities(stage: Stage) -> None:
    stage.open(1)
    a, b = (Candidate(FIRST + byte, -0.5) for byte in (ord("a"), 0xFF))
    sampled = Sampled(1, a.token, a, (a, b))
    stage.emitter.put(StepOutput(sequences=1, tokens=1, sampled=[sampled], ended=[]))
    stage.emitter.flush()
    ((_, (delta,)),) = stage.sender.steps().deltas
    (logprob,) = delta.logprobs
    assert (logprob.chosen.token, logprob.chosen.logprob) == ("a", -0.5)
    assert [(item.token, item.bytes_) for item in logprob.top] == [("a", b"a"), ("\ufffd", b"\xff")]


def test_a_server_that_is_gone_is_no_error() -> None:
    ours, theirs = socket.socketpair()
    theirs.close()
    with ours:
        Sender(ours).send(protocol.Progress(0.5))
