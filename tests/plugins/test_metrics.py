"""GET /metrics."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from corectl.config import Settings
from corectl.messages import Usage
from corectl.plugins import PluginHost
from corectl.remote.remotes import Remotes
from corectl.runner.engine import MemoryUse, Placement
from corectl.runner.state import LoopState
from corectl.runner.stats import StepStats
from corectl.scheduler.state import LoadedModel, RequestSummary, SchedulerStats
from corectl_metrics import ledger
from corectl_metrics.collect import Metrics
from corectl_metrics.ledger import Ledger
from corectl_remote import HttpBackend
from tests.conftest import MODEL, Server
from tests.core.fake import engine_info
from tests.core.stories import make_model
from tests.frontends.conftest import SKY, options


class Samples:
    """Values by the name of a sample and the values of its labels, in any order."""

    def __init__(self, text: str) -> None:
        self._values = {
            (sample.name, frozenset(sample.labels.values())): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }

    def __getitem__(self, key: tuple[str, tuple[str, ...]]) -> float:
        return self._values[key[0], frozenset(key[1])]

    def labels(self, name: str) -> list[frozenset[str]]:
        return [labels for found, labels in self._values if found == name]


class Stage:
    """A ledger that listens as in a server, and a scheduler that says what the test says."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.models: list[LoadedModel] = []
        self.stats = SchedulerStats(waiting=2, refused=3, load_failures=4, smaller_loads=5)
        self.ledger = Ledger()
        self.host = PluginHost()
        self.host.listen(self.ledger)
        self.registry = CollectorRegistry()
        self.remotes = Remotes(
            Settings(remotes={"lab": "http://127.0.0.1:9", "den": "http://127.0.0.1:10"}),
            {"remote": HttpBackend()},
        )
        self.registry.register(Metrics(self.ledger, cast(Any, self), self.remotes))

    def runners(self) -> list[LoadedModel]:
        return self.models

    def load(self, name: str, **changes: Any) -> LoadedModel:
        model = LoadedModel(
            variant="cpu",
            backend_reason="",
            record=make_model(self.folder, name).record,
            backend="fake",
            placement=Placement(
                num_ctx=64,
                cells=128,
                num_batch=8,
                max_sequences=4,
                num_thread=1,
                estimated=(MemoryUse(device="cpu", weights=10, cache=5),),
            ),
            info=engine_info(measured=(MemoryUse(device="cpu", weights=11, cache=5),)),
            stats=StepStats(),
            pid=1,
            active=0,
            expires_at=None,
            load_seconds=0.5,
        )
        model = msgspec.structs.replace(model, **changes)
        self.host.emit("corectl_model_loaded", model=model)
        self.models.append(model)
        return model

    def unload(self, model: LoadedModel, reason: str) -> None:
        self.models.remove(model)
        self.host.emit("corectl_model_unloaded", model=model, reason=reason)

    def request(self, model: str, outcome: str = "finished", **changes: Any) -> None:
        summary = RequestSummary(model=model, outcome=outcome, **{"queued": 0.01, "total": 2.0, **changes})
        self.host.emit("corectl_request_finished", request=summary)

    def scrape(self) -> Samples:
        return Samples(generate_latest(self.registry).decode())


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path)


def test_requests_by_model(stage: Stage) -> None:
    stage.load("a")
    usage = Usage(prompt_tokens=5, output_tokens=7)
    stage.request("a:latest", reason="stop", usage=usage, first_token=0.2, notices=("context_shifted",))
    stage.request("a:latest", reason="length", usage=usage, first_token=0.3)
    stage.request("a:latest", "cancelled")
    found = stage.scrape()
    assert found["corectl_request_success_total", ("a:latest", "stop")] == 1
    assert found["corectl_request_success_total", ("a:latest", "length")] == 1
    assert found["corectl_request_failure_total", ("a:latest", "cancelled")] == 1
    assert found["corectl_prompt_tokens_total", ("a:latest",)] == 10
    assert found["corectl_generation_tokens_total", ("a:latest",)] == 14
    assert found["corectl_degradations_total", ("a:latest", "context_shifted")] == 1
    assert found["corectl_time_to_first_token_seconds_count", ("a:latest",)] == 2
    assert found["corectl_time_to_first_token_seconds_bucket", ("a:latest", "0.25")] == 1
    assert found["corectl_time_to_first_token_seconds_sum", ("a:latest",)] == pytest.approx(0.5)
    assert found["corectl_e2e_request_latency_seconds_count", ("a:latest",)] == 3
    assert found["corectl_request_queue_time_seconds_bucket", ("a:latest", "0.01")] == 3


