"""Droid, which asks a model of the user's own without a login, on OpenAI's chat route."""

from __future__ import annotations

import json

from tests.integrations.installing import Installer
from tests.integrations.kit import Client
from tests.integrations.loop import DONE


def test_it_walks_the_loop(installer: Installer, client: Client) -> None:
    package = installer.npm("droid@0.215.0")
    model = {
        "displayName": "local",
        "model": client.model,
        "baseUrl": f"{client.url}/v1",
        "apiKey": "corectl",
        "provider": "generic-chat-completion-api",
        "maxOutputTokens": 32000,
    }
    settings = client.home / ".factory/settings.json"
    settings.parent.mkdir()
    settings.write_text(json.dumps({"customModels": [model]}))
    output = client.run(
        package,
        *(
            "droid",
            "exec",
            "--model",
            "custom:local-0",
            "--auto",
            "low",
            "--output-format",
            "json",
            "Run echo hi.",
        ),
        FACTORY_DROID_AUTO_UPDATE_ENABLED="0",
    )
    client.walked(output, calls=2)
    result = json.loads(output.splitlines()[-1])
    assert result["is_error"] is False and result["num_turns"] == 2 and result["result"] == DONE
    client.keep("Droid", package.version, page="droid")
