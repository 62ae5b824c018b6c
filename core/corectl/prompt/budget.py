"""What a template may cost: the length of its source, and the CPU time of the renderings of one request.

Time is the CPU time of the rendering thread, not the clock on the wall: on a busy machine an honest template
must not fail because others work.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from corectl.errors import BadRequest

# For compiling and rendering, all renderings of one request together.
MAX_SECONDS = 2.0
MAX_SOURCE = 1 << 18
MAX_TOKENS = 20_000
# Compiled templates are kept for short sources only, as they take many times as much memory.
MAX_CACHED_SOURCE = 1 << 15
CACHED_TEMPLATES = 16


class OutOfTime(BadRequest):
    """The CPU time is used up: another rendering within the same budget would fail as well."""


class _Allowance:
    used = 0.0


_allowance: ContextVar[_Allowance | None] = ContextVar("_allowance", default=None)


@contextmanager
def rendering_budget() -> Iterator[None]:
    """All renderings inside share one allowance of CPU time. Inside another budget it changes nothing."""
    if _allowance.get() is not None:
        yield
        return
    token = _allowance.set(_Allowance())
    try:
        yield
    finally:
        _allowance.reset(token)


@contextmanager
def metered() -> Iterator[Callable[[], None]]:
    """One rendering. Gives a function that raises `OutOfTime` when the budget around it is used up."""
    allowance = _allowance.get() or _Allowance()
    began = time.thread_time()
    end = began + MAX_SECONDS - allowance.used

    def check() -> None:
        if time.thread_time() > end:
            raise OutOfTime("the template takes too much time")

    check()
    try:
        yield check
    finally:
        allowance.used += time.thread_time() - began


def check_source(text: str, what: str) -> None:
    """Raise `BadRequest` for a source that is too long to be read at all."""
    if len(text) > MAX_SOURCE:
        raise BadRequest(f"{what} is longer than {MAX_SOURCE} characters")
