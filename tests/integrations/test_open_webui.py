"""Open WebUI, which speaks Ollama's API or OpenAI's. Its tools are Python, and run in its own server."""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.docs.place import free_port
from tests.integrations.installing import Installed, Installer
from tests.integrations.kit import Client
from tests.integrations.loop import DONE, SAID

_QUIET = {
    "OFFLINE_MODE": "True",
    "RAG_EMBEDDING_ENGINE": "ollama",  # else it wants a model of a hub when it starts
}
_PATIENCE = 240.0
_TOOL = '''
import subprocess

class Tools:
    def bash(self, command: str, description: str) -> str:
        """
        Run a command of the shell.
        :param command: what to run
        :param description: why
        """
        return subprocess.run(command, shell=True, capture_output=True, text=True).stdout
'''


@pytest.mark.parametrize("protocol", ["Ollama", "OpenAI"])
def test_it_walks_the_loop(installer: Installer, client: Client, protocol: str) -> None:
    package = installer.pypi("open-webui==0.12.4")
    with started(client, package, **_connection(client, protocol)) as http:
        assert client.model in [model["id"] for model in http.get("/api/models").json()["data"]]
        tool = {"id": "shell", "name": "Shell", "content": _TOOL, "meta": {"description": "Runs commands"}}
        http.post("/api/v1/tools/create", json=tool).raise_for_status()
        reply = chat(http, client.model, "Run echo hi.", tool="shell")
    assert DONE in reply["content"], (reply, client.output)
    assert (client.work / SAID).read_text() == "hi\n", client.output
    client.served(calls=2)
    client.keep(f"Open WebUI, {protocol}", package.version, page="open-webui")


def _connection(client: Client, protocol: str) -> dict[str, str]:
    if protocol == "Ollama":
        return {"OLLAMA_BASE_URL": client.url, "ENABLE_OPENAI_API": "False"}
    address = {"OPENAI_API_BASE_URL": f"{client.url}/v1", "OPENAI_API_KEY": "corectl"}
    return {**address, "ENABLE_OLLAMA_API": "False"}


@contextlib.contextmanager
def started(client: Client, package: Installed, **connection: str) -> Iterator[httpx.Client]:
    """An Open WebUI, and its first user, who is its administrator."""
    port = free_port()
    data = client.home / "data"
    data.mkdir()
    serve = ("open-webui", "serve", "--host", "127.0.0.1", "--port", str(port))
    with (
        client.started(package, *serve, DATA_DIR=str(data), **_QUIET, **connection) as process,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60, trust_env=False) as http,
    ):
        deadline = time.monotonic() + _PATIENCE
        while not _healthy(http):
            assert process.poll() is None and time.monotonic() < deadline, client.output[-4000:]
            time.sleep(1)
        person = {"name": "A", "email": "a@localhost.test", "password": "Password1"}
        token = http.post("/api/v1/auths/signup", json=person).raise_for_status().json()["token"]
        http.headers["Authorization"] = f"Bearer {token}"
        yield http


def _healthy(http: httpx.Client) -> bool:
    try:
        return http.get("/health").is_success
    except httpx.TransportError:
        return False


def chat(http: httpx.Client, model: str, text: str, tool: str) -> dict[str, Any]:
    """The finished message that answers the first of a new chat, which the page asks for in this way."""
    asked, answer = str(uuid.uuid4()), str(uuid.uuid4())
    message = {"id": asked, "parentId": None, "childrenIds": [answer], "role": "user", "content": text}
    request = {
        "model": model,
        "stream": True,
        "messages": [{"role": "user", "content": text}],
        "tool_ids": [tool],
        "session_id": "a-page",
        "parent_id": None,
        "user_message": {**message, "models": [model]},
        "id": answer,
        "background_tasks": {"title_generation": True},
    }
    begun = http.post("/api/chat/completions", json=request).raise_for_status().json()
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline:
        saved = http.get(f"/api/v1/chats/{begun['chat_id']}").raise_for_status().json()["chat"]
        reply: dict[str, Any] = saved["history"]["messages"].get(answer, {})
        if reply.get("done"):
            return reply
        time.sleep(0.5)
    raise AssertionError(f"no answer: {reply}")
