"""Calls into other people's code that may never return."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import ParamSpec, TypeVar

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

    A thread cannot be ended from outside. So each call has a thread of its own, and one that is overdue is left behind
    on it; until it returns, nothing more is asked. For threads that may wait, not for an event loop.
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self._left_behind: threading.Thread | None = None

    def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What the function returns or raises; `Overdue` when it does neither in time.

        What would end a process, such as SystemExit, becomes a RuntimeError.
        """
        if self._left_behind is not None and self._left_behind.is_alive():
            raise Overdue(f"{self._what} has still not returned from an earlier call", again=True)
        result: Future[T] = Future()
        context = contextvars.copy_context()

        def run() -> None:
            try:
                result.set_result(context.run(function, *args, **kwargs))
            except Exception as exc:
                result.set_exception(exc)
            except BaseException as exc:
                result.set_exception(RuntimeError(described(exc)))

        # Daemons do not keep a process from ending, and neither do the threads that they start.
        thread = threading.Thread(target=run, name=self._what, daemon=True)
        thread.start()
        thread.join(SECONDS)
        if not result.done():
            self._left_behind = thread
            raise Overdue(f"{self._what} did not return within {SECONDS:g} seconds")
        return result.result()


def described(exc: BaseException) -> str:
    """An exception in one line: its type, and its text if it has one."""
    try:
        text = " ".join(str(exc).split())[:MAX_TEXT]
    except Exception:
        text = ""
    return f"{type(exc).__name__}: {text}" if text else type(exc).__name__
