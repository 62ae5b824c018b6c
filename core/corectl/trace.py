"""What is known of the request that is being answered: filled in where it passes, read when it is over."""

from __future__ import annotations

import time
from contextvars import ContextVar

import msgspec

from corectl.messages import Finish, Fit, Usage


class Trace(msgspec.Struct, kw_only=True):
    """One request. Times are seconds, from its arrival on; None and empty where it did not come to that.

    `via` are the servers that have passed it on, as the header of that name has them.
    `outcome` is `finished`, `cancelled` or an error's code. `queued` is how long the request waited for its model, of
    which `load` went into loading it; `first_token` is when the reply began. `reason` is why the output ended.
    `notices` are codes of everything that went another way than the client may think.
    """

    id: str = ""
    path: str = ""
    via: str = ""
    arrived: float = msgspec.field(default_factory=time.monotonic)
    model: str = ""
    outcome: str = ""
    reason: str = ""
    queued: float = 0.0
    load: float = 0.0
    first_token: float | None = None
    usage: Usage | None = None
    notices: tuple[str, ...] = ()

    @property
    def elapsed(self) -> float:
        """Seconds since the request arrived."""
        return time.monotonic() - self.arrived

    def answers(self) -> None:
        """Output has come; of several completions the first one counts."""
        if self.first_token is None:
            self.first_token = self.elapsed

    def finished(self, finish: Finish) -> None:
        """A completion has come to its end."""
        self.reason, self.usage = finish.reason, finish.usage
        self.notices = (*(notice.code for notice in finish.notices), *fit_codes(finish.fit))

    def answered(self, prompt_tokens: int, dropped_tokens: int = 0) -> None:
        """A question has got its answer, which is not streamed."""
        self.usage = Usage(prompt_tokens=prompt_tokens)
        self.notices = ("input_truncated",) if dropped_tokens else ()


def fit_codes(fit: Fit) -> list[str]:
    """Codes of what was done to make a request fit its context."""
    cut = fit.dropped_tokens and not fit.shifts
    found = {"messages_dropped": fit.dropped_messages, "prompt_truncated": cut, "context_shifted": fit.shifts}
    return [code for code, happened in found.items() if happened]


_current: ContextVar[Trace] = ContextVar("corectl.trace")


def current() -> Trace:
    """The trace of the request that this task works for; one that nobody reads outside of a request."""
    return _current.get(None) or Trace()


def begin(trace: Trace) -> None:
    """Makes a trace the current one, for this task and those that it starts."""
    _current.set(trace)
