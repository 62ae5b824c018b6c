"""Somebody else's plugin, from its sources to a server that uses it, and away again.

It is built as a wheel, installed in a virtual environment of its own, seen, used, switched off, and uninstalled.
"""

from __future__ import annotations

import json
import os
import shutil
import site
import subprocess
import sys
import venv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Server

pytest.importorskip("hatchling")
pytest.importorskip("pip")

PROJECT = Path(__file__).parent / "aviary"
MODEL = "aviary/parrot:latest"
SECONDS = 120


class Environment:
    """A virtual environment with corectl and its libraries, into which wheels can be installed.

    It is made without pip, which this interpreter's pip does not need, and sees what is installed for the tests through
    a .pth file, so that nothing has to be downloaded. (With `--system-site-packages` it would see what the machine's
    own Python has, and not what the environment of the tests has.) What is installed here is nowhere else.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        venv.create(folder / "venv", with_pip=False)
        self.python = str(folder / "venv" / "bin" / "python")
        self.packages = Path(
            self._run("-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip()
        )
        paths = [
            path for path in (*site.getsitepackages(), site.getusersitepackages()) if Path(path).is_dir()
        ]
        lines = [f"import site; site.addsitedir({path!r})" for path in paths]
        (self.packages / "environment_of_the_tests.pth").write_text("\n".join(lines) + "\n")

    def _run(self, *words: str, python: str = "", **variables: str) -> str:
        done = subprocess.run(
            [python or self.python, *words],
            cwd=self.folder,
            env={**_clean(), **variables},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout

    def pip(self, *words: str) -> str:
        options = ("--disable-pip-version-check", "--no-input")
        return self._run("-m", "pip", *options, "--python", self.python, *words, python=sys.executable)

    def build(self) -> Path:
        """The project's wheel."""
        source = self.folder / "source"
        shutil.copytree(PROJECT, source, ignore=shutil.ignore_patterns("__pycache__"))
        words = (
            "wheel",
            "--no-build-isolation",
            "--no-deps",
            "--no-index",
            "--wheel-dir",
            "wheels",
            "./source",
        )
        self._run("-m", "pip", *words, python=sys.executable)
        (wheel,) = (self.folder / "wheels").glob("*.whl")
        return wheel

    def corectl(self, *words: str, **variables: str) -> str:
        return self._run("-m", "corectl", *words, **variables)

    def plugins(self, *words: str, **variables: str) -> dict[str, dict[str, Any]]:
        found = json.loads(self.corectl("plugins", "--json", *words, **variables))["plugins"]
        return {plugin["name"]: plugin for plugin in found}

    def refuses(self, *words: str, **variables: str) -> str:
        """What corectl says when it does not know a command."""
        command = [self.python, "-m", "corectl", *words]
        done = subprocess.run(
            command,
            cwd=self.folder,
            env={**_clean(), **variables},
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        assert done.returncode == 1 and not done.stdout
        return done.stderr

    def server(self, name: str, *flags: str) -> Server:
        folder = self.folder / name
        folder.mkdir()
        return Server(folder, *flags, python=self.python, **_clean())


def _clean() -> dict[str, str]:
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("OLLAMA_", "CORECTL_", "PIP_", "PYTHON"))
    }


@pytest.fixture(scope="module")
def wheel(environment: Environment) -> Path:
    return environment.build()


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    return Environment(tmp_path_factory.mktemp("third-party"))


@pytest.fixture(scope="module")
def installed(environment: Environment, wheel: Path) -> Environment:
    assert "aviary" not in environment.plugins()
    environment.pip("install", "--no-deps", "--no-index", str(wheel))
    return environment


@pytest.fixture(scope="module")
def server(installed: Environment) -> Iterator[Server]:
    running = installed.server("used")
    yield running
    assert running.stop() == 0, running.log


def test_it_is_seen(installed: Environment) -> None:
    info = installed.plugins()["aviary"]
    assert (info["distribution"], info["version"], info["state"]) == ("corectl-aviary", "1.2.3", "active")
    assert {hook.removeprefix("corectl_") for hook in info["hooks"]} == {
        "backends",
        "cli_commands",
        "dialects",
        "frontends",
        "hardware_probes",
        "model_formats",
        "registries",
    }
    assert "\n  birds        List birds\n" in installed.corectl("--help")
    assert not list(Path(site.getsitepackages()[0]).glob("corectl_aviary*")), "only in its own environment"


