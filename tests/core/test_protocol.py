"""The wire between server and runner."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from corectl.errors import BadRequest
from corectl.messages import (
    ChatPrompt,
    Completion,
    Delta,
    Detokenize,
    Embedding,
    Finish,
    Fit,
    Logprob,
    Message,
    RawPrompt,
    Rendered,
    Rerank,
    SamplingOptions,
    Scores,
    Template,
    Text,
    TextPrompt,
    Tokenize,
    TokenLogprob,
    Tokens,
    Usage,
    Vectors,
)
from corectl.runner import protocol
from corectl.runner.engine import ModelSpec, Placement
from corectl.runner.protocol import HEADER, MAX_FRAME, frame, receive
from tests.core.fake import engine_info

TEMPLATE = Template(kind="jinja", text="{{ messages }}")
SAMPLING = SamplingOptions(stop=("a", "ß"), seed=2**63 - 1, temperature=0.25)
LOAD = protocol.Load(
    plugins=("p",),
    backend="b",
    model=ModelSpec(format="gguf", weights=Path("/m/w"), projectors=(Path("/p"),), embedding=True),
    placement=Placement(
        num_ctx=1, cells=2, num_batch=3, max_sequences=4, num_thread=5, use_mmap=False, devices=("cpu",)
    ),
)
TO_RUNNER: list[protocol.ToRunner] = [
    LOAD,
    protocol.Complete(1, Completion(prompt=RawPrompt(text="x\0é\U0001f600"), sampling=SAMPLING)),
    protocol.Complete(
        2,
        Completion(
            prompt=ChatPrompt(
                template=TEMPLATE, messages=(Message(role="user", tool_calls=({"a": [1, None]},)),)
            ),
            sampling=SAMPLING,
            context=(1, 2),
            truncate=False,
            shift=False,
            logprobs=True,
            top_logprobs=20,
            want_context=True,
            render_only=True,
        ),
    ),
    protocol.Complete(3, Completion(prompt=TextPrompt(template=TEMPLATE, prompt="p"), sampling=SAMPLING)),
    protocol.Ask(4, Embedding(inputs=("a", ""), template="{{ .Prompt }}", truncate=False, dimensions=7)),
    protocol.Ask(5, Rerank(query="q", documents=("a", ""))),
    protocol.Ask(6, Tokenize(text="a", add_special=True)),
    protocol.Ask(7, Detokenize(tokens=(1, 2**31 - 1, -1))),
    protocol.Cancel(2**40),
]
LOGPROB = Logprob(TokenLogprob("\ufffd", -0.5, b"\xff"), (TokenLogprob("a", -float("inf"), b"a"),))
FINISH = Finish(reason="stop", usage=Usage(prompt_tokens=1), fit=Fit(num_ctx=8, shifts=2), context=(1, 2))
TO_SERVER: list[protocol.ToServer] = [
    protocol.Progress(0.5),
    protocol.Ready(engine_info(can_shift=True)),
    protocol.Steps(
        [protocol.Computed(2, 3, 0.5)],
        [(1, [Delta("x", (LOGPROB,)), Delta("y")]), (2, [Delta("")])],
        [(1, FINISH)],
    ),
    protocol.Answer(1, Rendered(text="", prompt_tokens=3, fit=Fit(num_ctx=8))),
    protocol.Answer(1, Vectors(data=b"\0\1\2\3", size=1, prompt_tokens=3)),
    protocol.Answer(1, Scores(scores=(0.5, 0.25), prompt_tokens=3, dropped_tokens=1)),
    protocol.Answer(1, Tokens(tokens=(1, 2))),
    protocol.Answer(1, Text(text="x")),
    protocol.Failed(0, "load_failed", "why"),
]


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    theirs.settimeout(30)
    with ours, theirs:
        yield ours, theirs


@pytest.mark.parametrize("value", TO_RUNNER, ids=lambda value: type(value).__name__)
def test_what_a_runner_is_told_arrives_as_it_was(value: protocol.ToRunner, pair: Any) -> None:
    ours, theirs = pair
    ours.sendall(frame(value))
    assert receive(theirs) == value


@pytest.mark.parametrize("value", TO_SERVER, ids=lambda value: type(value).__name__)
def test_what_a_runner_says_arrives_as_it_was(value: protocol.ToServer) -> None:
    data = frame(value)
    assert int.from_bytes(data[:HEADER], "big") == len(data) - HEADER
    assert protocol.to_server.decode(data[HEADER:]) == value


def test_numbers_beyond_64_bits_become_floats(pair: Any) -> None:
    ours, theirs = pair
    call = {
        "function": {"name": "f", "arguments": {"n": [10**25, -(10**25), 2**64 - 1, True, {"m": 10**25}]}}
    }
    message = Message(role="assistant", tool_calls=(call,))
    prompt = ChatPrompt(template=TEMPLATE, messages=(message,), given=1)
    ours.sendall(frame(protocol.Complete(1, Completion(prompt=prompt, sampling=SAMPLING))))
    received = receive(theirs)
    assert isinstance(received, protocol.Complete) and isinstance(received.request.prompt, ChatPrompt)
    (sent,) = received.request.prompt.messages[0].tool_calls
    assert sent["function"]["arguments"] == {"n": [1e25, -1e25, 2**64 - 1, True, {"m": 1e25}]}
    assert received.request.sampling == SAMPLING
    large = msgspec.structs.replace(prompt, tools=({"n": 10**400},))
    with pytest.raises(BadRequest, match="too large"):
        frame(protocol.Complete(2, Completion(prompt=large, sampling=SAMPLING)))


def test_paths_stay_paths(pair: Any) -> None:
    ours, theirs = pair
    ours.sendall(frame(LOAD))
    found = receive(theirs)
    assert isinstance(found, protocol.Load)
    assert isinstance(found.model.weights, Path) and isinstance(found.model.projectors[0], Path)


def test_frames_in_one_piece_and_byte_by_byte(pair: Any) -> None:
    ours, theirs = pair
    data = b"".join(map(frame, TO_RUNNER))
    ours.sendall(data)
    assert [receive(theirs) for _ in TO_RUNNER] == TO_RUNNER
    sender = threading.Thread(target=lambda: [ours.send(data[at : at + 1]) for at in range(len(data))])
    sender.start()
    assert [receive(theirs) for _ in TO_RUNNER] == TO_RUNNER
    sender.join()


def test_a_large_frame(pair: Any) -> None:
    ours, theirs = pair
    value = protocol.Complete(1, Completion(prompt=RawPrompt(text="x" * 2**22), sampling=SAMPLING))
    sender = threading.Thread(target=ours.sendall, args=(frame(value),))
    sender.start()
    assert receive(theirs) == value
    sender.join()


@pytest.mark.parametrize("sent", [b"", b"\0\0", (9).to_bytes(HEADER, "big") + b"abc"])
def test_a_server_that_is_gone(pair: Any, sent: bytes) -> None:
    ours, theirs = pair
    ours.sendall(sent)
    ours.close()
    with pytest.raises(EOFError):
        receive(theirs)


def test_a_frame_that_claims_too_much_is_refused_before_anything_is_allocated(pair: Any) -> None:
    ours, theirs = pair
    ours.sendall((MAX_FRAME + 1).to_bytes(HEADER, "big"))
    with pytest.raises(EOFError, match="frame of"):
        receive(theirs)


@pytest.mark.parametrize(
    "body", [b"", b"\xc1", msgspec.msgpack.encode(["nonsense", 1]), frame(TO_SERVER[0])[4:]]
)
def test_nonsense_is_a_decode_error(pair: Any, body: bytes) -> None:
    ours, theirs = pair
    ours.sendall(len(body).to_bytes(HEADER, "big") + body)
    with pytest.raises(msgspec.DecodeError):
        receive(theirs)


@given(st.lists(st.tuples(st.integers(1, 2**31), st.text()), max_size=20))
def test_any_text_survives(deltas: list[tuple[int, str]]) -> None:
    step = protocol.Steps([protocol.Computed(1, 2)], [(id, [Delta(text)]) for id, text in deltas], [])
    assert protocol.to_server.decode(frame(step)[HEADER:]) == step


def test_half_a_surrogate_pair_is_no_end_of_the_conversation() -> None:
    call = Message(role="assistant", tool_calls=({"a\udc00": ["x\ud800y", "\ud83d\ude00"]},))
    prompt = ChatPrompt(template=TEMPLATE, messages=(call,))
    sent = protocol.Complete(1, Completion(prompt=prompt, sampling=SAMPLING))
    received = protocol.to_runner.decode(protocol.frame(sent)[protocol.HEADER :])
    assert isinstance(received, protocol.Complete) and isinstance(received.request.prompt, ChatPrompt)
    assert received.request.prompt.messages[0].tool_calls == ({"a\ufffd": ["x\ufffdy", "\U0001f600"]},)
    failed = protocol.frame(protocol.Failed(1, "code", "\ud800"))
    assert protocol.to_server.decode(failed[protocol.HEADER :]) == protocol.Failed(1, "code", "\ufffd")