def test_counts_survive_runners(stage: Stage) -> None:
    def steps(times: int) -> StepStats:
        stats = StepStats(steps=times, tokens=2 * times, state=LoopState(prompt_tokens=9, cached_tokens=4))
        for _ in range(times):
            stats.gaps.observe(0.02)
            stats.sizes.observe(3)
        return stats

    stage.unload(stage.load("a", stats=steps(10)), "idle")
    model = stage.load("a", stats=steps(5))
    for _ in range(2):
        found = stage.scrape()
        assert found["corectl_engine_steps_total", ("a:latest",)] == 15
        assert found["corectl_engine_tokens_total", ("a:latest",)] == 30
        assert found["corectl_prefix_cache_queries_total", ("a:latest",)] == 18
        assert found["corectl_prefix_cache_hits_total", ("a:latest",)] == 8
        assert found["corectl_inter_token_latency_seconds_count", ("a:latest",)] == 15
        assert found["corectl_iteration_sequences_bucket", ("a:latest", "4.0")] == 15
        assert found["corectl_iteration_sequences_bucket", ("a:latest", "2.0")] == 0
    assert found["corectl_model_loads_total", ("a:latest",)] == 2
    assert found["corectl_model_load_seconds_total", ("a:latest",)] == 1.0
    stage.unload(model, "killed by SIGKILL; last log lines: 4711")
    stage.unload(stage.load("a"), "it hung: silent for 60 seconds")
    found = stage.scrape()
    assert found["corectl_engine_steps_total", ("a:latest",)] == 15
    reasons = frozenset().union(*found.labels("corectl_model_unloads_total"))
    assert reasons == {"a:latest", "idle", "died", "hung"}


def test_what_is_loaded_now(stage: Stage) -> None:
    state = LoopState(waiting=1, cells=100, cells_used=60, cells_idle=10, threads=3)
    model = stage.load("a", active=4, stats=StepStats(state=state))
    found = stage.scrape()
    assert found["corectl_num_requests_running", ("a:latest",)] == 3
    assert found["corectl_num_requests_waiting", ("a:latest",)] == 1
    assert found["corectl_kv_cache_usage_perc", ("a:latest",)] == 0.5
    assert found["corectl_threads", ("a:latest",)] == 3
    assert found["corectl_model_memory_bytes", ("a:latest", "cpu", "estimated")] == 15
    assert found["corectl_model_memory_bytes", ("a:latest", "cpu", "measured")] == 16
    stage.unload(model, "stopped")
    assert stage.scrape().labels("corectl_threads") == []


def test_two_runners_of_one_name_count_together(stage: Stage) -> None:
    """The name was given to other weights while the first ones were still in memory."""
    state = LoopState(cells=100, cells_used=60, cells_idle=10, prompt_tokens=7)
    first = stage.load("a", active=2, stats=StepStats(steps=3, state=state))
    empty = msgspec.structs.replace(state, cells=300, cells_used=0, cells_idle=0)
    stage.load("a", active=1, stats=StepStats(steps=4, state=empty))
    for _ in range(2):
        found = stage.scrape()
        assert found["corectl_engine_steps_total", ("a:latest",)] == 7
        assert found["corectl_prefix_cache_queries_total", ("a:latest",)] == 14
    assert found["corectl_num_requests_running", ("a:latest",)] == 3
    assert found["corectl_kv_cache_usage_perc", ("a:latest",)] == 0.125
    assert found["corectl_model_memory_bytes", ("a:latest", "cpu", "measured")] == 32
    stage.unload(first, "stopped")
    assert stage.scrape()["corectl_engine_steps_total", ("a:latest",)] == 7


