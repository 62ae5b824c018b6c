"""A server with a dozen broken plugins: each is contained and named, and everything else goes on.

The good plugins are those of the plugin author's guide.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Server
from tests.core.fake import write_distribution
from tests.docs.conftest import GUIDE
from tests.docs.packages import build_site

PATIENCE = 60.0
HEAD = """
import logging, os, sys, threading, time
from corectl import hookimpl
corectl_api = 1
log = logging.getLogger(__name__)

def hang():
    time.sleep(1000)

class Thing:
    name = __name__
    formats = ("toy",)
    aliases = ()
"""

QUICK = """
# So that nobody waits for 10 seconds each time. It comes first by its name.
from corectl import deadline
deadline.SECONDS = 3.0
"""

BROKEN = {
    "import_raises": ("raise RuntimeError('not today')", "RuntimeError: not today"),
    "import_exits": ("sys.exit(3)", "SystemExit: 3"),
    "import_hangs": ("hang()", "did not finish importing within 3 seconds"),
    "import_forks": ("os.fork()", "os.fork is refused in this process"),
    "provider_raises": ("@hookimpl\ndef corectl_backends(): return 1 // 0", "ZeroDivisionError"),
    "provider_hangs": (
        "@hookimpl\ndef corectl_frontends(): hang()",
        "corectl_frontends did not return within 3 seconds",
    ),
    "provider_spins": (
        "@hookimpl\ndef corectl_dialects():\n    until = time.monotonic() + 20\n"
        "    while time.monotonic() < until: pass",
        "corectl_dialects did not return within 3 seconds",
    ),
    "newer": ("corectl_api = 2\n@hookimpl\ndef corectl_backends(): return []", "install a newer corectl"),
    "command_clash": (
        "from corectl.cli.offered import CliCommand\n@hookimpl\ndef corectl_cli_commands():\n"
        "    return [CliCommand(name='serve', help='', make=hang)]",
        "'serve' is a command of corectl itself",
    ),
    "aaa_takes_names": (
        "class Mine(Thing):\n    name = 'ollama'\n@hookimpl\ndef corectl_frontends(): return [Mine()]",
        "'ollama' is already offered by plugin 'ollama' (corectl)",
    ),
}
"""Plugins that are left out, and why."""

TROUBLESOME = {
    "registry_hangs": (
        "class Late(Thing):\n    def list(self): hang()\n    def find(self, name): hang()\n"
        "@hookimpl\ndef corectl_registries(): return [Late()]",
        "registry bad_registry_hangs did not return within 3 seconds",
    ),
    "registry_raises": (
        "class Sad(Thing):\n    def list(self): raise OSError('no shelf')\n    find = list\n"
        "    def find(self, name): sys.exit(1)\n"
        "@hookimpl\ndef corectl_registries(): return [Sad()]",
        "registry bad_registry_raises failed",
    ),
    "probe_hangs": (
        "class Late(Thing):\n    def devices(self): hang()\n"
        "@hookimpl\ndef corectl_hardware_probes(): return [Late()]",
        "hardware probe bad_probe_hangs did not return within 3 seconds",
    ),
    "probe_exits": (
        "class Sad(Thing):\n    def devices(self): sys.exit(1)\n"
        "@hookimpl\ndef corectl_hardware_probes(): return [Sad()]",
        "hardware probe bad_probe_exits failed",
    ),
    "backend_hangs": (
        "class Late(Thing):\n    def availability(self): hang()\n"
        "@hookimpl\ndef corectl_backends(): return [Late()]",
        "",
    ),
    "dialect_hangs": (
        "class Late(Thing):\n    def claims(self, template): hang()\n"
        "@hookimpl\ndef corectl_dialects(): return [Late()]",
        "dialect bad_dialect_hangs does not say whether it claims a template",
    ),
    "routers_raise": (
        "class Sad(Thing):\n    def routers(self, services): raise OSError('no routes')\n"
        "@hookimpl\ndef corectl_frontends(): return [Sad()]",
        "frontend bad_routers_raise is left out",
    ),
    "routers_hang": (
        "class Late(Thing):\n    def routers(self, services): hang()\n"
        "@hookimpl\ndef corectl_frontends(): return [Late()]",
        "frontend bad_routers_hang is left out",
    ),
    "routers_clash": (
        "class Greedy(Thing):\n    def routers(self, services):\n        from litestar import Router, post\n"
        "        @post('/api/generate')\n        async def steal() -> str: return 'mine'\n"
        "        return [Router('/', route_handlers=[steal])]\n"
        "@hookimpl\ndef corectl_frontends(): return [Greedy()]",
        "frontend bad_routers_clash is left out",
    ),
    "routes_exit": (
        "class Bad(Thing):\n    def routers(self, services):\n        from litestar import Router, get\n"
        "        @get('/exit')\n        async def leave() -> None: sys.exit(1)\n"
        "        @get('/exit/thread', sync_to_thread=True)\n        def leave_thread() -> None: sys.exit(1)\n"
        "        return [Router('/', route_handlers=[leave, leave_thread])]\n"
        "@hookimpl\ndef corectl_frontends(): return [Bad()]",
        "",
    ),
    "routes_compute": (
        "class Bad(Thing):\n    def routers(self, services):\n        from litestar import Router, get\n"
        "        @get('/compute')\n        async def compute() -> str:\n            time.sleep(12)\n"
        "            return 'done'\n"
        "        return [Router('/', route_handlers=[compute])]\n"
        "@hookimpl\ndef corectl_frontends(): return [Bad()]",
        "",
    ),
    "event_raises": (
        "@hookimpl\ndef corectl_request_finished(request): raise KeyError('what')",
        "plugin event_raises failed in corectl_request_finished",
    ),
    "event_exits": (
        "@hookimpl\ndef corectl_server_started(): sys.exit(1)",
        "plugin event_exits failed in corectl_server_started",
    ),
    "event_hangs": (
        "@hookimpl\ndef corectl_server_started(): hang()",
        "plugin event_hangs: corectl_server_started did not return within 3 seconds",
    ),
    "event_forks": (
        "@hookimpl\ndef corectl_server_started(): os.fork()",
        "os.fork was refused: it was asked for by plugin event_forks",
    ),
    "floods": (
        "def flood():\n    for number in range(5000): log.warning('noise %d', number)\n"
        "@hookimpl\ndef corectl_server_started(): flood()",
        "plugin floods writes more than 200 lines in 10 seconds",
    ),
}
"""Plugins that are there, and what the log says of them when they have misbehaved."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All of them, installed in a folder."""
    folder = build_site(GUIDE, tmp_path_factory.mktemp("contained") / "site")
    sources = {name: source for name, (source, _) in {**BROKEN, **TROUBLESOME}.items()}
    for name, source in {"a_quick": QUICK, **sources}.items():
        module = f"bad_{name}"
        write_distribution(
            folder, f"dist-{name}", {"corectl": {name: module}}, {f"{module}.py": f"{HEAD}\n{source}\n"}
        )
    return folder


