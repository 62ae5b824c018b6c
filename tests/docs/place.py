"""Where the commands of a page are run: a home folder of their own, a server, and stand-ins for installers."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

PORT = "11434"
"""The port that the pages name; commands are run with the one of the page's server instead."""

SECONDS = 100
_STAND_INS = ("pip", "tox")
"""Programs that install things or take long; what they are given is checked in another way."""


class Place:
    """One page's machine. `site` is a folder with packages that are installed there."""

    def __init__(self, folder: Path, *, site: Path | None = None) -> None:
        self.folder = folder
        self.work = folder / "work"
        self.port = free_port()
        self._site = site
        self._server: subprocess.Popen[bytes] | None = None
        self._outputs: list[str] = []
        self._tools = folder / "bin"
        for path in (folder / "home", self.work, self._tools):
            path.mkdir(parents=True)
        for name in _STAND_INS:
            (self._tools / name).write_text("#!/bin/sh\n")
            (self._tools / name).chmod(0o755)

    @property
    def environment(self) -> dict[str, str]:
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("OLLAMA_", "CORECTL_", "XDG_")) and not name.lower().endswith("_proxy")
        }
        own = {
            "HOME": str(self.folder / "home"),
            "PATH": os.pathsep.join((str(self._tools), str(Path(sys.executable).parent), kept["PATH"])),
            "OLLAMA_HOST": f"127.0.0.1:{self.port}",
        }
        return {**kept, **own, **({"PYTHONPATH": str(self._site)} if self._site else {})}

    @property
    def serves(self) -> bool:
        """Whether its server was started."""
        return self._server is not None

    @property
    def log(self) -> str:
        """What the server has written."""
        return (self.folder / "server.log").read_text("utf-8", "replace")

    def start_server(self) -> None:
        with (self.folder / "server.log").open("wb") as log:
            self._server = self._popen(["corectl", "serve"], log.fileno(), self.environment)
        self._wait(self._server, "server.log")

    def serve_briefly(self, command: str) -> int:
        """Runs a `corectl serve` line on a free port until it listens, then ends it; its exit status."""
        environment = {**self.environment, "OLLAMA_HOST": "127.0.0.1:0"}
        with (self.folder / "brief.log").open("wb") as log:
            process = self._popen(["bash", "-c", f"exec env {command}"], log.fileno(), environment)
        self._wait(process, "brief.log")
        process.send_signal(signal.SIGTERM)
        return process.wait(20)

    def run(self, command: list[str]) -> tuple[int, str]:
        """Runs a command to its end; its exit status, and what it wrote to both outputs."""
        done = subprocess.run(
            command,
            cwd=self.work,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=SECONDS,
            text=True,
            preexec_fn=one_core,
            check=False,
        )
        self._outputs.append(done.stdout)
        return done.returncode, done.stdout

    def shell(self, script: str) -> tuple[int, str]:
        """Runs a script of a page, which names the default port."""
        return self.run(["bash", "-euo", "pipefail", "-c", script.replace(PORT, str(self.port))])

    def python(self, program: str) -> tuple[int, str]:
        """Runs a program of a page, which names the default port."""
        return self.run([sys.executable, "-W", "error", "-c", program.replace(PORT, str(self.port))])

    def close(self) -> None:
        """Ends the servers, also those that a command has left in the background."""
        for number in re.findall(r"stop it with 'kill (\d+)'", "".join(self._outputs)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(number), signal.SIGTERM)
        if self._server is not None:
            self._server.terminate()
            self._server.wait(20)

    def _popen(self, command: list[str], log: int, environment: dict[str, str]) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            command,
            cwd=self.work,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            preexec_fn=one_core,
        )

    def _wait(self, process: subprocess.Popen[bytes], log: str) -> None:
        """Until the server listens."""
        deadline = time.monotonic() + 30
        while "startup complete" not in (text := (self.folder / log).read_text("utf-8", "replace")):
            if process.poll() is not None or time.monotonic() > deadline:
                process.kill()
                raise RuntimeError(f"the server did not start: {text}")
            time.sleep(0.05)


def one_core() -> None:
    """One engine thread: threads that wait for one another crawl when the machine does something else."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
