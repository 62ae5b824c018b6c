"""Calls that may not return."""

from __future__ import annotations

import queue
import threading
from contextvars import ContextVar

import pytest

from corectl import deadline
from corectl.deadline import Deadline, Overdue, described


def test_it_returns_and_raises_what_the_function_does() -> None:
    bounded = Deadline("it")
    assert bounded.call(max, 1, 2) == 2
    with pytest.raises(KeyError, match="x"):
        bounded.call({"y": 1}.__getitem__, "x")
    assert bounded.call(int, "ff", base=16) == 255


def test_a_timeout_of_its_own_is_not_taken_for_ours() -> None:
    def late() -> None:
        raise TimeoutError("mine")

    with pytest.raises(TimeoutError, match="mine"):
        Deadline("it").call(late)
    with pytest.raises(queue.Empty):
        Deadline("it").call(queue.SimpleQueue().get, block=False)


@pytest.mark.parametrize("ends", [SystemExit(3), KeyboardInterrupt(), GeneratorExit()])
def test_what_would_end_the_process_is_an_ordinary_error(ends: BaseException) -> None:
    def end() -> None:
        raise ends

    with pytest.raises(RuntimeError, match=type(ends).__name__):
        Deadline("it").call(end)


def test_it_sees_the_callers_context() -> None:
    variable: ContextVar[int] = ContextVar("variable")
    variable.set(7)
    assert Deadline("it").call(variable.get) == 7


def test_what_hangs_is_named_and_not_asked_again_until_it_has_returned(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(deadline, "SECONDS", 0.05)
    bounded, go_on, calls = Deadline("the thing"), threading.Event(), []

    def hang() -> None:
        calls.append(threading.current_thread())
        go_on.wait(60)

    with pytest.raises(Overdue, match=r"the thing did not return within 0\.05 seconds") as first:
        bounded.call(hang)
    for _ in range(3):
        with pytest.raises(Overdue, match="still not returned") as later:
            bounded.call(hang)
        assert later.value.again
    assert not first.value.again and len(calls) == 1 and calls[0].daemon
    go_on.set()
    calls[0].join(60)
    assert bounded.call(str) == ""


def test_threads_stay_for_the_next_call_and_not_for_long() -> None:
    bounded = Deadline("it", linger=60)
    assert bounded.call(threading.current_thread) is bounded.call(threading.current_thread)
    brief = Deadline("it", linger=0.01)
    first = brief.call(threading.current_thread)
    first.join(60)
    assert brief.call(threading.current_thread) is not first


def test_calls_at_once_have_threads_of_their_own() -> None:
    bounded, both, found = (
        Deadline("it", linger=60),
        threading.Barrier(2, timeout=60),
        list[threading.Thread](),
    )

    def meet() -> None:
        both.wait()
        found.append(threading.current_thread())

    for _ in range(3):
        callers = [threading.Thread(target=bounded.call, args=(meet,)) for _ in range(2)]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join()
    assert len(set(found)) == 2


def test_what_came_late_is_not_taken_for_the_next_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deadline, "SECONDS", 0.05)
    bounded, go_on, ended = Deadline("it", linger=60), threading.Event(), threading.Event()

    def hang() -> str:
        go_on.wait(60)
        ended.set()
        return "late"

    with pytest.raises(Overdue):
        bounded.call(hang)
    go_on.set()
    ended.wait(60)
    monkeypatch.setattr(deadline, "SECONDS", 60)
    while True:
        try:
            assert bounded.call(str) == ""
        except Overdue as exc:
            assert exc.again
        else:
            break
    # The thread that was left behind is one like the others now: while it is busy, others are asked.
    assert bounded.call(lambda: bounded.call(lambda: bounded.call(str))) == ""


class Mute(Exception):
    def __str__(self) -> str:
        raise ValueError


@pytest.mark.parametrize(
    ("exc", "text"),
    [
        (ValueError(), "ValueError"),
        (ValueError("a\nb"), "ValueError: a b"),
        (Mute(), "Mute"),
        (ValueError("x" * 10_000), f"ValueError: {'x' * 500}"),
    ],
)
def test_an_exception_in_one_line(exc: Exception, text: str) -> None:
    assert described(exc) == text
