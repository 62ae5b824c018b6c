"""Logs that somebody writes too much into."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from corectl import flood
from corectl.flood import Flood
from corectl.plugins.owner import plugin_of
from corectl.server import log as server_log
from corectl.server.log import FloodFilter
from tests.core.fake import write_distribution


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(flood, "time", SimpleNamespace(monotonic=clock))
    return clock


class Kept(logging.Handler):
    """Keeps the lines that get through."""

    def __init__(self) -> None:
        super().__init__()
        self.addFilter(FloodFilter())
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


@pytest.fixture
def kept() -> Iterator[Kept]:
    handler, root = Kept(), logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel("INFO")
    yield handler
    root.removeHandler(handler)
    root.setLevel(level)


def test_so_many_lines_in_so_much_time(clock: Clock) -> None:
    source = Flood("it")
    admitted = [source.admits() for _ in range(flood.LINES + 5)]
    assert admitted == [True] * flood.LINES + [False] * 5
    assert source.left_out() == 0
    clock.now += flood.SECONDS
    assert (source.left_out(), source.left_out()) == (5, 0)
    assert source.admits()


def test_a_flood_is_cut_and_counted_and_others_are_heard(
    clock: Clock, kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_log, "plugin_of", {"noisy.deep": "loud"}.get)
    noisy, quiet, core = (logging.getLogger(name) for name in ("noisy.deep", "quiet", "corectl.server"))
    for number in range(1000):
        noisy.info("noise %d", number)
    quiet.info("still here")
    core.info("so am I")
    assert len(kept.lines) == flood.LINES + 3
    assert (
        kept.lines[flood.LINES]
        == "plugin loud writes more than 200 lines in 10 seconds; the rest is left out"
    )
    assert kept.lines[-2:] == ["still here", "so am I"]
    clock.now += flood.SECONDS
    core.info("later")
    assert kept.lines[-2:] == ["800 lines of plugin loud were left out", "later"]
    noisy.info("again")
    assert kept.lines[-1] == "again"


def test_the_core_is_not_limited(clock: Clock, kept: Kept) -> None:
    for _ in range(flood.LINES + 50):
        logging.getLogger("corectl.request").info("a request")
    assert len(kept.lines) == flood.LINES + 50


def test_new_names_are_no_way_around_it(clock: Clock, kept: Kept) -> None:
    for number in range(server_log._MOST_SOURCES + 3 * flood.LINES):
        logging.getLogger(f"name{number}").info("noise")
    (handler_filter,) = kept.filters
    assert isinstance(handler_filter, FloodFilter)
    assert len(handler_filter._sources) == server_log._MOST_SOURCES + 1
    assert len(kept.lines) == server_log._MOST_SOURCES + flood.LINES + 1


@pytest.mark.parametrize(("level", "limits"), [("info", 1), ("debug", 0)])
def test_at_the_level_debug_nothing_is_left_out(
    level: str, limits: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[logging.Handler] = []
    monkeypatch.setattr(logging, "basicConfig", lambda **given: made.extend(given["handlers"]))
    server_log.start_log(level, "text")
    assert len(made[0].filters) == limits


def test_whose_a_module_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_distribution(tmp_path, "dist-a", {"corectl": {"mine": "pack.plugin", "top": "other"}})
    monkeypatch.syspath_prepend(tmp_path)
    assert plugin_of("pack.plugin") == plugin_of("pack.plugin.deeper.still") == "mine"
    assert plugin_of("other.x") == "top"
    assert plugin_of("pack") == plugin_of("otherwise") == plugin_of("") == ""
