"""The scheduler's public values: what may be loaded, what is, and how a request went."""

from __future__ import annotations

from datetime import datetime

import msgspec

from corectl.messages import Completion, Notice, Usage
from corectl.model.formats import ModelDescription
from corectl.model.record import ModelRecord
from corectl.remote.model import RemoteModel
from corectl.runner.engine import EngineInfo, ModelSpec, Placement
from corectl.runner.model_runner import ModelRunner
from corectl.runner.stats import StepStats
from corectl.trace import Trace


class Model(msgspec.Struct, frozen=True, kw_only=True):
    """A model that may be loaded: its record and what its header says."""

    record: ModelRecord
    spec: ModelSpec
    description: ModelDescription

    @property
    def key(self) -> str:
        """Two names of the same weights are the same model in memory."""
        return "\n".join(map(str, self.spec.paths))


AnyModel = Model | RemoteModel
"""A model that can be used: here, or on another server."""


class Lease(msgspec.Struct, frozen=True, kw_only=True):
    """The right to use a model, until the context that gave it ends. `load_ns` is the time that it took.

    `num_ctx` is the context that was asked for, in tokens, which may be shorter than the one that is loaded; 0 if none
    was. `notices` say what of the load went another way than the client may think; `trace` is where it is noted how the
    request goes.
    """

    runner: ModelRunner
    load_ns: int
    num_ctx: int = 0
    notices: tuple[Notice, ...] = ()
    trace: Trace

    def within(self, work: Completion) -> Completion:
        """The work, kept to that context."""
        return msgspec.structs.replace(work, num_ctx=self.num_ctx)


class LoadedModel(msgspec.Struct, frozen=True, kw_only=True):
    """A model in memory. `expires_at` is None for a model that stays for ever; in the past, if it is about to end.

    `placement` is what the load was asked for, with the memory that was estimated; `info` is what came of it, with the
    memory that was measured. `backend` computes as its `variant` says (`cpu`, `cuda` ...), and was chosen for
    `backend_reason`. `notices` say what went another way than one may think. Loading took `load_seconds`.
    """

    record: ModelRecord
    backend: str
    variant: str
    backend_reason: str
    placement: Placement
    info: EngineInfo
    stats: StepStats
    pid: int
    active: int
    expires_at: datetime | None
    notices: tuple[Notice, ...] = ()
    load_seconds: float = 0.0


class SchedulerStats(msgspec.Struct, frozen=True, kw_only=True):
    """Counts over the server's life, but for `waiting`, the requests that wait for a model now.

    `load_seconds` is the time of all `loads` together, `smaller_loads` counts tries that ran out of memory and were
    followed by a smaller one, `refused` the requests that found the queue full. `unloads` counts by reason: those of
    the hook `corectl_model_unloaded`, and `died` for any crash.
    """

    waiting: int = 0
    refused: int = 0
    loads: int = 0
    load_failures: int = 0
    load_seconds: float = 0.0
    smaller_loads: int = 0
    unloads: dict[str, int] = {}


class RequestSummary(msgspec.Struct, frozen=True, kw_only=True):
    """How a request went that asked for a model. Durations are in seconds.

    `id` and `path` are those of the HTTP request. `outcome` is `finished`, `cancelled`, or an error's code, `reason`
    why the output ended (`stop`, `length`; empty where nothing was generated). The request waited for `queued` until
    it had its model, of which `load` went into loading; `first_token` is the time from its arrival to its first
    output, None if there was none. `usage` is None for a request that did not come to its end. `notices` are codes:
    those of the reply's warnings, and `messages_dropped`, `prompt_truncated`, `context_shifted`, `input_truncated`.
    """

    id: str = ""
    path: str = ""
    model: str
    outcome: str
    reason: str = ""
    queued: float
    load: float = 0.0
    first_token: float | None = None
    total: float
    usage: Usage | None = None
    notices: tuple[str, ...] = ()


def summarize(trace: Trace) -> RequestSummary:
    """What plugins are told of a request when its model is given back."""
    return RequestSummary(
        id=trace.id,
        path=trace.path,
        model=trace.model,
        outcome=trace.outcome,
        reason=trace.reason,
        queued=trace.queued,
        load=trace.load,
        first_token=trace.first_token,
        total=trace.elapsed,
        usage=trace.usage,
        notices=trace.notices,
    )
