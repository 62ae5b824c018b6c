"""Plugins that hang, or fork, or are slow to listen, harm nobody else."""

from __future__ import annotations

import importlib
import logging
import multiprocessing
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from corectl import deadline
from corectl.plugins.forks import forks_refused
from corectl.plugins.mailbox import ROOM, Mailbox
from tests.core.plugin_kit import GOOD, HEAD, Site, provider, reason

PATIENCE = 30.0


def until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not holds() and time.monotonic() < end:
        time.sleep(0.01)
    assert holds()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deadline, "SECONDS", 0.2)


HANG = "import time; time.sleep(30)"
HANGS = {
    "a_import": (f"{HANG}\n{GOOD}", "did not finish importing within 0.2 seconds"),
    "b_provider": (
        f"{GOOD}\n@hookimpl\ndef corectl_registries():\n    {HANG}\n",
        "corectl_registries did not return within 0.2 seconds",
    ),
    "c_name": (
        f"{HEAD}\nclass Late:\n    @property\n    def name(self): {HANG}\n"
        "@hookimpl\ndef corectl_backends(): return [Late()]\n",
        "corectl_backends did not return within 0.2 seconds",
    ),
}


@pytest.mark.usefixtures("impatient")
def test_those_that_hang_are_left_out_and_the_others_work(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    for name, (source, _) in HANGS.items():
        site.install(name, source)
    site.install("z_good", GOOD.replace("'good'", "'after'"))
    with caplog.at_level(logging.WARNING):
        host = site.load()
    assert list(host.backends) == ["after"] and not host.registries
    for name, (_, expected) in HANGS.items():
        assert reason(host, name) == expected
        assert f"plugin {name} (dist-{name}) is left out: {expected}" in caplog.text


@pytest.mark.usefixtures("impatient")
def test_a_backend_or_probe_that_hangs_says_so_in_the_list(site: Site) -> None:
    offered = (
        f"{HEAD}\nclass Slow:\n    name = 'slow'\n    def availability(self): {HANG}\n    devices = availability\n"
        "@hookimpl\ndef corectl_backends(): return [Slow()]\n"
    )
    site.install("slow", offered)
    assert site.load().availability() == {"slow": "availability() did not return within 0.2 seconds"}


def test_threads_that_a_plugin_starts_when_it_is_imported_do_not_keep_the_process_alive(site: Site) -> None:
    site.install("threads", f"{GOOD}\nimport threading\nmine = threading.Thread(target=print)\n")
    site.load()
    assert importlib.import_module("site_threads").mine.daemon


def test_no_other_plugin_can_take_a_name_from_a_built_in_one(site: Site) -> None:
    site.install("zz", provider("corectl_backends", "same"), dist="corectl")
    site.install("aa", provider("corectl_backends", "same"))
    site.install("zz", GOOD, module="site_other", dist="dist-other")
    host = site.load()
    assert [(info.distribution, info.state) for info in host.plugins] == [
        ("corectl", "active"),
        ("dist-aa", "broken"),
        ("dist-other", "broken"),
    ]
    assert host.plugin_of("corectl_backends", "same") == "zz"


# Events

EVENTS = f"""{HEAD}
import threading
SEEN = []
@hookimpl
def corectl_model_unloaded(reason):
    SEEN.append((reason, threading.current_thread() is threading.main_thread()))
@hookimpl
def corectl_server_stopping():
    SEEN.append("stopping")
"""


def seen(name: str) -> list[Any]:
    return list(importlib.import_module(f"site_{name}").SEEN)


def test_events_reach_every_plugin_with_the_arguments_that_it_wants(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    site.install("a", EVENTS)
    site.install(
        "b", f"{HEAD}\n@hookimpl\ndef corectl_model_unloaded(model, reason): raise KeyError(reason)\n"
    )
    site.install("c", f"{HEAD}\n@hookimpl\ndef corectl_model_unloaded(): raise SystemExit(1)\n")
    site.install("d", EVENTS)
    host = site.load()
    with caplog.at_level(logging.ERROR):
        host.emit("corectl_model_unloaded", model=None, reason="idle")
        host.emit("corectl_server_stopping")
        host.close()
    for name in ("a", "d"):
        assert seen(name) == [("idle", False), "stopping"]
    messages = [record.getMessage() for record in caplog.records]
    assert sorted(messages) == [f"plugin {name} failed in corectl_model_unloaded" for name in ("b", "c")]


class Listener:
    def __init__(self) -> None:
        self.heard: list[str] = []

    from corectl import hookimpl as _hookimpl

    @_hookimpl
    def corectl_model_unloaded(self, reason: str) -> None:
        self.heard.append(reason)
        if reason == "bad":
            raise SystemExit


def test_a_listener_hears_at_once_and_one_that_raises_is_logged(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    host, listener = site.load(), Listener()
    host.listen(listener)
    host.emit("corectl_model_unloaded", model=None, reason="bad")
    host.emit("corectl_model_unloaded", model=None, reason="idle")
    assert listener.heard == ["bad", "idle"]
    assert "failed in corectl_model_unloaded" in caplog.text


STUCK = f"""{HEAD}
import threading
GO_ON = threading.Event()
SEEN = []
@hookimpl
def corectl_model_unloaded(reason):
    SEEN.append(reason)
    if reason == "hang":
        GO_ON.wait(60)
"""


@pytest.mark.usefixtures("impatient")
def test_a_plugin_that_hangs_in_an_event_misses_others_and_is_named_once(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    site.install("stuck", STUCK)
    site.install("fine", EVENTS)
    host = site.load()
    before = time.monotonic()
    for event in ("first", "hang"):
        host.emit("corectl_model_unloaded", model=None, reason=event)
    assert time.monotonic() - before < PATIENCE / 2
    until(lambda: "misses events" in caplog.text)
    for _ in range(3):
        host.emit("corectl_model_unloaded", model=None, reason="missed")
    until(lambda: len(seen("fine")) == 5)
    importlib.import_module("site_stuck").GO_ON.set()
    heard = 0

    def hears_again() -> bool:
        nonlocal heard
        heard += 1
        host.emit("corectl_model_unloaded", model=None, reason=f"again {heard}")
        time.sleep(0.01)
        return str(seen("stuck")[-1]).startswith("again")

    until(hears_again)
    host.close()
    assert seen("stuck")[:2] == ["first", "hang"] and "missed" not in seen("stuck")
    messages = [record.getMessage() for record in caplog.records]
    named = "plugin stuck: corectl_model_unloaded did not return within 0.2 seconds"
    assert [message.partition(";")[0] for message in messages].count(named) == 1
    (caught_up,) = [message for message in messages if "has caught up;" in message]
    assert int(caught_up.split()[-2]) >= 3


def test_a_full_mailbox_drops_and_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    mailbox, go_on, count = Mailbox("busy"), threading.Event(), 0

    def event() -> None:
        nonlocal count
        count += 1
        go_on.wait(60)

    mailbox.put("first", event)
    until(lambda: count == 1)
    for _ in range(ROOM + 5):
        mailbox.put("next", event)
    assert [record.getMessage().partition(";")[0] for record in caplog.records] == [
        f"plugin busy: {ROOM} events wait for it"
    ]
    go_on.set()
    until(lambda: count == ROOM + 1)
    mailbox.close(time.monotonic() + PATIENCE)
    assert "it has missed 5 events" in caplog.text


@pytest.mark.usefixtures("impatient")
def test_closing_waits_for_nobody_for_ever(
    site: Site, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("corectl.plugins.host.CLOSE_SECONDS", 0.1)
    monkeypatch.setattr(deadline, "SECONDS", PATIENCE)
    site.install("stuck", STUCK)
    host = site.load()
    host.emit("corectl_model_unloaded", model=None, reason="hang")
    until(lambda: seen("stuck") == ["hang"])
    host.close()
    assert "plugin stuck still has an event to answer" in caplog.text
    importlib.import_module("site_stuck").GO_ON.set()


# Forks


@pytest.fixture
def refused() -> Iterator[None]:
    with forks_refused():
        yield


@pytest.mark.usefixtures("refused")
def test_a_plugin_that_forks_is_broken_and_named(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    site.install("forks", f"import os\nos.fork()\n{GOOD}")
    assert "PermissionError: os.fork is refused" in reason(site.load(), "forks")
    assert "os.fork was refused: it was asked for by plugin forks (site_forks, line 2)" in caplog.text


@pytest.mark.usefixtures("refused")
@pytest.mark.parametrize(
    "fork", [os.fork, os.forkpty, lambda: multiprocessing.get_context("fork").Process().start()]
)
def test_python_code_cannot_fork(fork: Callable[[], object], caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(PermissionError, match="start a program with subprocess"):
        fork()
    assert "was refused: it was asked for by no plugin that is known" in caplog.text


STARTED = """
import multiprocessing, os, subprocess, sys
from concurrent.futures import ProcessPoolExecutor
from corectl.plugins.forks import forks_refused
if __name__ == "__main__":
    program = [sys.executable, "-c", "print(6 * 7)"]
    with forks_refused():
        assert subprocess.run(program, capture_output=True, check=True).stdout == b"42\\n"
        # This one is started the long way, with Python's hooks around the fork.
        assert subprocess.run(program, capture_output=True, check=True, preexec_fn=os.getpid).stdout == b"42\\n"
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            assert pool.submit(abs, -3).result(60) == 3
"""


def test_programs_can_be_started(tmp_path: Path) -> None:
    """In a process of its own, because the pool leaves one behind that lives as long as its parent."""
    script = tmp_path / "script.py"
    script.write_text(STARTED)
    subprocess.run([sys.executable, str(script)], check=True)


AFTERWARDS = """
import os
from corectl.plugins.forks import forks_refused
with forks_refused():
    pass
child = os.fork()
if child == 0:
    os._exit(7)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
"""


def test_afterwards_a_process_may_fork_again() -> None:
    subprocess.run([sys.executable, "-c", AFTERWARDS], check=True)
