"""Servers that pull and push, with keys and a way to the network of their own, and short ways to ask them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.conftest import Server
from tests.registry.host import Host

PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")


def transfer_server(folder: Path, *flags: str, **environment: str) -> Server:
    """A server that knows nobody's keys and no proxy but those of `environment`."""
    home = folder / "home"
    home.mkdir(parents=True, exist_ok=True)
    proxies = {name: environment.pop(name, "") for name in PROXIES}
    # In small letters too: those win, and an empty one is none.
    proxies |= {name.lower(): value for name, value in proxies.items()}
    return Server(folder, *flags, **{"HOME": str(home), **proxies, **environment})


def insecure_name(host: Host, path: str) -> str:
    """A model of a host without encryption, such as `http://127.0.0.1:1234/library/smol`."""
    return f"{host.url}/{path}"


def steps(server: Server, path: str, **body: Any) -> list[dict[str, Any]]:
    """What a request streams that reports its steps."""
    with server.client.stream("POST", path, json={"insecure": True, **body}) as reply:
        assert reply.status_code == 200, reply.read()
        assert reply.headers["content-type"] == "application/x-ndjson"
        return [json.loads(line) for line in reply.iter_lines()]


def pull(server: Server, host: Host, path: str, **body: Any) -> list[dict[str, Any]]:
    """The steps of a pull from a host without encryption."""
    return steps(server, "/api/pull", model=insecure_name(host, path), **body)


def wait_for(condition: Callable[[], object]) -> None:
    """Until it holds, or for a minute."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.02)


def names(server: Server) -> list[str]:
    return [model["name"] for model in server.client.get("/api/tags").json()["models"]]


def store_files(server: Server) -> dict[str, int]:
    """All files of the store with their sizes, without those of downloads that may go on."""
    return {
        str(path.relative_to(server.models)): path.stat().st_size
        for path in sorted(server.models.rglob("*"))
        if path.is_file() and "-partial" not in path.name
    }
