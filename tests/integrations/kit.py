"""How real clients are tested: installed as their users install them, unmodified, pointed at a real server.

A test looks like this:

    def test_it_walks_the_loop(installer: Installer, client: Client) -> None:
        package = installer.npm("some-agent@1.2.3")                      # or installer.pypi("some-agent==1.2.3")
        (client.home / ".agent.json").write_text(...)                    # its settings, as the page tells users
        output = client.run(package, "some-agent", "-p", "Run echo hi.", AGENT_URL=f"{client.url}/v1")
        client.walked(output, calls=2)                                   # tool called, result sent back, last word
        client.keep("Some Agent", package.version, page="some-agent")    # a row of docs/integrations/README.md

and is run with

    tox -e clients -- tests/integrations/test_some_agent.py

or, where the project is installed, `pytest -m integrations tests/integrations/test_some_agent.py`.

- **The model** is `client.model`, see `tests/integrations/loop.py`: it calls the first tool of `TOOLS` that a request
  declares, once, and with a result of it says `DONE`. A client whose tool is not in that table gets a line there.
  `THINKER` does the same, and thinks before.
- **The network** is loopback alone, for server, client and test (`tests/integrations/network.py`), where the machine
  permits that: `client.offline` says so. `installer` fetches with a process that has stayed outside.
- **The environment** of a client has nothing of the caller's but a locale: `HOME` is `client.home`, it works in
  `client.work`, and PATH begins with the folders of the package.
- **What the server saw** is `client.requests()`: its request log since the client began.
- A client that serves, such as a web interface, is started with `client.started(...)` and asked with httpx.
- **Results** are written to docs/integrations/results if CORECTL_KEEP_RESULTS is set; `python -m tests.docs.generated`
  makes the table of them. Both are committed.
- What a client leaves running is ended after the test, found by its `HOME`.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import signal
import subprocess
import time
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import msgspec
import psutil

from tests.conftest import Server
from tests.integrations.installing import Installed
from tests.integrations.loop import DONE, FULL_NAME, SAID
from tests.integrations.results import Result

ASKING = frozenset(
    {
        *("/api/chat", "/api/generate"),
        *("/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages"),
    }
)
"""Paths of which each request is a turn of the model."""
_PATIENCE = 10.0
"""Seconds after which a request that a client has left must be in the log."""


class Request(msgspec.Struct, frozen=True):
    """One line of the server's request log."""

    method: str
    path: str
    status: int
    outcome: str

    @property
    def route(self) -> str:
        return f"{self.method} {self.path}"


class Client:
    """A client's place: a home, a folder to work in, and the server that it talks to."""

    def __init__(self, server: Server, folder: Path, *, offline: bool) -> None:
        self.server = server
        self.url = server.url
        self.model = FULL_NAME
        self.offline = offline
        self.home = folder / "home"
        self.work = folder / "work"
        self.home.mkdir()
        self.work.mkdir()
        self._began = len(server.log)
        self._ours: list[str] = []  # routes that the test asked, not the client

    def environment(self, package: Installed, **more: str) -> dict[str, str]:
        """All that a client's environment has."""
        path = [*map(str, package.path), "/usr/local/bin", "/usr/bin", "/bin"]
        return {
            "HOME": str(self.home),
            "TMPDIR": str(self.home),
            "PATH": os.pathsep.join(path),
            "LANG": "C.UTF-8",
            "TERM": "dumb",
            "NO_PROXY": "*",
            **more,
        }

    def run(self, package: Installed, *command: str, timeout: float = 240, **more: str) -> str:
        """What a command prints, which must succeed. `more` are variables of its environment."""
        with self.started(package, *command, **more) as process:
            try:
                status = process.wait(timeout)
            except subprocess.TimeoutExpired:
                raise AssertionError(f"not done after {timeout} s: {self._told()}") from None
        assert status == 0, f"status {status}: {self._told()}"
        return self.output

    @contextlib.contextmanager
    def started(self, package: Installed, *command: str, **more: str) -> Iterator[subprocess.Popen[bytes]]:
        """A command that goes on until the end of the block; `output` is what it has printed so far."""
        environment = self.environment(package, **more)
        with (self.home / "output.txt").open("wb") as output:
            process = subprocess.Popen(
                ["env", *command],  # looks the program up in the PATH given here
                cwd=self.work,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    @property
    def output(self) -> str:
        return (self.home / "output.txt").read_text("utf-8", "replace")

    def requests(self) -> list[Request]:
        """What the server has answered since the client began, in the order of the answers' ends."""
        return [
            msgspec.convert(line, Request) for line in self._log() if line.get("source") == "corectl.request"
        ]

    def walked(self, output: str, *, calls: int, refused: Collection[str] = ()) -> None:
        """The agent has run its tool, shown the last word, and asked at least so many times; see `served` too."""
        assert DONE in output, self._told()
        assert (self.work / SAID).read_text() == "hi\n", self._told()
        self.served(calls=calls, refused=refused)

    def served(self, *, calls: int, refused: Collection[str] = ()) -> None:
        """The model was asked at least so many times, no request was refused, and no error was logged.

        `refused` are routes of which a refusal is part of the game, such as `GET /v1/models/absent`.
        """
        deadline = time.monotonic() + _PATIENCE
        while len(self._asked()) < calls and time.monotonic() < deadline:
            time.sleep(0.1)
        assert len(self._asked()) >= calls, self._told()
        wrong = [one for one in self.requests() if one.status >= 400 and one.route not in refused]
        assert not wrong, self._told()
        assert not [line for line in self._log() if line["level"] in ("ERROR", "CRITICAL")], self._told()

    def contexts(self) -> set[int]:
        """How long the contexts are that models are loaded with, in tokens.

        Those of these tests have the same weights, so that one of them may be loaded for the other.
        """
        self._ours.append("GET /api/ps")
        return {int(entry["context_length"]) for entry in self.server.ps()}

    def keep(self, name: str, version: str, *, page: str) -> None:
        """Writes down that a client has passed, and on which routes; `page` of docs/integrations is about it.

        Nothing is written unless CORECTL_KEEP_RESULTS is set.
        """
        routes = [one.route for one in self.requests()]
        for ours in self._ours:
            with contextlib.suppress(ValueError):  # it may not be in the log yet
                routes.remove(ours)
        result = Result(
            client=name,
            page=page,
            version=version,
            routes=sorted(set(routes)),
            offline=self.offline,
            date=datetime.date.today().isoformat(),
        )
        result.write()

    def end_leftovers(self) -> None:
        """Ends what the client has left running."""
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.environ().get("HOME") == str(self.home):
                    process.kill()

    def _asked(self) -> list[Request]:
        return [one for one in self.requests() if one.path in ASKING]

    def _log(self) -> list[dict[str, Any]]:
        log = self.server.log
        whole = log[self._began : log.rfind("\n") + 1]  # the last line may be in the middle of being written
        return [json.loads(line) for line in whole.split("\n") if line.startswith("{")]

    def _told(self) -> str:
        """All that helps to see what went wrong."""
        return f"{self.output[-8000:]}\n--- server ---\n{self.server.log[self._began :][-8000:]}"
