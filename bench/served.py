"""The server of this project as a process that is measured."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx
import psutil


class BenchServer:
    """A `corectl serve` on a free port, with an empty store and no settings of the user's but those given here.

    It has a session of its own, as a service or another terminal has. Linux shares the cores out among sessions first,
    and a client in the server's own waits for a core longer; docs/performance.md says how long.
    """

    def __init__(self, **environment: str) -> None:
        self._folder = tempfile.TemporaryDirectory()
        folder = Path(self._folder.name)
        (folder / "corectl.toml").touch()
        self.models = folder / "models"
        self._log_path = folder / "log"
        clean = {
            name: value for name, value in os.environ.items() if not name.startswith(("OLLAMA_", "CORECTL_"))
        }
        started = time.perf_counter()
        with self._log_path.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "corectl", "serve", "--port", "0", "--models", str(self.models)],
                stderr=log,
                start_new_session=True,
                env={**clean, "CORECTL_CONFIG": str(folder / "corectl.toml"), **environment},
            )
        self.url = self._wait()
        self.startup = time.perf_counter() - started

    def _wait(self) -> str:
        while True:
            found = re.search(r"Listening on (\S+)", self.log)
            if found:
                url = f"http://{found[1]}"
                try:
                    httpx.get(f"{url}/api/version", trust_env=False)
                except httpx.ConnectError:
                    continue
                return url
            if self.process.poll() is not None:
                raise SystemExit(self.log)
            time.sleep(0.01)

    @property
    def log(self) -> str:
        return self._log_path.read_text("utf-8", "replace")

    def cpu_seconds(self) -> float:
        """Processor time of the server process alone, without its runners.

        From the scheduler's own account: the usual one counts in ticks of 10 ms, which is too coarse here.
        """
        tasks = Path(f"/proc/{self.process.pid}/task")
        return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks.iterdir()) / 1e9

    def memory(self) -> int:
        """Bytes of the server process that are in memory, without its runners."""
        return int(psutil.Process(self.process.pid).memory_info().rss)

    def close(self) -> None:
        self.process.terminate()
        self.process.wait()
        self._folder.cleanup()
