"""Plans: what they say, and that loads do what they say."""

from __future__ import annotations

import os
from typing import Any

import psutil
import pytest

from tests.conftest import GREEDY, MODEL, Server
from tests.frontends.conftest import ask, loaded_names, post

PLAN = "/api/plan"
ROUNDS = 3
ROOM = 32 << 20
"""Bytes by which the server's memory may differ after a model has come and gone."""


def plan(server: Server, model: str = MODEL, **options: Any) -> dict[str, Any]:
    reply = post(server, PLAN, model=model, options=options)
    assert reply.status_code == 200, reply.text
    return dict(reply.json())


def unload(server: Server) -> None:
    ask(server, "/api/generate", keep_alive=0)


def test_nothing_is_loaded(shop: Server) -> None:
    unload(shop)
    found = plan(shop)
    assert f"{MODEL}:latest" not in loaded_names(shop)
    assert (found["model"], found["fits"], found["evicts"]) == (f"{MODEL}:latest", True, False)
    assert found["num_ctx"] <= found["largest_num_ctx"] == 8192
    (host,) = found["devices"]
    assert (host["id"], host["layers"], found["layers"]) == ("cpu", 31, 31)
    assert (
        host["weights"] + host["cache"] + host["compute"] == host["estimated"] < host["free"] < host["total"]
    )


@pytest.mark.parametrize("num_ctx", [512, 2048, 8192])
def test_a_load_is_what_was_planned(shop: Server, num_ctx: int) -> None:
    (host,) = plan(shop, num_ctx=num_ctx)["devices"]
    ask(shop, "/api/generate", options={**GREEDY, "num_ctx": num_ctx})
    entry = next(entry for entry in shop.ps() if entry["name"] == f"{MODEL}:latest")
    (memory,) = entry["memory"]
    assert memory["estimated"] == host["estimated"]
    assert entry["size"] == memory["measured"] == pytest.approx(host["estimated"], rel=0.1)
    assert (entry["size_vram"], entry["warnings"]) == (0, [])


def test_a_longer_context_takes_more(shop: Server) -> None:
    small, large = (plan(shop, num_ctx=num_ctx)["devices"][0] for num_ctx in (2048, 8192))
    assert large["cache"] == 4 * small["cache"]
    assert large["weights"] == small["weights"]


def test_an_encoder_keeps_nothing(shop: Server) -> None:
    (host,) = plan(shop, "tinybert")["devices"]
    assert (host["cache"], host["layers"]) == (0, 3)


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        ({}, 400, "model is required"),
        ({"model": "no-such"}, 404, "model 'no-such' not found"),
        ({"model": MODEL, "options": {"num_ctx": "x"}}, 400, "num_ctx"),
        ({"model": MODEL, "options": 7}, 400, "options"),
        ({"model": 7}, 400, "model"),
    ],
)
def test_refusals(shop: Server, body: dict[str, Any], status: int, message: str) -> None:
    reply = post(shop, PLAN, **body)
    assert reply.status_code == status
    assert message in reply.json()["error"]


def test_the_memory_of_an_unloaded_model_returns(own_server: Server) -> None:
    server = psutil.Process(own_server.process.pid)
    resident = []
    for _ in range(ROUNDS + 1):
        own_server.load()
        runner = own_server.ps()[0]["runner"]["pid"]
        assert psutil.Process(runner).memory_info().rss > own_server.ps()[0]["size"] / 4
        unload(own_server)
        assert own_server.ps() == []
        with pytest.raises(ProcessLookupError):
            os.kill(runner, 0)
        assert server.children(recursive=True) == []
        resident.append(server.memory_info().rss)
    # The first round warms up: modules are imported, and headers are remembered.
    assert max(resident[1:]) - resident[0] < ROOM
