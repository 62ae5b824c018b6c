"""Clients that leave, models that change, runners that are killed: nothing is lost, and nothing is left behind."""

from __future__ import annotations

from pathlib import Path

import pytest
from bench.chaos import Chaos, Model, total

from tests.conftest import DATA, MODEL, Server
from tests.frontends.conftest import create, upload

WARM_UP = 60
"""Requests after which the server has everything in memory that it ever needs."""
MOST_MEMORY = 32 * 2**20
SPARE_FILES = 16
"""Connections whose end the server has not seen yet."""


@pytest.mark.parametrize("requests", [120, pytest.param(2000, marks=pytest.mark.slow)])
def test_no_request_is_lost_and_nothing_leaks(tmp_path: Path, requests: int) -> None:
    server = Server(tmp_path)
    create(server, "tinybert", files={"m.gguf": upload(server, (DATA / "tinybert.gguf").read_bytes())})
    server.client.post("/api/copy", json={"source": MODEL, "destination": "twin"}).raise_for_status()
    models = [Model(MODEL, 256), Model("tinybert", embeds=True), Model("twin", 256), Model("twin", 512)]
    chaos = Chaos(server.url, server.process.pid, models)

    chaos.run(lambda sent: sent < WARM_UP)
    before = chaos.rest()
    assert not before.children
    chaos.run(lambda sent: sent < WARM_UP + requests)
    counts = chaos.idle()
    _no_sequence_is_left(server, chaos)
    after = chaos.rest()

    tally = chaos.tally
    assert tally.lost == []
    assert not tally.failed
    assert tally.kills and tally.finished and tally.left
    assert tally.finished + tally.left + tally.killed == tally.sent == WARM_UP + requests
    assert not after.children
    assert after.memory - before.memory < MOST_MEMORY
    assert after.files <= before.files + SPARE_FILES
    _counts_add_up(counts, chaos)
    assert server.generate(options={"num_predict": 2})["done"]
    assert server.stop() == 0
    assert "Traceback" not in server.log


def _no_sequence_is_left(server: Server, chaos: Chaos) -> None:
    """After one more step of a runner that has served many, only that step's own request has cells."""
    reply = server.generate("Hi", options={"num_predict": 2, "num_ctx": 512, "num_thread": 1})
    counts = chaos.idle()
    used = sum(
        part * counts[name.replace("kv_cache_usage_perc", "kv_cells")]
        for name, part in counts.items()
        if name.startswith("corectl_kv_cache_usage_perc")
    )
    assert used <= reply["prompt_eval_count"] + reply["eval_count"]


def _counts_add_up(counts: dict[str, float], chaos: Chaos) -> None:
    """Each request was counted once: clients that left may have done so before or after its end."""
    tally = chaos.tally
    ended = total(counts, "request_success_total")
    failed = total(counts, "request_failure_total")
    assert total(counts, "num_requests_running") == total(counts, "queue_requests") == 0
    assert tally.finished <= ended
    assert tally.finished + tally.killed <= ended + failed <= tally.sent
    assert total(counts, "generation_tokens_total") >= tally.output_tokens
    assert total(counts, "queue_refusals_total") == 0
