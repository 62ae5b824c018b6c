"""pi, which speaks OpenAI's Chat Completions API."""

from __future__ import annotations

import json

import pytest

from tests.integrations.installing import Installer
from tests.integrations.kit import Client
from tests.integrations.loop import FULL_NAME, THINKER


@pytest.mark.parametrize("model", [FULL_NAME, THINKER])
def test_it_walks_the_loop(installer: Installer, client: Client, model: str) -> None:
    package = installer.npm("@mariozechner/pi-coding-agent@0.73.1")
    provider = {
        "baseUrl": f"{client.url}/v1",
        "api": "openai-completions",
        "apiKey": "corectl",
        "models": [{"id": model, "reasoning": model == THINKER, "contextWindow": 32768, "maxTokens": 8192}],
    }
    folder = client.home / ".pi/agent"
    folder.mkdir(parents=True)
    (folder / "models.json").write_text(json.dumps({"providers": {"corectl": provider}}))
    command = ("pi", "--provider", "corectl", "--model", model, "-p", "Run echo hi.")
    output = client.run(package, *command, PI_OFFLINE="1", PI_SKIP_VERSION_CHECK="1")
    client.walked(output, calls=2)
    client.keep("pi", package.version, page="pi")
