"""From the counts to families of samples, each time that somebody asks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import accumulate

from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from corectl import __version__
from corectl.remote.remotes import Remotes
from corectl.runner.stats import Histogram
from corectl.scheduler.scheduler import Scheduler
from corectl.scheduler.state import LoadedModel
from corectl_metrics.ledger import Ledger, Steps, Totals

MODEL = "model_name"

COUNTERS: tuple[tuple[str, str, Callable[[Totals, Steps], float]], ...] = (
    ("prompt_tokens", "tokens of the prompts of finished requests", lambda t, _: t.prompt_tokens),
    ("generation_tokens", "tokens of the output of finished requests", lambda t, _: t.generation_tokens),
    (
        "prefix_cache_queries",
        "prompt tokens that were looked up in the prefix cache",
        lambda _, s: s.prompt_tokens,
    ),
    (
        "prefix_cache_hits",
        "prompt tokens that were found there, and not computed",
        lambda _, s: s.cached_tokens,
    ),
    ("prefix_cache_evicted_tokens", "tokens that were kept and had to go", lambda _, s: s.evicted_tokens),
    ("num_preemptions", "sequences that had to give up their cells", lambda _, s: s.preempted),
    ("engine_steps", "engine steps", lambda _, s: s.steps),
    ("engine_tokens", "tokens in all engine steps", lambda _, s: s.tokens),
    ("model_loads", "loads", lambda t, _: t.loads),
    ("model_load_seconds", "time of all loads", lambda t, _: t.load_seconds),
)

LABELLED: tuple[tuple[str, str, str, Callable[[Totals], dict[str, int]]], ...] = (
    ("request_success", "finished_reason", "requests that came to their end", lambda t: t.finished),
    (
        "request_failure",
        "outcome",
        "requests that were cancelled or failed, by error code",
        lambda t: t.failed,
    ),
    ("model_unloads", "reason", "runners that have ended", lambda t: t.unloads),
    ("degradations", "code", "what went another way than clients may think", lambda t: t.notices),
)

HISTOGRAMS: tuple[tuple[str, str, Callable[[Totals, Steps], Histogram]], ...] = (
    (
        "time_to_first_token_seconds",
        "from a request's arrival to its first output",
        lambda t, _: t.first_token,
    ),
    ("e2e_request_latency_seconds", "from a request's arrival to its end", lambda t, _: t.latency),
    ("request_queue_time_seconds", "until a request had its model, loading included", lambda t, _: t.queue),
    ("inter_token_latency_seconds", "between steps that gave output, once a step", lambda _, s: s.gaps),
    ("iteration_sequences", "sequences in one engine step", lambda _, s: s.sizes),
)

GAUGES: tuple[tuple[str, str, Callable[[LoadedModel], float]], ...] = (
    (
        "num_requests_running",
        "requests that are computed",
        lambda m: max(m.active - m.stats.state.waiting, 0),
    ),
    ("num_requests_waiting", "requests that wait inside the runner", lambda m: m.stats.state.waiting),
    ("kv_cells", "cells of the key-value memory", lambda m: _cells(m)),
    ("kv_cells_kept", "cells that are only kept for later requests", lambda m: m.stats.state.cells_idle),
    ("threads", "CPU threads of the last step", lambda m: m.stats.state.threads or m.info.num_thread),
    ("snapshot_bytes", "host memory of saved states", lambda m: m.stats.state.snapshot_bytes),
)
"""Of several runners of one name, the sum is shown."""


class Metrics(Collector):
    """All families of one server."""

    def __init__(self, ledger: Ledger, scheduler: Scheduler, remotes: Remotes) -> None:
        self._ledger = ledger
        self._scheduler = scheduler
        self._remotes = remotes

    def collect(self) -> Iterator[Metric]:
        living: dict[str, list[LoadedModel]] = {}
        for runner in self._scheduler.runners():
            living.setdefault(self._ledger.name_of(runner), []).append(runner)
        rows = [
            (name, totals, totals.steps.with_runners([runner.stats for runner in living.get(name, ())]))
            for name, totals in self._ledger.models.items()
        ]
        for name, text, value in COUNTERS:
            counter = CounterMetricFamily(f"corectl_{name}", text, labels=[MODEL])
            for model, totals, steps in rows:
                counter.add_metric([model], value(totals, steps))
            yield counter
        for name, label, text, counts in LABELLED:
            counter = CounterMetricFamily(f"corectl_{name}", text, labels=[MODEL, label])
            for model, totals, _ in rows:
                for kind, count in counts(totals).items():
                    counter.add_metric([model, kind], count)
            yield counter
        for name, text, histogram in HISTOGRAMS:
            family = HistogramMetricFamily(f"corectl_{name}", text, labels=[MODEL])
            for model, totals, steps in rows:
                found = histogram(totals, steps)
                family.add_metric([model], _buckets(found), found.total)
            yield family
        yield from _gauges(living)
        yield from self._server()

    def _server(self) -> Iterable[Metric]:
        stats = self._scheduler.stats
        yield GaugeMetricFamily("corectl_queue_requests", "requests that wait for a model", stats.waiting)
        for name, text, count in (
            ("queue_refusals", "requests that found the queue full", stats.refused),
            ("model_load_failures", "loads that failed", stats.load_failures),
            ("model_smaller_loads", "loads that ran out of memory and were tried again", stats.smaller_loads),
        ):
            yield CounterMetricFamily(f"corectl_{name}", text, count)
        remotes = GaugeMetricFamily("corectl_remote_up", "whether a remote server answers", labels=["remote"])
        for watched in self._remotes.named.values():
            remotes.add_metric([watched.server.name], watched.up)
        yield remotes
        info = GaugeMetricFamily("corectl_info", "the version, as a label", labels=["version"])
        info.add_metric([__version__], 1)
        yield info


def _gauges(living: dict[str, list[LoadedModel]]) -> Iterable[Metric]:
    for name, text, value in GAUGES:
        gauge = GaugeMetricFamily(f"corectl_{name}", text, labels=[MODEL])
        for model, runners in living.items():
            gauge.add_metric([model], sum(map(value, runners)))
        yield gauge
    usage = GaugeMetricFamily(
        "corectl_kv_cache_usage_perc", "cells of running requests; 1 is all", labels=[MODEL]
    )
    for model, runners in living.items():
        cells = sum(map(_cells, runners))
        usage.add_metric([model], sum(map(_used, runners)) / cells if cells else 0.0)
    yield usage
    memory = GaugeMetricFamily("corectl_model_memory_bytes", "by device", labels=[MODEL, "device", "kind"])
    for labels, size in _memory(living).items():
        memory.add_metric(labels, size)
    yield memory


def _memory(living: dict[str, list[LoadedModel]]) -> Counter[tuple[str, str, str]]:
    """Bytes by model, device, and whether they are estimated or measured."""
    found: Counter[tuple[str, str, str]] = Counter()
    for model, runners in living.items():
        for runner in runners:
            for kind, uses in (
                ("estimated", runner.placement.estimated),
                ("measured", runner.info.measured),
            ):
                for use in uses:
                    found[model, use.device, kind] += use.total
    return found


def _cells(model: LoadedModel) -> int:
    return model.stats.state.cells or model.info.cells


def _used(model: LoadedModel) -> int:
    return model.stats.state.cells_used - model.stats.state.cells_idle


def _buckets(histogram: Histogram) -> list[tuple[str, float]]:
    """Cumulative, as Prometheus wants them."""
    bounds = [*(str(bound) for bound in histogram.bounds), "+Inf"]
    return list(zip(bounds, accumulate(histogram.counts), strict=True))
