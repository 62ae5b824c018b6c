"""The command line pulls, pushes, and runs what is not here, through a real server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.clients.conftest import STOCKED
from tests.conftest import Server
from tests.registry import stock
from tests.registry.docker import DockerRegistry
from tests.registry.host import Host


class CommandLine:
    """Runs `corectl` in a process of its own, without a terminal."""

    def __init__(self, server: Server, home: Path) -> None:
        self._environment = {**os.environ, "OLLAMA_HOST": server.url, "HOME": str(home)}

    def __call__(self, *args: str, code: int = 0) -> tuple[str, list[str]]:
        """Its standard output, and the lines of its standard error."""
        done = subprocess.run(
            [sys.executable, "-m", "corectl", *args],
            env=self._environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == code, done.stderr
        return done.stdout, done.stderr.splitlines()


@pytest.fixture
def corectl(transferring: Server, tmp_path: Path) -> CommandLine:
    return CommandLine(transferring, tmp_path)


def test_pull_push_run(corectl: CommandLine, front: Host, registry: DockerRegistry) -> None:
    tiny, copy = f"{front.netloc}/clients/tiny", f"{front.netloc}/clients/by-hand"
    out, steps = corectl("pull", "--insecure", f"http://{tiny}")
    assert (out, steps[0], steps[-1]) == ("", "pulling manifest", "success")
    bars = [step.partition(":")[0] for step in steps if "100%" in step]
    assert bars == [f"pulling {digest[7:19]}" for digest in STOCKED.blobs]
    corectl("cp", tiny, copy)
    out, steps = corectl("push", "--insecure", f"http://{copy}")
    assert (out, steps[0], steps[-1]) == ("", "retrieving manifest", "success")
    url = f"{registry.url}/v2/clients/by-hand/manifests/latest"
    assert httpx.get(url, headers={"accept": stock.MANIFEST}, trust_env=False).status_code == 200
    corectl("rm", tiny, copy)
    out, steps = corectl("run", "--insecure", f"http://{tiny}", "a text")
    assert len(json.loads(out)) == 64
    assert (steps[0], steps[-1]) == ("pulling manifest", "success")
    assert corectl("run", tiny, "a text") == (out, [])


def test_what_is_not_there(corectl: CommandLine, front: Host) -> None:
    for command in (["pull", "--insecure"], ["run", "--insecure"]):
        out, steps = corectl(*command, f"{front.url}/clients/nothing", code=1)
        error = "Error: pull model manifest: file does not exist"
        assert (out, steps) == ("", ["pulling manifest", error])


def test_create_from_what_is_not_here(corectl: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "Modelfile").write_text("FROM 127.0.0.1:9/clients/nothing\n")
    out, steps = corectl("create", "-f", str(tmp_path / "Modelfile"), "heir", code=1)
    assert (out, steps[:2]) == ("", ["gathering model components", "pulling manifest"])
    assert steps[2].startswith("Error: pull model manifest: Get ")
