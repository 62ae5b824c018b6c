"""A runner leaves cores to programs that take them."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from corectl.hardware.cores import usable_cores
from tests.conftest import MODEL, Server

PATIENCE = 120.0
"""Seconds. It takes a fraction of one, after the first step that had to wait for the others' time slices."""


@contextmanager
def busy(cores: int) -> Iterator[None]:
    """Foreign programs that never rest."""
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(cores)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


@pytest.mark.skipif(usable_cores() < 2, reason="one core cannot be shared out")
def test_threads_go_down_while_others_take_the_cores(tmp_path: Path) -> None:
    server = Server(tmp_path, OLLAMA_DEBUG="1")
    try:
        request = {"model": MODEL, "prompt": "Tell me a long story.", "options": {"num_predict": 64}}
        begun = time.monotonic()
        with busy(usable_cores()):
            while not (counts := _counts(server)) and time.monotonic() < begun + PATIENCE:
                server.client.post("/api/generate", json=request).raise_for_status()
        assert counts, server.log
        after, before = counts[0]
        assert 1 <= after < before == usable_cores()
    finally:
        assert server.stop() == 0


def _counts(server: Server) -> list[tuple[int, int]]:
    """Each change of the number of threads that the log tells of: to how many, from how many."""
    return [
        (int(to), int(before)) for to, before in re.findall(r"CPU threads: (\d+), before: (\d+)", server.log)
    ]
