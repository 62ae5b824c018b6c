"""Cline, which speaks Ollama's API, whatever the address that it is given ends in."""

from __future__ import annotations

import json

import pytest

from tests.integrations.installing import Installed, Installer
from tests.integrations.kit import Client
from tests.integrations.loop import DONE

PACKAGE = "cline@3.0.65"


def set_up(package: Installed, client: Client, address: str) -> None:
    telemetry = client.home / ".cline/data/globalState.json"
    telemetry.parent.mkdir(parents=True)
    telemetry.write_text('{"telemetrySetting": "disabled"}')
    client.run(
        package,
        *("cline", "auth", "--provider", "ollama", "--baseurl", address),
        *("--modelid", client.model, "--apikey", "corectl"),
    )


@pytest.mark.parametrize("end", ["", "/v1"])
def test_it_walks_the_loop(installer: Installer, client: Client, end: str) -> None:
    package = installer.npm(PACKAGE)
    set_up(package, client, client.url + end)
    output = client.run(package, "cline", "--json", "Run echo hi.")
    client.walked(output, calls=2)
    result = json.loads(output.splitlines()[-1])
    assert result["finishReason"] == "completed" and result["text"] == DONE
    assert result["usage"]["inputTokens"] > 0 and result["usage"]["outputTokens"] > 0
    assert "POST /api/chat" in {request.route for request in client.requests()}
    client.keep("Cline", package.version, page="cline")
