"""What n8n's editor does, asked of n8n's own interface."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import Any

import httpx

CHAT_MODEL = "@n8n/n8n-nodes-langchain.lmChatOllama"
_PATIENCE = 180.0
"""Seconds for n8n to start, and for a workflow to be published, which it is some time after n8n says so."""
_MODELS = {
    "routing": {
        "request": {"method": "GET", "url": "/api/tags"},
        "output": {
            "postReceive": [
                {"type": "rootProperty", "properties": {"property": "models"}},
                {
                    "type": "setKeyValue",
                    "properties": {"name": "={{$responseItem.name}}", "value": "={{$responseItem.name}}"},
                },
            ]
        },
    }
}
"""How the node Ollama Chat Model describes its list of models."""


class Editor:
    """Somebody at the editor of an n8n that has just been started for the first time."""

    def __init__(self, http: httpx.Client) -> None:
        self._http = http
        # While it starts it answers everything with 200 and a sentence, and then for a while with 503.
        self._wait(
            lambda: http.get("/rest/settings"),
            until=lambda reply: reply.is_success and reply.text.startswith("{"),
        )
        person = {"email": "a@localhost.test", "firstName": "A", "lastName": "B", "password": "Password1"}
        self._post("/rest/owner/setup", **person)

    def add_credential(self, base_url: str) -> dict[str, str]:
        """Saves an Ollama credential that passes its test, and returns how nodes refer to it."""
        data = {"baseUrl": base_url, "apiKey": ""}
        made = self._post("/rest/credentials", name="Ollama", type="ollamaApi", data=data)
        reference = {"id": str(made["id"]), "name": "Ollama"}
        said = self._post(
            "/rest/credentials/test", credentials={**reference, "type": "ollamaApi", "data": data}
        )
        assert said["status"] == "OK", said
        return reference

    def models(self, credential: dict[str, str]) -> list[str]:
        """The names in the list of the node Ollama Chat Model."""
        offered = self._post(
            "/rest/dynamic-node-parameters/options",
            path="parameters.model",
            nodeTypeAndVersion={"name": CHAT_MODEL, "version": 1},
            currentNodeParameters={},
            credentials={"ollamaApi": credential},
            loadOptions=_MODELS,
        )
        return [str(option["value"]) for option in offered]

    def run(self, nodes: list[dict[str, Any]], connections: dict[str, Any], hook: str) -> Any:
        """Publishes a workflow, calls its webhook, and returns what the last node made."""
        settings = {"executionOrder": "v1"}
        saved = self._post(
            "/rest/workflows", name="Test", nodes=nodes, connections=connections, settings=settings
        )
        self._post(f"/rest/workflows/{saved['id']}/activate", versionId=saved["versionId"])
        reply = self._wait(
            lambda: self._http.get(f"/webhook/{hook}"), until=lambda reply: reply.status_code != 404
        )
        assert reply.is_success, reply.text
        return reply.json()

    def _post(self, path: str, /, **body: Any) -> Any:
        reply = self._http.post(path, json=body)
        assert reply.is_success, reply.text
        return reply.json()["data"]

    @staticmethod
    def _wait(ask: Callable[[], httpx.Response], until: Callable[[httpx.Response], bool]) -> httpx.Response:
        deadline = time.monotonic() + _PATIENCE
        while time.monotonic() < deadline:
            with contextlib.suppress(httpx.TransportError):
                reply = ask()
                if until(reply):
                    return reply
            time.sleep(0.5)
        raise AssertionError("n8n takes too long")
