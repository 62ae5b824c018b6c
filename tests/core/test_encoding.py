"""Texts that wait to be encoded, and share calls of the engine."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from corectl.errors import BadRequest, EngineError
from corectl.messages import Answer, Vectors
from corectl.runner import encoding, protocol
from corectl.runner.encoding import EncodeJob, EncodeQueue, Matrix
from corectl.runner.engine import Passage
from tests.core.fake import FakeEngine, engine_info


def lengths(matrix: Matrix) -> Answer:
    """An answer that shows what the engine was given: the fake one's first column."""
    return Vectors(data=matrix[:, :1].tobytes(), size=1, prompt_tokens=0)


def job(id: int, *sizes: int, finish: Any = lengths) -> EncodeJob:
    return EncodeJob(id=id, passages=[Passage([7] * size) for size in sizes], finish=finish)


def queue(*jobs: EncodeJob, **sizes: int) -> tuple[EncodeQueue, FakeEngine]:
    engine = FakeEngine(engine_info(**sizes))
    found = EncodeQueue(engine)
    for item in jobs:
        found.add(item)
    return found, engine


def drain(found: EncodeQueue) -> list[protocol.Answer | protocol.Failed]:
    replies = []
    while not found.idle:
        replies += found.step()
    return replies


def answered(reply: protocol.Answer | protocol.Failed) -> tuple[int, list[float]]:
    assert isinstance(reply, protocol.Answer) and isinstance(reply.value, Vectors)
    return reply.id, np.frombuffer(reply.value.data, np.float32).tolist()


def test_a_job_of_several_calls_is_answered_in_order() -> None:
    found, engine = queue(job(1, 5, 20, 9, 3, 32, 1), num_batch=32, max_sequences=4)
    assert [answered(reply) for reply in drain(found)] == [(1, [5, 20, 9, 3, 32, 1])]
    assert [[len(item.tokens) for item in call] for call in engine.embedded] == [[5, 20], [9, 3], [32], [1]]


def test_jobs_share_a_call() -> None:
    found, engine = queue(job(1, 2, 3), job(2, 4), job(3, 5, 6), max_sequences=4)
    assert [answered(reply) for reply in found.step()] == [(1, [2, 3]), (2, [4])]
    assert [answered(reply) for reply in drain(found)] == [(3, [5, 6])]
    assert [len(call) for call in engine.embedded] == [4, 1]


def test_a_job_of_many_texts_does_not_hold_up_the_others() -> None:
    found, _ = queue(job(1, *[3] * 40), job(2, 4), job(3, *[5] * 6), max_sequences=4)
    assert [reply.id for reply in drain(found)] == [2, 3, 1]


def test_a_job_whose_answer_would_be_too_large_ends_after_one_call(monkeypatch: pytest.MonkeyPatch) -> None:
    width = FakeEngine(engine_info()).embed([Passage([7])])[0].size
    monkeypatch.setattr(encoding, "MAX_VALUES", 3 * width)
    found, engine = queue(job(1, 2, 2, 2), job(2, 2, 2, 2, 2), job(3, 5), max_sequences=1)
    right, refused, last = sorted(drain(found), key=lambda reply: reply.id)
    assert answered(right) == (1, [2, 2, 2]) and answered(last) == (3, [5])
    assert isinstance(refused, protocol.Failed) and refused.code == BadRequest.code
    assert refused.message.startswith(f"4 texts give {4 * width} values")
    assert len(engine.embedded) == 5


def test_calls_are_no_larger_than_is_good(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoding, "CALL_TOKENS", 10)
    found, engine = queue(job(1, 4, 4, 4, 25, 1), num_batch=32, max_sequences=16)
    assert [answered(reply) for reply in drain(found)] == [(1, [4, 4, 4, 25, 1])]
    assert [[len(item.tokens) for item in call] for call in engine.embedded] == [[4, 4], [4], [25], [1]]


def test_a_job_without_texts_is_answered() -> None:
    found, engine = queue(job(1), job(2, 3))
    assert [answered(reply) for reply in drain(found)] == [(1, []), (2, [3])]
    assert len(engine.embedded) == 1


def test_a_cancelled_job_is_computed_no_further() -> None:
    found, engine = queue(job(1, 30, 30, 30), job(2, 4))
    assert found.step() == []
    found.cancel(1)
    found.cancel(99)
    assert [answered(reply) for reply in drain(found)] == [(2, [4])]
    assert [[len(item.tokens) for item in call] for call in engine.embedded] == [[30], [4]]


def test_an_engine_that_fails_fails_those_of_the_call() -> None:
    found, _ = queue(job(1, 2), job(2, 99), job(3, 2))
    # The fake engine refuses more than it has room for, alone or not.
    assert [answered(reply) for reply in found.step()] == [(1, [2])]
    (failed,) = found.step()
    assert isinstance(failed, protocol.Failed) and (failed.id, failed.code) == (2, EngineError.code)
    assert [answered(reply) for reply in drain(found)] == [(3, [2])]


def test_an_answer_that_cannot_be_made_fails_alone() -> None:
    def refuse(matrix: Matrix) -> Answer:
        raise BadRequest("no numbers")

    def break_down(matrix: Matrix) -> Answer:
        raise ValueError("who knows")

    found, _ = queue(job(1, 2, finish=refuse), job(2, 3), job(3, 4, finish=break_down))
    first, second, third = found.step()
    assert first == protocol.Failed(1, BadRequest.code, "no numbers")
    assert answered(second) == (2, [3])
    assert third == protocol.Failed(3, EngineError.code, "ValueError: who knows")
    assert found.idle
