"""How the tests of servers behind servers ask them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

from tests.conftest import Server


def lines(server: Server, path: str, **body: Any) -> list[dict[str, Any]]:
    with server.client.stream("POST", path, json=body) as reply:
        reply.raise_for_status()
        return [json.loads(line) for line in reply.iter_lines()]


def corectl(server: Server, *arguments: str) -> str:
    """What a command of the command line prints."""
    environment = {**os.environ, "OLLAMA_HOST": server.url}
    done = subprocess.run(
        [sys.executable, "-m", "corectl", *arguments],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