def test_its_registry_offers_a_model_and_its_backend_runs_it(server: Server) -> None:
    (listed,) = [entry for entry in server.client.get("/api/tags").json()["models"] if entry["name"] == MODEL]
    assert listed["details"]["family"] == "aviary"
    chat = {"model": MODEL, "messages": [{"role": "user", "content": "Hello"}], "stream": False}
    reply = server.client.post("/api/chat", json=chat).raise_for_status().json()
    assert reply["message"]["content"] == "Polly wants a cracker." and reply["done_reason"] == "stop"
    (loaded,) = server.ps()
    assert loaded["name"] == MODEL and loaded["runner"]["backend"] == "aviary"


def test_its_dialect_enforces_and_reads_a_call(server: Server) -> None:
    """The model would say its phrase. The dialect's grammar leaves it nothing but a call."""
    fetch = {
        "name": "fetch_cracker",
        "parameters": {
            "type": "object",
            "properties": {"size": {"enum": ["small", "large"]}},
            "required": ["size"],
            "additionalProperties": False,
        },
    }
    body = {
        "model": MODEL,
        "messages": [{"role": "user", "content": "What does Polly want?"}],
        "tools": [{"type": "function", "function": fetch}],
        "tool_choice": "required",
        "stream": False,
        "options": {"temperature": 0, "num_predict": 200},
    }
    reply = server.client.post("/api/chat", json=body).raise_for_status().json()
    assert reply["done_reason"] == "stop" and reply["message"]["tool_calls"], reply
    for call in reply["message"]["tool_calls"]:
        assert call["function"]["name"] == "fetch_cracker"
        assert call["function"]["arguments"]["size"] in ("small", "large")
    assert "<|fetch|>" not in reply["message"]["content"]


def test_its_probe_is_asked(server: Server, installed: Environment) -> None:
    """What it reports stands in the log, in replies, and in the list of hardware."""
    body = {"model": MODEL, "prompt": "Hello", "stream": False}
    (warning,) = server.client.post("/api/generate", json=body).raise_for_status().json()["warnings"]
    assert warning["code"] == "cpu_fallback" and "Perch (perch-0): a bird sits on it" in warning["message"]
    assert "id=perch-0" in server.log and "a bird sits on it" in server.log
    assert "shoo it away" in installed.corectl("hardware")


def test_its_route_answers(server: Server) -> None:
    assert server.client.get("/aviary").raise_for_status().text == f"{MODEL}\n"


def test_its_command_runs(server: Server, installed: Environment) -> None:
    address = server.url.removeprefix("http://")
    assert installed.corectl("birds", OLLAMA_HOST=address) == "parrot:latest\n"
    assert "List the birds of the server" in installed.corectl("help", "birds")


def test_it_can_be_switched_off(installed: Environment, server: Server) -> None:
    assert server.stop() == 0
    info = installed.plugins("--no-plugin", "aviary")["aviary"]
    assert (info["state"], info["reason"], info["hooks"]) == ("blocked", "disabled by the user", [])
    assert 'unknown command "birds"' in installed.refuses("birds", CORECTL_DISABLED_PLUGINS="aviary")
    without = installed.server("switched-off", "--no-plugin", "aviary")
    _has_none_of_it(without)


def test_it_can_be_uninstalled(installed: Environment) -> None:
    installed.pip("uninstall", "--yes", "corectl-aviary")
    assert not list(installed.packages.glob("corectl_aviary*"))
    assert "aviary" not in installed.plugins() and "birds" not in installed.corectl("--help")
    assert 'unknown command "birds"' in installed.refuses("birds")
    _has_none_of_it(installed.server("uninstalled"))


def _has_none_of_it(server: Server) -> None:
    try:
        assert server.client.get("/aviary").status_code == 404
        assert MODEL not in [entry["name"] for entry in server.client.get("/api/tags").json()["models"]]
        chat = {"model": MODEL, "messages": [{"role": "user", "content": "Hello"}]}
        assert server.client.post("/api/chat", json=chat).status_code == 404
    finally:
        assert server.stop() == 0, server.log
