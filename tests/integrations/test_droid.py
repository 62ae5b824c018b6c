"""Droid, which asks models of the user's own without a login, in any of three protocols."""

from __future__ import annotations

import json

import pytest

from tests.integrations.installing import Installed, Installer
from tests.integrations.kit import Client
from tests.integrations.loop import DONE, FULL_NAME, THINKER

PACKAGE = "droid@0.215.0"


def walk(package: Installed, client: Client, model: str) -> None:
    output = client.run(
        package,
        *("droid", "exec", "--model", model, "--auto", "low", "--output-format", "json", "Run echo hi."),
        FACTORY_DROID_AUTO_UPDATE_ENABLED="0",
    )
    client.walked(output, calls=2)
    result = json.loads(output.splitlines()[-1])
    assert result["is_error"] is False and result["num_turns"] == 2 and result["result"] == DONE


@pytest.mark.parametrize(
    ("name", "provider", "base", "model"),
    [
        ("Droid", "generic-chat-completion-api", "/v1", FULL_NAME),
        ("Droid, openai", "openai", "/v1", THINKER),
        ("Droid, anthropic", "anthropic", "", THINKER),
    ],
)
def test_it_walks_the_loop(
    installer: Installer, client: Client, name: str, provider: str, base: str, model: str
) -> None:
    package = installer.npm(PACKAGE)
    custom = {
        "displayName": "local",
        "model": model,
        "baseUrl": f"{client.url}{base}",
        "apiKey": "corectl",
        "provider": provider,
        "maxOutputTokens": 32000,
        "extraArgs": {"num_ctx": 3072},
    }
    settings = client.home / ".factory/settings.json"
    settings.parent.mkdir()
    settings.write_text(json.dumps({"customModels": [custom]}))
    walk(package, client, "custom:local-0")
    assert 3072 in client.contexts()
    client.keep(name, package.version, page="droid")


def test_its_older_settings_are_heard_too(installer: Installer, client: Client) -> None:
    model = {
        "model_display_name": "local",
        "model": THINKER,
        "base_url": f"{client.url}/v1/",
        "api_key": "corectl",
        "provider": "generic-chat-completion-api",
        "max_tokens": 32000,
    }
    settings = client.home / ".factory/config.json"
    settings.parent.mkdir()
    settings.write_text(json.dumps({"custom_models": [model]}))
    walk(installer.npm(PACKAGE), client, "custom:local-0")