@pytest.fixture(scope="module")
def server(site: Path) -> Iterator[Server]:
    running = Server(site.parent, PYTHONPATH=str(site))
    yield running
    assert running.stop() == 0, running.log


def _says(server: Server, text: str) -> bool:
    deadline = time.monotonic() + PATIENCE
    while text not in server.log and time.monotonic() < deadline:
        time.sleep(0.05)
    return text in server.log


def generate(server: Server) -> dict[str, Any]:
    body = {"model": "rot13", "prompt": "Hello, world", "stream": False}
    return dict(server.client.post("/api/generate", json=body).raise_for_status().json())


def test_the_server_answers(server: Server) -> None:
    """A chat goes through registries, formats, probes, backends, a runner, dialects and events."""
    assert server.client.get("/api/version").status_code == 200
    assert "rot13:latest" in [
        model["name"] for model in server.client.get("/api/tags").raise_for_status().json()["models"]
    ]
    assert generate(server)["response"] == "Uryyb, jbeyq"
    chat = {"model": "rot13", "messages": [{"role": "user", "content": "Hello"}], "stream": False}
    reply = server.client.post("/api/chat", json=chat).raise_for_status().json()
    assert reply["message"]["content"] == "Uryyb"
    assert server.client.post("/plain/rot13", content="Hello").text == "Uryyb"