def test_the_server_as_a_whole(stage: Stage) -> None:
    stage.remotes.named["lab"].up = True
    found = stage.scrape()
    assert found["corectl_remote_up", ("lab",)] == 1
    assert found["corectl_remote_up", ("den",)] == 0
    assert found["corectl_queue_requests", ()] == 2
    assert found["corectl_queue_refusals_total", ()] == 3
    assert found["corectl_model_load_failures_total", ()] == 4
    assert found["corectl_model_smaller_loads_total", ()] == 5


def test_clients_cannot_make_up_labels(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "MAX_MODELS", 3)
    for number in range(50):
        stage.request(f"made-up-{number}", "load_failed")
    assert list(stage.ledger.models) == [""]
    for name in "abcdef":
        stage.load(name)
        stage.request(f"{name}:latest", usage=Usage(output_tokens=1))
    assert list(stage.ledger.models) == ["", "a:latest", "b:latest"]
    assert stage.ledger.models[""].generation_tokens == 4
    assert stage.scrape()["corectl_request_failure_total", ("", "load_failed")] == 50


def test_other_servers_cannot_make_up_labels_without_end(stage: Stage) -> None:
    stage.load("a")
    for number in range(30):
        codes = tuple(f"made_up_{number * 10 + at}" for at in range(10))
        stage.request("a:latest", usage=Usage(output_tokens=1), notices=codes)
    notices = stage.ledger.models["a:latest"].notices
    assert len(notices) == ledger.MAX_CODES + 1 and sum(notices.values()) == 300
    assert notices["other"] == 300 - ledger.MAX_CODES


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    running = Server(tmp_path_factory.mktemp("metrics"))
    yield running
    assert running.stop() == 0, running.log


def scrape(server: Server) -> Samples:
    reply = server.client.get("/metrics")
    assert reply.status_code == 200
    assert reply.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    return Samples(reply.text)


def test_a_server_counts_what_its_replies_say(measured: Server) -> None:
    name = (f"{MODEL}:latest",)
    replies = [measured.generate(SKY, options=options()) for _ in range(2)]
    found = scrape(measured)
    assert found["corectl_prompt_tokens_total", name] == sum(r["prompt_eval_count"] for r in replies)
    assert found["corectl_generation_tokens_total", name] == sum(r["eval_count"] for r in replies)
    assert found["corectl_request_success_total", (*name, "length")] == 2
    assert found["corectl_time_to_first_token_seconds_count", name] == 2
    assert found["corectl_engine_steps_total", name] == measured.counts()["steps"]
    assert found["corectl_iteration_sequences_count", name] == measured.counts()["steps"]
    gaps = found["corectl_inter_token_latency_seconds_count", name]
    assert 0 < gaps < measured.counts()["steps"]
    assert found["corectl_model_loads_total", name] == 1
    assert found["process_resident_memory_bytes", ()] > 0
    measured.generate("", keep_alive=0)
    after = scrape(measured)
    assert after["corectl_model_unloads_total", (*name, "stopped")] == 1
    assert after["corectl_engine_steps_total", name] == found["corectl_engine_steps_total", name]


def test_foreign_origins_may_not_read_them(measured: Server) -> None:
    assert measured.client.get("/metrics", headers={"origin": "http://evil.test"}).status_code == 403
    assert measured.client.get("/metrics", headers={"host": "evil.test"}).status_code == 403


def test_two_servers_in_one_process_count_for_themselves(tmp_path: Path) -> None:
    async def story() -> None:
        first, second = Stage(tmp_path), Stage(tmp_path)
        first.load("a")
        assert first.ledger.models and not second.ledger.models

    asyncio.run(story())
