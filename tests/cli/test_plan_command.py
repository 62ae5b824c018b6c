"""`corectl plan`: how a plan reads."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.cli.conftest import FakeServer, Result

    Corectl = Callable[..., Result]

PLAN = {
    "model": "t0:latest",
    "fits": True,
    "evicts": False,
    "num_ctx": 4096,
    "largest_num_ctx": 12288,
    "cells": 8192,
    "num_batch": 512,
    "parallel": 16,
    "layers": 31,
    "cache_memory": 537_000_000,
    "devices": [
        {
            "id": id,
            "kind": kind,
            "name": "x",
            "layers": layers,
            "weights": 2_500_000_000,
            "cache": 188_000_000,
            "compute": 35_000_000,
            "estimated": 2_723_000_000,
            "free": 17_000_000_000,
            "total": 24_000_000_000,
        }
        for id, kind, layers in (("cpu", "cpu", 11), ("GPU-1", "cuda", 20))
    ],
}


def shown(server: FakeServer, corectl: Corectl, *args: str, **changes: Any) -> str:
    server.reply("POST /api/plan", PLAN | changes)
    return str(corectl("plan", "t0", *args).out)


def test_what_goes_where(server: FakeServer, corectl: Corectl) -> None:
    assert shown(server, corectl) == (
        "  Plan\n"
        "    fits                yes                               \n"
        "    context length      4096                              \n"
        "    largest context     12288                             \n"
        "    tokens in memory    8192                              \n"
        "    parallel            16                                \n"
        "    saved prompts       up to 537 MB of memory besides    \n"
        "\n"
        "DEVICE    LAYERS    WEIGHTS    CACHE     COMPUTE    TOTAL     FREE  \n"
        "cpu       11        2.5 GB     188 MB    35 MB      2.7 GB    17 GB    \n"
        "GPU-1     20        2.5 GB     188 MB    35 MB      2.7 GB    17 GB    \n"
    )
    assert server.bodies("POST /api/plan") == [{"model": "t0", "options": {}}]


def test_a_context(server: FakeServer, corectl: Corectl) -> None:
    assert "4096 instead of 9999" in shown(server, corectl, "--ctx", "9999")
    assert "instead" not in shown(server, corectl, "--ctx", "4096")
    assert [body["options"] for body in server.bodies("POST /api/plan")] == [
        {"num_ctx": 9999},
        {"num_ctx": 4096},
    ]


def test_what_does_not_fit(server: FakeServer, corectl: Corectl) -> None:
    assert "no: it is larger than the memory that is free" in shown(server, corectl, fits=False)
    assert "yes, when other models have been unloaded" in shown(server, corectl, evicts=True)
    nowhere = shown(server, corectl, fits=False, reason="too large", devices=[], largest_num_ctx=0)
    assert "no: too large" in nowhere and "none fits" in nowhere
    assert "DEVICE" not in nowhere


def test_warnings(server: FakeServer, corectl: Corectl) -> None:
    warning = {"code": "cpu_fallback", "message": "11 of 31 layers are computed by the CPU"}
    assert "  Warning: 11 of 31 layers are computed by the CPU\n" in shown(
        server, corectl, warnings=[warning]
    )


def test_json(server: FakeServer, corectl: Corectl) -> None:
    assert json.loads(shown(server, corectl, "--json")) == PLAN


def test_an_unknown_model(server: FakeServer, corectl: Corectl) -> None:
    server.reply("POST /api/plan", {"error": "model 'no' not found"}, 404)
    result = corectl("plan", "no")
    assert (result.code, result.err) == (1, "Error: model 'no' not found\n")