@pytest.mark.parametrize("path", ["/exit", "/exit/thread"])
def test_a_route_that_calls_exit_is_a_500(server: Server, path: str) -> None:
    assert server.client.get(path).status_code == 500
    assert generate(server)["response"] == "Uryyb, jbeyq"


def test_a_route_that_holds_up_the_event_loop_is_named(server: Server) -> None:
    """It is not contained, but one knows what to switch off."""
    assert server.client.get("/compute").text == "done"
    named = r"the event loop is held up by plugin routes_compute \(bad_routes_compute, line \d+\)"
    assert re.search(named, server.log)
    assert _says(server, "the event loop goes on")
    assert generate(server)["response"] == "Uryyb, jbeyq"


@pytest.mark.parametrize("name", BROKEN)
def test_one_that_cannot_be_used_is_left_out_and_named(server: Server, name: str) -> None:
    line = re.search(rf"plugin {name} \(dist-{name}\) is left out: (.*)", server.log)
    assert line and BROKEN[name][1] in line[1]


@pytest.mark.parametrize("name", [name for name, (_, said) in TROUBLESOME.items() if said])
def test_one_that_misbehaves_later_is_named(server: Server, name: str) -> None:
    generate(server)
    assert _says(server, TROUBLESOME[name][1]), server.log


def test_the_flood_is_cut_and_the_others_are_heard(server: Server) -> None:
    assert _says(server, "plugin floods writes more than 200 lines")
    assert server.log.count("source=bad_floods") <= 400
    generate(server)
    assert _says(server, "rot13:latest finished after"), "the guide's journal"
    assert _says(server, "lines of plugin floods were left out")


def test_after_all_that_answers_are_quick(server: Server) -> None:
    """What hangs was left behind: it is not waited for again."""
    before = time.monotonic()
    for _ in range(5):
        generate(server)
        server.client.get("/api/tags").raise_for_status()
    assert time.monotonic() - before < 5 * 3.0


def test_no_process_was_forked(server: Server) -> None:
    """Only runners are children of the server."""
    import psutil

    children = psutil.Process(server.process.pid).children(recursive=True)
    assert all("corectl.runner" in " ".join(child.cmdline()) for child in children)


@pytest.fixture
def corectl(server: Server, site: Path) -> Callable[..., str]:
    environment = {**os.environ, "PYTHONPATH": str(site), "CORECTL_CONFIG": str(site.parent / "corectl.toml")}

    def run(*words: str) -> str:
        command = [sys.executable, "-m", "corectl", *words]
        return subprocess.run(
            command, capture_output=True, text=True, timeout=120, check=True, env=environment
        ).stdout

    return run


def test_corectl_plugins_names_them_with_the_reason(corectl: Callable[..., str]) -> None:
    found = json.loads(corectl("plugins", "--json"))
    plugins = {plugin["name"]: plugin for plugin in found["plugins"]}
    for name, (_, reason) in BROKEN.items():
        assert plugins[name]["state"] == "broken" and reason in plugins[name]["reason"]
    for name in (*TROUBLESOME, "toy", "plain", "ollama"):
        assert plugins[name]["state"] == "active"
    assert found["availability"]["bad_backend_hangs"] == "availability() did not return within 3 seconds"
    assert "SystemExit" in found["availability"]["bad_probe_exits"]
