"""Calls into other people's code that may never return."""

from __future__ import annotations

import contextvars
import queue
import threading
from collections.abc import Callable
from typing import Any, Generic, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

SECONDS = 10.0
"""How long anything of a plugin may take: its import, what it offers, an event, a question."""

MAX_TEXT = 500
"""Characters of an exception's text that are worth telling."""


class Overdue(Exception):
    """A call has not returned in time; or, where it is `again`, one from before has still not returned."""

    def __init__(self, message: str, *, again: bool = False) -> None:
        super().__init__(message)
        self.again = again


class Deadline:
    """Limits the time of each call into one plugin. `what` names it in errors.

    A thread cannot be ended from outside. So each call has a thread to itself, and one that is overdue is left behind
    on it; until it returns, nothing more is asked. For threads that may wait, not for an event loop.

    A thread waits `linger` seconds for another call. That is for what every request asks: to start a thread takes
    longer than most answers do.
    """

    def __init__(self, what: str, *, linger: float = 0.0) -> None:
        self._what = what
        self._linger = linger
        self._idle: list[_Helper] = []
        self._left_behind: _Call[Any] | None = None

    def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What the function returns or raises; `Overdue` when it does neither in time.

        What would end a process, such as SystemExit, becomes a RuntimeError.
        """
        if self._left_behind is not None and self._left_behind.outcome.empty():
            raise Overdue(f"{self._what} has still not returned from an earlier call", again=True)
        context = contextvars.copy_context()
        call: _Call[T] = _Call(lambda: context.run(function, *args, **kwargs))
        try:
            helper = self._idle.pop()
        except IndexError:
            helper = _Helper(self._what, self._idle, self._linger)
        helper.give(call)
        try:
            found = call.outcome.get(timeout=SECONDS)
        except queue.Empty:
            # Nobody takes its outcome out, whenever it comes.
            self._left_behind = call
            raise Overdue(f"{self._what} did not return within {SECONDS:g} seconds") from None
        if isinstance(found, Exception):
            try:
                raise found
            finally:
                # It holds this frame, which is not to hold it.
                del found
        return found[0]


class _Call(Generic[T]):
    """Work for a helper. Who waits for it finds in `outcome` what it returned, or what it raised."""

    def __init__(self, work: Callable[[], T]) -> None:
        self._work = work
        self.outcome: queue.SimpleQueue[tuple[T] | Exception] = queue.SimpleQueue()

    def make(self) -> tuple[T] | Exception:
        try:
            return (self._work(),)
        except Exception as exc:
            return exc
        except BaseException as exc:
            return RuntimeError(described(exc))


class _Helper:
    """A thread that makes one call after another. Between them it is among the `idle` ones, for `linger` seconds."""

    def __init__(self, name: str, idle: list[_Helper], linger: float) -> None:
        self._idle = idle
        self._linger = linger
        self._calls: queue.SimpleQueue[_Call[Any]] = queue.SimpleQueue()
        # Daemons do not keep a process from ending, and neither do the threads that they start.
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def give(self, call: _Call[Any]) -> None:
        """Once it is no longer among the idle ones."""
        self._calls.put(call)
        if self._thread.ident is None:
            self._thread.start()

    def _run(self) -> None:
        call: _Call[Any] | None = self._calls.get()
        while call is not None:
            self._make(call)
            # What came of it is not to be kept until the next one.
            call = None
            call = self._next() if self._linger else None

    def _make(self, call: _Call[Any]) -> None:
        found = call.make()
        if self._linger:
            # Who is told may look for one for the next call.
            self._idle.append(self)
        call.outcome.put(found)
        # An exception holds this frame, which is not to hold it.
        del found

    def _next(self) -> _Call[Any] | None:
        try:
            return self._calls.get(timeout=self._linger)
        except queue.Empty:
            try:
                self._idle.remove(self)
            except ValueError:
                # Somebody has just found it.
                return self._calls.get()
            return None


def described(exc: BaseException) -> str:
    """An exception in one line: its type, and its text if it has one."""
    try:
        text = " ".join(str(exc).split())[:MAX_TEXT]
    except Exception:
        text = ""
    return f"{type(exc).__name__}: {text}" if text else type(exc).__name__
