"""n8n, which speaks Ollama's API: an AI Agent with an Ollama Chat Model and a calculator, behind a webhook."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from typing import Any

import httpx

from tests.docs.place import free_port
from tests.integrations.installing import Installed, Installer
from tests.integrations.kit import Client
from tests.integrations.loop import DONE
from tests.integrations.n8n import CHAT_MODEL, Editor

_QUIET = (
    *("N8N_DIAGNOSTICS_ENABLED", "N8N_VERSION_NOTIFICATIONS_ENABLED", "N8N_TEMPLATES_ENABLED"),
    *("N8N_PERSONALIZATION_ENABLED", "N8N_COMMUNITY_PACKAGES_ENABLED", "N8N_SECURE_COOKIE"),
)
_HOOK = "ask"
_SHELF = "@n8n/n8n-nodes-langchain"


def test_it_walks_the_loop(installer: Installer, client: Client) -> None:
    # Scripts of its dependencies fetch binaries from where only some machines get to; sqlite3 needs its own.
    package = installer.npm("n8n@2.40.7", flags=["--ignore-scripts"], rebuild=["sqlite3"])
    with started(client, package) as editor:
        credential = editor.add_credential(client.url)
        assert client.model in editor.models(credential)
        said = editor.run(_nodes(client.model, credential), _connections(), _HOOK)
    assert said["output"] == DONE, client.output
    (step,) = said["intermediateSteps"]
    assert json.loads(step["observation"]) == [{"response": "42"}], step
    client.served(calls=2)
    client.keep("n8n", package.version, page="n8n")


@contextlib.contextmanager
def started(client: Client, package: Installed) -> Iterator[Editor]:
    port = free_port()
    ports = {"N8N_PORT": str(port), "N8N_RUNNERS_BROKER_PORT": str(free_port())}
    address = {"N8N_LISTEN_ADDRESS": "127.0.0.1"}
    quiet = dict.fromkeys(_QUIET, "false")
    with (
        client.started(package, "n8n", "start", **ports, **address, **quiet),
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60, trust_env=False) as http,
    ):
        yield Editor(http)


def _nodes(model: str, credential: dict[str, str]) -> list[dict[str, Any]]:
    hook = {"path": _HOOK, "responseMode": "lastNode", "options": {}}
    agent = {
        "promptType": "define",
        "text": "What is 6 * 7?",
        "options": {"returnIntermediateSteps": True, "enableStreaming": False},
    }
    chat_model = {
        **_node("Ollama Chat Model", CHAT_MODEL, 1, {"model": model, "options": {}}),
        "credentials": {"ollamaApi": credential},
    }
    return [
        {**_node("Webhook", "n8n-nodes-base.webhook", 2, hook), "webhookId": _HOOK},
        _node("AI Agent", f"{_SHELF}.agent", 3, agent),
        chat_model,
        _node("calculator", f"{_SHELF}.toolCalculator", 1, {}),  # the tool has the node's name
    ]


def _node(name: str, kind: str, version: int, parameters: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": name.replace(" ", "-").lower(),
        "name": name,
        "type": kind,
        "typeVersion": version,
        "position": [0, 0],
        "parameters": parameters,
    }


def _connections() -> dict[str, Any]:
    links = {"Webhook": "main", "Ollama Chat Model": "ai_languageModel", "calculator": "ai_tool"}
    return {name: {link: [[{"node": "AI Agent", "type": link, "index": 0}]]} for name, link in links.items()}
