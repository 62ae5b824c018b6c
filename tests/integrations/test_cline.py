"""Cline, which speaks Ollama's API, whatever the address that it is given ends in."""

from __future__ import annotations

import json

import pytest

from tests.integrations.installing import Installer
from tests.integrations.kit import Client
from tests.integrations.loop import DONE, FULL_NAME, THINKER

CONTEXT = 6144


def set_up(client: Client, model: str, address: str) -> None:
    ollama = {"provider": "ollama", "model": model, "baseUrl": address, "contextWindow": CONTEXT}
    entry = {"settings": ollama, "updatedAt": "2026-01-01T00:00:00.000Z", "tokenSource": "manual"}
    providers = {"version": 1, "lastUsedProvider": "ollama", "providers": {"ollama": entry}}
    data = client.home / ".cline/data"
    (data / "settings").mkdir(parents=True)
    (data / "settings/providers.json").write_text(json.dumps(providers))
    (data / "globalState.json").write_text('{"telemetrySetting": "disabled"}')


@pytest.mark.parametrize(("model", "end"), [(THINKER, "/v1"), (FULL_NAME, "")])
def test_it_walks_the_loop(installer: Installer, client: Client, model: str, end: str) -> None:
    package = installer.npm("cline@3.0.65")
    set_up(client, model, client.url + end)
    output = client.run(package, "cline", "--json", "Run echo hi.")
    client.walked(output, calls=2)
    result = json.loads(output.splitlines()[-1])
    assert result["finishReason"] == "completed" and result["text"] == DONE
    assert result["usage"]["inputTokens"] > 0 and result["usage"]["outputTokens"] > 0
    assert CONTEXT in client.contexts()
    assert "POST /api/chat" in {request.route for request in client.requests()}
    client.keep("Cline", package.version, page="cline")
