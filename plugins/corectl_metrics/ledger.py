"""What is counted from events: for each model, over the server's life, however many runners it has had."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import msgspec

from corectl import hookimpl
from corectl.runner.stats import BATCH_SIZES, GAPS, Histogram, StepStats
from corectl.scheduler.state import LoadedModel, RequestSummary

MAX_MODELS = 1000
"""Names that get figures of their own; whatever is loaded after so many shares those of `OTHER`."""

MAX_CODES = 100
"""Codes of notices that get figures of their own, for each model."""

OTHER_CODE = "other"

OTHER = ""
"""The name for requests whose model was never loaded: what clients make up must not fill the memory."""

REASONS = ("idle", "stopped", "evicted", "reload", "shutdown", "device lost", "out of memory")
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)


def _seconds() -> Histogram:
    return Histogram.of(SECONDS)


class Steps(msgspec.Struct):
    """What runners have counted: see `corectl.runner.stats.StepStats` and `corectl.runner.state.LoopState`."""

    steps: int = 0
    tokens: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    preempted: int = 0
    evicted_tokens: int = 0
    sizes: Histogram = msgspec.field(default_factory=lambda: Histogram.of(BATCH_SIZES))
    gaps: Histogram = msgspec.field(default_factory=lambda: Histogram.of(GAPS))

    def add(self, stats: StepStats) -> None:
        self.steps += stats.steps
        self.tokens += stats.tokens
        self.prompt_tokens += stats.state.prompt_tokens
        self.cached_tokens += stats.state.cached_tokens
        self.preempted += stats.state.preempted
        self.evicted_tokens += stats.state.evicted_tokens
        self.sizes.add(stats.sizes)
        self.gaps.add(stats.gaps)

    def with_runners(self, living: Iterable[StepStats]) -> Steps:
        """These and those of runners that still live."""
        together = msgspec.structs.replace(self, sizes=self.sizes.copy(), gaps=self.gaps.copy())
        for stats in living:
            together.add(stats)
        return together


class Totals(msgspec.Struct):
    """One model. `steps` are those of runners that are gone; of `unloads` and `notices`, the reasons and codes."""

    prompt_tokens: int = 0
    generation_tokens: int = 0
    finished: Counter[str] = msgspec.field(default_factory=Counter)
    failed: Counter[str] = msgspec.field(default_factory=Counter)
    notices: Counter[str] = msgspec.field(default_factory=Counter)
    unloads: Counter[str] = msgspec.field(default_factory=Counter)
    loads: int = 0
    load_seconds: float = 0.0
    first_token: Histogram = msgspec.field(default_factory=_seconds)
    latency: Histogram = msgspec.field(default_factory=_seconds)
    queue: Histogram = msgspec.field(default_factory=_seconds)
    steps: Steps = msgspec.field(default_factory=Steps)

    def take(self, request: RequestSummary) -> None:
        if request.outcome == "finished":
            self.finished[request.reason or "stop"] += 1
        else:
            self.failed[request.outcome] += 1
        if request.usage is not None:
            self.prompt_tokens += request.usage.prompt_tokens
            self.generation_tokens += request.usage.output_tokens
        if request.first_token is not None:
            self.first_token.observe(request.first_token)
        self.latency.observe(request.total)
        self.queue.observe(request.queued)
        self.noted(request.notices)

    def noted(self, codes: Iterable[str]) -> None:
        """Counts what notices say. Other servers make up codes of their own."""
        for code in codes:
            known = code in self.notices or len(self.notices) < MAX_CODES
            self.notices[code if known else OTHER_CODE] += 1


class Ledger:
    """Listens to the events of one server."""

    def __init__(self) -> None:
        self.models: dict[str, Totals] = {}

    @hookimpl
    def corectl_model_loaded(self, model: LoadedModel) -> None:
        totals = self._of(model.record.name.short, known=True)
        totals.loads += 1
        totals.load_seconds += model.load_seconds
        totals.noted(notice.code for notice in model.notices)

    @hookimpl
    def corectl_model_unloaded(self, model: LoadedModel, reason: str) -> None:
        totals = self._of(model.record.name.short, known=True)
        totals.unloads[_kind(reason)] += 1
        totals.steps.add(model.stats)

    @hookimpl
    def corectl_request_finished(self, request: RequestSummary) -> None:
        # A second name of weights that are in memory never causes a load of its own.
        self._of(request.model, known=request.usage is not None).take(request)

    def name_of(self, model: LoadedModel) -> str:
        """The name under which a model that has been loaded is counted."""
        name = model.record.name.short
        return name if name in self.models else OTHER

    def _of(self, name: str, *, known: bool) -> Totals:
        if name not in self.models and not (known and len(self.models) < MAX_MODELS):
            name = OTHER
        return self.models.setdefault(name, Totals())


def _kind(reason: str) -> str:
    """The reason of an unload as a label: there are as many deaths as processes, but few kinds of them."""
    if reason in REASONS:
        return reason.replace(" ", "_")
    return "hung" if reason.startswith("it hung") else "died"
